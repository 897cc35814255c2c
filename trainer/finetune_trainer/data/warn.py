"""What is odd about the data and no error: said in the log and the report, and the run goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from finetune_trainer.data.alike import WRITTEN_FOR_NOTHING, look
from finetune_trainer.data.examples import Examples, Split, Stop
from finetune_trainer.data.keys import among, different, first_with, inputs, keys_of
from finetune_trainer.data.kinds import Kinds
from finetune_trainer.data.kinds.chats import ASSISTANT, ROLES, answered, unwrapped
from finetune_trainer.data.kinds.label import Label
from finetune_trainer.data.kinds.labels import Labels
from finetune_trainer.data.kinds.messages import Completions, Messages
from finetune_trainer.data.kinds.number import NUMBER, Number
from finetune_trainer.data.kinds.pairs import pair_of
from finetune_trainer.data.kinds.preference import Preferences
from finetune_trainer.data.kinds.tags import Tags
from finetune_trainer.data.kinds.text import OptionalTexts, Texts
from finetune_trainer.data.problems import at, listed, rows_of, shortened, spelt
from finetune_trainer.data.rows import MOST

MANY = 20
"""Labels, from which on a different one in every second row is odd."""
SYSTEM = "system"
"""The role of a column, and that of a message."""
_NOTHING = pa.array(sorted(WRITTEN_FOR_NOTHING))


Names = Mapping[str, Sequence[str]]
"""By role of a kind that has names."""
Keys = Mapping[Split, NDArray[np.uint64]]
"""Of each split, as of `keys_of`."""


def warn_of_rows(splits: Mapping[Split, Examples], kinds: Kinds, names: Names, keys: Keys, stop: Stop) -> list[str]:
    """Of the rows as they were read, before any of them are set aside; one sentence each."""
    train = splits["train"]
    labels = [(role, names[role]) for role, kind in kinds.items() if issubclass(kind, (Label, Labels))]
    texts = [role for role, kind in kinds.items() if issubclass(kind, Texts)]
    return [
        *(warning for role, own in labels for warning in _unlearned_labels(train, role, own)),
        *(warning for role, own in labels if kinds[role] is not Tags for warning in _doubtful_labels(train, role, own)),
        *(
            warning
            for role in texts
            for warning in _doubtful_texts(train, role, all_have=kinds[role] is not OptionalTexts)
        ),
        *(warning for role, kind in kinds.items() if kind is Number for warning in _equal_numbers(splits, role)),
        *_contradictions(train, kinds, keys["train"], stop),
        *_opposed_pairs(train, kinds, keys["train"], stop),
        *_doubtful_prompts(train, kinds, stop),
        *_unread_systems(train, kinds, stop),
        *_shared_rows(splits, kinds, keys),
    ]


def warn_of_shared_parts(splits: Mapping[Split, Examples], roles: Sequence[str], keys: Keys, parts: Keys) -> list[str]:
    """Rows of validation or test that have what stays together, `roles`, of a training row and are another row all the same, such as
    another question to a context that was trained on. `parts` are the keys of these roles, `keys` those of all inputs."""
    known, rows = different(parts["train"]), different(keys["train"])
    warnings = []
    for split, others in splits.items():
        shared = np.flatnonzero(among(parts[split], known) & ~among(keys[split], rows))
        if split != "train" and len(shared):
            warnings.append(
                f"{len(shared):,} of {len(others):,} {rows_of(split)} have the {' and '.join(roles)} of a training row and are other ones, so "
                f"their metrics flatter: {at(others.origins.take(shared))}."
            )
    return warnings


def warn_of_absent_labels(splits: Mapping[Split, Examples], kinds: Kinds, names: Names, *, drawn: bool) -> list[str]:
    """Labels that are trained and that a split has no row of; `drawn` says that validation was drawn from the training rows."""
    warnings = []
    for role in (role for role, kind in kinds.items() if issubclass(kind, (Label, Labels))):
        trained = np.unique(positions(splits["train"], role))
        if drawn:
            warnings += _drawn_away(splits, role, names[role], trained)
        for split, examples in splits.items():
            absent = [names[role][number] for number in np.setdiff1d(trained, positions(examples, role)).tolist()]
            if not absent:
                continue
            said = f"label {listed(absent)}" if len(absent) == 1 else f"{len(absent)} labels {listed(absent)}"
            warning = f"No row of the {split} split has the {said}: the split's metrics say nothing about {'it' if len(absent) == 1 else 'them'}."
            if drawn and split == "validation":
                warning += " Raise spec.dataset.validationFraction, give more examples, or rows of their own in spec.dataset.splits.validation."
            warnings.append(warning)
    return warnings


def _drawn_away(
    splits: Mapping[Split, Examples], role: str, names: Sequence[str], trained: NDArray[np.int64]
) -> list[str]:
    """Labels all of whose rows were drawn from the training rows."""
    lost = np.setdiff1d(positions(splits["validation"], role), trained)
    if not len(lost):
        return []
    labels = [names[number] for number in lost.tolist()]
    said = f"label {listed(labels)}" if len(labels) == 1 else f"{len(labels)} labels {listed(labels)}"
    return [
        f"All rows with the {said} are set aside for validation, so the model will not learn {'it' if len(labels) == 1 else 'them'}: give more "
        "such examples, or rows of their own in spec.dataset.splits.validation."
    ]


def positions(examples: Examples, role: str) -> NDArray[np.int64]:
    """All labels of a role that has one or several in a row, shape (labels,)."""
    column = examples.column(role)
    return np.asarray((pc.list_flatten(column) if pa.types.is_list(column.type) else column).to_numpy())


def _unlearned_labels(train: Examples, role: str, labels: Sequence[str]) -> list[str]:
    """Labels without training examples."""
    counts = np.bincount(positions(train, role), minlength=len(labels))
    return [
        f'The label "{label}" is listed and has no training example: the model will not learn it.'
        for label, count in zip(labels, counts, strict=True)
        if not count
    ]


def _doubtful_labels(train: Examples, role: str, labels: Sequence[str]) -> list[str]:
    """Labels that are perhaps none: too many different ones, what programs write for nothing, look-alikes."""
    warnings = []
    if len(labels) > MANY and len(labels) > len(train) / 2:
        warnings.append(
            f"There are {len(labels):,} different labels in {len(train):,} training rows, such as {listed(labels, 3)}. If these "
            f"are no classes, name another column in spec.dataset.columns.{role}."
        )
    nothing = [label for label in labels if label.strip() in WRITTEN_FOR_NOTHING]
    if nothing:
        counts = np.bincount(positions(train, role), minlength=len(labels))
        rows = sum(int(counts[labels.index(label)]) for label in nothing)
        warnings.append(
            f"The label {listed(nothing)}, in {rows:,} training rows, is learned as any other, and is what many programs write "
            "where there is no value. If these rows have no label, remove them."
        )
    alike: dict[str, list[str]] = {}
    for label in labels:
        alike.setdefault(look(label).casefold(), []).append(label)
    for group in alike.values():
        if len(group) > 1:
            warnings.append(
                f"The labels {', '.join(map(spelt, group))} differ only in case, blanks, or how Unicode writes the same characters, "
                "and are learned as different ones."
            )
    return warnings


def _equal_numbers(splits: Mapping[Split, Examples], role: str) -> list[str]:
    """Splits in which a number does not change, of which a correlation says nothing; training rows that are so are refused."""
    warnings = []
    for split, examples in splits.items():
        least, most = pc.min_max(examples.column(role)).as_py().values()
        if least == most and split != "train":
            warnings.append(
                f"All {len(examples):,} {rows_of(split)} have the {Number.noun} {least:g}, so a correlation with it says nothing."
            )
    return warnings


def _contradictions(train: Examples, kinds: Kinds, keys: NDArray[np.uint64], stop: Stop) -> list[str]:
    """Training rows that are equal but for what is said of them; `keys` are those of their inputs."""
    said = [role for role, kind in kinds.items() if kind.another]
    told = [role for role, kind in kinds.items() if role not in said]
    if not said:
        return []
    if told != inputs(kinds):  # what is said is said of an answer, too
        keys = keys_of(train, kinds, stop, told)
    if len(different(keys)) == len(train):
        return []
    first = first_with(keys)
    nouns = [next(kinds[role].noun for role in told), *(kinds[role].noun for role in told if not kinds[role].is_input)]
    warnings = []
    for role in said:
        answers = kinds[role].keys(train.values(role))
        contradictions = np.flatnonzero(answers != answers[first])
        if len(contradictions):
            warnings.append(
                f"{len(contradictions):,} training rows have the {' and '.join(dict.fromkeys(nouns))} of an earlier row and {kinds[role].another}: "
                f"{at(train.origins.take(contradictions))}."
            )
    return warnings


def _opposed_pairs(train: Examples, kinds: Kinds, keys: NDArray[np.uint64], stop: Stop) -> list[str]:
    """Training rows that prefer what another row rejects, and reject what it prefers; `keys` are those of their inputs."""
    pair = [role for role, kind in kinds.items() if kind is Preferences]
    if not pair:
        return []
    turned = dict(zip(pair, reversed(pair), strict=True))
    others = keys_of(train, kinds, stop, [turned.get(role, role) for role in inputs(kinds)])
    opposed = np.flatnonzero(among(others, different(keys)) & (others != keys))
    if not len(opposed):
        return []
    return [
        f"{len(opposed):,} training rows have the answers of another row the other way round, preferring what that rejects: "
        f"{at(train.origins.take(opposed))}."
    ]


def _doubtful_prompts(train: Examples, kinds: Kinds, stop: Stop) -> list[str]:
    """Rows of texts whose answers begin with the whole prompt, which stands before them anyway (of messages that is looked at where they are
    read), and rows whose prompt ends with what the assistant says, where another message of it follows."""
    answers = [role for role, kind in kinds.items() if issubclass(kind, (Completions, Preferences))]
    if Completions.prompt not in kinds or not answers:
        return []
    repeated, ended, begin = list[int](), list[int](), 0
    for block in train.blocks(Completions.prompt, *answers):
        stop()
        for row, (prompt, *said) in enumerate(zip(*block.values(), strict=True), begin):
            if not prompt:
                continue
            if not any(messages[0]["role"] for messages in (prompt, *said)):
                first = prompt[0]["content"].strip()
                if all(messages[0]["content"].lstrip().startswith(first) for messages in said):
                    repeated.append(row)
            given = unwrapped(prompt)
            if (
                given
                and given[-1]["role"] == ASSISTANT
                and _follows_itself(dict(zip(block, (prompt, *said), strict=True)))
            ):
                ended.append(row)
        begin += len(block[Completions.prompt])
    warnings, several = [], len(answers) > 1
    if len(repeated) > len(train) / 2:  # else some begin with the same word
        warnings.append(
            f"In {len(repeated):,} of {len(train):,} training rows {' and '.join(answers)} {'begin' if several else 'begins'} with the prompt, which "
            f"stands before {'them' if several else 'it'} anyway, so the model learns to say it again; leave it out there: "
            f"{at(train.origins.take(np.array(repeated)))}."
        )
    if ended:
        warnings.append(
            f"In {len(ended):,} of {len(train):,} training rows the assistant has the last word of the prompt, and {' and '.join(answers)} "
            f"{'are' if several else 'is'} another message of it, which does not go on with that: {at(train.origins.take(np.array(ended)))}."
        )
    return warnings


def _follows_itself(row: Mapping[str, Any]) -> bool:
    """Whether the assistant speaks last in the prompt of a row, and first in its answers."""
    if "chosen" in row:
        prompt, answer, *_ = pair_of(row)
    else:
        prompt, answer = answered(row["prompt"], row["completion"])
    return bool(prompt and prompt[-1]["role"] == answer[0]["role"] == ASSISTANT)


def _unread_systems(train: Examples, kinds: Kinds, stop: Stop) -> list[str]:
    """Rows whose conversation has a system message of its own, which is another one than that of its column."""
    chats = [role for role, kind in kinds.items() if issubclass(kind, Messages)]
    if SYSTEM not in kinds or not chats:
        return []
    unread, begin = list[int](), 0
    for block in train.blocks(SYSTEM, *chats):
        stop()
        for row, (system, *chats_of_row) in enumerate(zip(*block.values(), strict=True), begin):
            if system and system.strip():
                messages = (one for chat in chats_of_row for one in unwrapped(chat) if one["role"] in ROLES)
                first = next(messages, None)
                if first and first["role"] == SYSTEM and first["content"].strip() != system.strip():
                    unread.append(row)
        begin += len(block[SYSTEM])
    if not unread:
        return []
    return [
        f"In {len(unread):,} of {len(train):,} training rows the conversation has a system message of its own, and what {SYSTEM} says is not "
        f"read: {at(train.origins.take(np.array(unread)))}."
    ]


def _shared_rows(splits: Mapping[Split, Examples], kinds: Kinds, keys: Keys) -> list[str]:
    """Rows of validation or test that are training rows too.

    Inputs that nobody can tell apart are equal here; see `keys_of`.
    """
    noun = next(kind.noun for kind in kinds.values() if kind.is_input)
    known = different(keys["train"])
    warnings = []
    for split, others in splits.items():
        if split == "train":
            continue
        shared = np.flatnonzero(among(keys[split], known))
        if len(shared):
            warnings.append(
                f"{len(shared):,} of {len(others):,} {rows_of(split)} have the {noun} of a training row, so their metrics flatter: "
                f"{at(others.origins.take(shared))}."
            )
    return warnings


def _doubtful_texts(train: Examples, role: str, *, all_have: bool) -> list[str]:
    """Texts that are perhaps none: what programs write for no value, zero bytes, numbers only."""
    warnings = []
    texts = train.column(role)
    nothing = _rows(train, role, lambda chunk: pc.is_in(pc.utf8_trim_whitespace(chunk), _NOTHING.cast(chunk.type)))
    if len(nothing):
        warnings.append(
            f"{len(nothing):,} training rows have a text such as {shortened(texts[nothing[0]].as_py())}, which many programs write "
            f"where there is no value: {at(train.origins.take(nothing))}."
        )
    zeros = _rows(train, role, lambda chunk: pc.match_substring(chunk, "\0"))
    if len(zeros):
        warnings.append(
            f"{len(zeros):,} training rows have a text with a zero byte in it, as damaged files do: {at(train.origins.take(zeros))}."
        )
    if all_have and all(NUMBER.fullmatch(text) for text in train.values(role)):
        warnings.append(
            f"All texts are numbers, such as {shortened(texts[0].as_py())}. If these are no texts, name another column in "
            f"spec.dataset.columns.{role}."
        )
    return warnings


def _rows(examples: Examples, role: str, mask: Callable[[pa.Array], pa.Array]) -> NDArray[np.int64]:
    """The rows for which the mask is true; it is made batch by batch, as the column may not fit the memory."""
    found, begin = [np.empty(0, np.int64)], 0
    for batch in examples.batches(role, size=MOST):
        found.append(begin + np.flatnonzero(mask(batch.column(0)).to_numpy(zero_copy_only=False)))
        begin += len(batch)
    return np.concatenate(found)
