"""Answers that are liked or not: TRL's own loss and gradient, whatever the micro-batch; what is judged, what does not count, what is shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from finetune_api.failures import FailureReason, JobError
from finetune_api.tasks import TASKS
from finetune_trainer.engine.measure import Split, answer, defined, scores
from finetune_trainer.engine.references import refer
from finetune_trainer.report.blocks import Cards, Chat, Samples, Table, Text
from finetune_trainer.tasks.base import Features
from finetune_trainer.tasks.liked import Liked
from finetune_trainer.tasks.liked_blocks import liked_blocks
from tests.training.chatters import END, save_chatter
from tests.unit.trainer.data.folders import load_forms, written
from tests.unit.trainer.data.talk import load_lines
from tests.unit.trainer.tasks.gradients import loss_with_gradients_of
from tests.unit.trainer.tasks.loading import CPU, ask, features_of, never, take, task_of
from tests.unit.trainer.tasks.test_preferences import BETA, DEV, SHORT, TO_THE_END, answers_to, moved

CHATS = [
    {
        "prompt": [{"role": "user", "content": text}],
        "completion": [{"role": "assistant", "content": answers_to(text)[number % 2]}],
        "label": number % 3 != 1,
    }
    for number, text in enumerate(SHORT)
]
TEXTS = [
    {"prompt": text, "completion": f" {answers_to(text)[number % 2]}", "label": number % 3 != 1}
    for number, text in enumerate(SHORT)
]


def task(folder: Path, *lines: Mapping[str, Any], **options: Any) -> Liked:
    content = "".join(f"{json.dumps(line)}\n" for line in (lines or CHATS))
    written(folder / "data", {"train.jsonl": content, "dev.jsonl": content})
    model = save_chatter(folder / "model", template=TO_THE_END, std=0.1)
    options = {"objective": "kto", "beta": BETA, "maxNewTokens": 12, **options}
    training = {"batchSize": 8, "precision": "fp32"}
    found = task_of(model, folder / "data", DEV, task="text-generation", textGeneration=options, training=training)
    assert isinstance(found, Liked)
    return found


def referring(found: Liked, length: int | None = None) -> Features:
    return refer(found, features_of(found, found.data.train, length=length), CPU, seed=0)


def in_a_ring(features: Any) -> list[int]:
    """The rows so that the answer of each stands behind the prompt of the next."""
    order = [0]
    while len(order) < len(features.others):
        order.append(int(np.flatnonzero(features.others == order[-1])[0]))
    return order


@pytest.mark.parametrize(("lines", "cut"), [(CHATS, 84), (TEXTS, 66)], ids=["messages", "texts"])
def test_loss_and_gradient_are_those_of_trl(lines: list[dict[str, Any]], cut: int, tmp_path: Path) -> None:
    """Of a batch that TRL has at once, whose answers it turns round by one; in micro-batches of three here, and also where they are cut."""
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found, folder = task(tmp_path, *lines), tmp_path / "model"
    features = referring(found, cut)
    order = in_a_ring(features.features)  # type: ignore[attr-defined]
    moved(found)
    policy, reference = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for _ in range(2))
    policy.load_state_dict(found.model.state_dict())
    policy.get_input_embeddings().padding_idx = None
    arguments = trl.KTOConfig(
        output_dir=str(tmp_path / "trl"),
        beta=BETA,
        max_length=cut,
        per_device_train_batch_size=len(lines),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
    )
    theirs = trl.KTOTrainer(
        model=policy,
        ref_model=reference,
        args=arguments,
        train_dataset=datasets.Dataset.from_list([lines[index] for index in order]),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    rows = list(theirs.train_dataset)
    assert len(rows) == len(lines) and any(len(row["prompt_ids"]) + len(row["completion_ids"]) > cut for row in rows)
    wanted = theirs.compute_loss(policy, theirs.data_collator(rows))
    wanted.backward()
    losses = ask(found, features).losses
    assert losses.mean() == pytest.approx(float(wanted.detach()), rel=1e-6)
    assert losses.std() > 1e-2
    assert loss_with_gradients_of(found, features, policy) == pytest.approx(float(wanted.detach()), rel=1e-6)


def test_what_answers_are_compared_with_is_no_less_than_nothing_and_moves_the_loss(tmp_path: Path) -> None:
    found = task(tmp_path, *TEXTS)
    one = torch.ones(2, dtype=torch.float64)
    batch = {"liked": torch.tensor([True, False]), "counts": one, "reference_own": one, "reference_other": one}
    for others, shift in ((4.0, 3.0), (-4.0, 0.0)):
        losses = found.losses({"own": 1.5 * one, "other": others * one}, batch)
        margin = BETA * (0.5 - shift)
        assert losses.tolist() == pytest.approx([1 / (1 + np.exp(margin)), 1 / (1 + np.exp(-margin))])


def test_before_training_the_model_takes_no_side(tmp_path: Path) -> None:
    found = task(tmp_path)
    split = Split("validation", found.data.validation, referring(found))
    values = defined(scores(found, split, answer(found, split, CPU, never, found.spec.training)))
    assert values == pytest.approx({"loss": 0.5, "reward_accuracy": 0.5, "reward_margin": 0})


KTO = [form for form in TASKS["text-generation"].forms if form.needs.endswith("kto")]
TURNS = [
    {"role": "user", "content": "Salt?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "Taste."},
]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ({"messages": TURNS}, f"Taste.{END}"),
        ({"prompt": TURNS[:3], "completion": TURNS[3:]}, f"Taste.{END}"),
        ({"prompt": TURNS[:1], "completion": TURNS[1:]}, f"Yes.{END}Taste.{END}"),
        ({"prompt": "Salt", "completion": " is white."}, f" is white.{END}"),
        ({"instruction": "Why", "input": "salt?", "output": "Taste.", "history": [["Salt?", "Yes."]]}, f"Taste.{END}"),
    ],
    ids=[
        "the last answer of messages",
        "a completion",
        "all answers of a completion",
        "a text",
        "an instruction's output",
    ],
)
def test_what_is_judged_is_the_answer_also_behind_another_prompt(
    line: dict[str, Any], wanted: str, tmp_path: Path
) -> None:
    other = {name: value for name, value in line.items() if name != "completion"}
    other |= {"completion": line["completion"]} if "completion" in line else {}
    found = task(tmp_path, {**line, "label": True}, {**other, "label": "False"})
    [feature, second] = take(features_of(found, found.data.train), 0, 1)
    parts = np.split(feature["labels"], [int(feature["middle"])])
    assert [str(found._saved.decode(part[part >= 0])) for part in parts] == [wanted, wanted]
    assert (bool(feature["liked"]), bool(second["liked"])) == (True, False)


BOTH: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a prompt beside an instruction": (
        {"prompt": "### Why?", "completion": " Taste.", "instruction": "Why?", "output": "Taste.", "label": True},
        ("prompt", "completion", "label"),
    ),
    "a label that is none beside kto_tag": (
        {"instruction": "Why?", "output": "Taste.", "label": "spam", "kto_tag": True},
        ("instruction", "output", "label"),
    ),
    "a label that is a class beside kto_tag": (
        {"prompt": "Why?", "completion": " Taste.", "label": 0, "kto_tag": True},
        ("prompt", "completion", "label"),
    ),
    "a conversation's label that is none beside kto_tag": (
        {"messages": TURNS, "label": "spam", "kto_tag": True},
        ("messages", "label"),
    ),
}


@pytest.mark.parametrize("line", BOTH)
def test_of_columns_that_say_the_same_the_plainer_ones_are_read(line: str, tmp_path: Path) -> None:
    given, roles = BOTH[line]
    data = load_lines(tmp_path, KTO, given)
    assert data.train.roles == roles and list(data.train.values("label")) == [True]


LABELS = {"opposite": False, "the same": True, "a class": 2, "a text": "spam"}


@pytest.mark.parametrize("case", LABELS)
@pytest.mark.parametrize("extension", ["jsonl", "parquet"])
def test_a_label_beside_kto_tag_is_named_as_not_read(extension: str, case: str, tmp_path: Path) -> None:
    line = {"prompt": "Why?", "completion": " Taste.", "kto_tag": True}
    lines = [{**line, "label": LABELS[case]}, line]
    if extension == "jsonl":
        told = load_lines(tmp_path, KTO, *lines)
    else:
        for split in ("train", "dev"):
            pq.write_table(pa.Table.from_pylist(lines), tmp_path / f"{split}.parquet")
        told = load_forms(tmp_path, *KTO, splits={"validation": "dev.parquet"})
    assert list(told.train.values("label")) == [True, True]
    [warning] = [warning for warning in told.warnings if "not read" in warning]
    assert warning.startswith('The column "label" has something in 1 of 2 training rows, such as ')
    assert warning.endswith("unless spec.dataset.columns.label names it.")


def test_whoever_names_the_column_of_the_label_has_chosen_it(tmp_path: Path) -> None:
    line = {"prompt": "Why?", "completion": " Taste.", "kto_tag": True, "label": False}
    content = json.dumps(line) + "\n"
    folder = written(tmp_path, {"train.jsonl": content, "dev.jsonl": content})
    for column, liked, unread in (("kto_tag", True, []), ("label", False, ["kto_tag"])):
        data = load_forms(folder, *KTO, columns={"label": column}, splits={"validation": "dev.jsonl"})
        assert list(data.train.values("label")) == [liked]
        said = [warning for warning in data.warnings if "not read" in warning]
        assert [name in warning for warning, name in zip(said, unread, strict=True)] == [True] * len(unread)


NOTHING = (None, "", " ")


@pytest.mark.parametrize("nothing", NOTHING, ids=repr)
def test_where_kto_tag_is_empty_another_column_is_not_taken_and_may_be_named(nothing: Any, tmp_path: Path) -> None:
    """As of files of several sources, of which one says it so and one otherwise."""
    lines = [
        {"messages": TURNS, "kto_tag": True, "label": True},
        {"messages": TURNS, "kto_tag": nothing, "label": False},
        {"messages": TURNS, "label": False},
    ]
    with pytest.raises(JobError, match=r"the label is empty in 2 of 3 .*line 2, column \"kto_tag\"") as caught:
        load_lines(tmp_path, KTO, *lines)
    assert 'Or, where the column "label" says it of all rows, name that in spec.dataset.columns.label.' in (
        caught.value.remedy or ""
    )
    named = load_forms(tmp_path, *KTO, columns={"label": "label"}, splits={"validation": "dev.jsonl"})
    assert list(named.train.values("label")) == [True, False, False]
    [warning] = [warning for warning in named.warnings if "not read" in warning]
    assert warning.startswith('The column "kto_tag" has something in 1 of 3 training rows, such as True')
    with pytest.raises(JobError, match="the label is empty") as caught:
        load_lines(
            tmp_path, KTO, *({name: line[name] for name in ("messages", "kto_tag") if name in line} for line in lines)
        )
    assert "where the column" not in (caught.value.remedy or ""), "there is none"


def test_a_label_that_is_missing_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(JobError, match='has no column "label"'):
        load_lines(tmp_path, KTO, {"prompt": "Why?", "completion": " Taste."})


UNHEARD = {"role": "assistant", "content": "Never mind.", "weight": 0}


@pytest.mark.parametrize(
    ("line", "prompt", "wanted"),
    [
        ({"messages": TURNS}, 3, "Taste."),
        ({"messages": [*TURNS, {"role": "user", "content": "Thanks."}]}, 3, "Taste."),
        ({"messages": [*TURNS, TURNS[0], UNHEARD]}, 3, "Taste."),
        ({"instruction": "Why?", "output": "Taste.", "history": [["Salt?", "Yes."]]}, 3, "Taste."),
        ({"prompt": TURNS[:1], "completion": TURNS[1:]}, 1, "Yes.\nWhy?\nTaste."),
        ({"prompt": TURNS[:2], "completion": [TURNS[2], TURNS[3], TURNS[2]]}, 3, "Taste."),
    ],
    ids=[
        "the last answer",
        "before what follows",
        "before one of no weight",
        "an output",
        "several",
        "within a completion",
    ],
)
def test_the_report_shows_the_answer_that_is_judged(
    line: dict[str, Any], prompt: int, wanted: str, tmp_path: Path
) -> None:
    found = task(tmp_path, {**line, "label": True}, {**line, "label": False})
    rewards, liked, counts = np.array([-1.0, 1.0]), np.array([True, False]), np.ones(2)
    _, cards = liked_blocks(found.data.train, rewards, liked, counts, None)
    assert isinstance(cards, Cards)
    for card in cards.cards:
        asked, said = card.parts
        assert isinstance(asked, Chat) and len(asked.messages) == prompt
        assert isinstance(said, Text) and said.text == wanted


def test_an_answer_that_is_cut_to_nothing_is_said_and_does_not_count(tmp_path: Path) -> None:
    found = task(tmp_path, *TEXTS[:2], {"prompt": "b" * 200, "completion": " yes", "label": True})
    features = referring(found, length=60)
    assert features.weights.tolist() == [1, 1, 0]
    [note] = [note for note in found.notes if "do not count" in note]
    assert "In 1 of 3 rows" in note and "train.jsonl, line 3" in note
    moved(found)
    losses = ask(found, features).losses
    assert losses[2] == 0 and (losses[:2] > 0).all()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("good", 'is neither true nor false in 1 of 9 training rows, such as "good"'),
        (2, "is neither"),
        ("", "is empty"),
    ],
)
def test_a_label_that_is_none_is_named_with_its_row(value: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=says) as caught:
        task(tmp_path, *TEXTS, {**TEXTS[0], "label": value})
    assert (caught.value.reason, caught.value.field) == (FailureReason.DATA_INVALID, "spec.dataset.columns.label")
    assert "line 9" in str(caught.value) and 'column "label"' in str(caught.value)


@pytest.mark.parametrize("values", [(True, False), (1, 0), (1.0, 0.0), ("1.0", "0.0"), ("True", "False")], ids=repr)
def test_a_label_may_be_written_in_any_way_that_says_true_or_false(values: tuple[Any, Any], tmp_path: Path) -> None:
    found = task(tmp_path, *({**TEXTS[0], "label": value} for value in values))
    assert found.data.train.column("label").to_pylist() == [True, False]


@pytest.mark.parametrize("line", [TEXTS[0], CHATS[0], {"messages": TURNS}], ids=["texts", "messages", "conversations"])
def test_the_same_answer_with_both_labels_is_said_and_another_one_is_not(line: dict[str, Any], tmp_path: Path) -> None:
    other = {"messages": TURNS[:2]} if "messages" in line else {**line, "completion": CHATS[1]["completion"]}
    if line is TEXTS[0]:
        other = {**line, "completion": " no"}
    lines = [{**line, "label": True}, {**other, "label": False}, {**line, "label": False}]
    [warning] = [one for one in task(tmp_path, *lines).data.warnings if "the other label" in one]
    assert warning.startswith("1 training rows have the ") and warning.endswith("train.jsonl, line 3.")


@pytest.mark.parametrize(
    ("objective", "line", "says"),
    [
        ("kto", {"prompt": "a", "completion": "b"}, r'no column "label"'),
        ("kto", {"prompt": "a", "chosen": "b", "rejected": "c"}, r'no column "completion"'),
        ("dpo", {"prompt": "a", "completion": "b", "label": True}, r'no column "chosen"'),
    ],
)
def test_the_wrong_data_for_an_objective_is_told_what_it_lacks(
    objective: str, line: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(JobError, match=says) as caught:
        task(tmp_path, line, objective=objective)
    assert caught.value.reason == FailureReason.COLUMN_MISSING


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (
            [True, True, True],
            "Of 3 answers to train on all of them are liked: nothing shows the model what not to say.",
        ),
        (
            [False, False, False],
            "Of 3 answers to train on none of them is liked: nothing shows the model what to say instead.",
        ),
        ([True, False, True], ""),
    ],
)
def test_that_answers_to_train_on_are_of_one_sort_is_said(labels: list[bool], said: str, tmp_path: Path) -> None:
    found = task(tmp_path, *({**line, "label": label} for line, label in zip(TEXTS, labels, strict=False)))
    features_of(found, found.data.train)
    assert [note.startswith(said) for note in found.notes if "answers to train on" in note] == [True] * bool(said)


def test_no_margin_chooses_a_model_where_all_are_liked(tmp_path: Path) -> None:
    found = task(tmp_path, *({**line, "label": True} for line in TEXTS))
    evaluation = found.spec.training.evaluation.model_copy(update={"metric": "reward_margin"})
    training = found.spec.training.model_copy(update={"evaluation": evaluation})
    with pytest.raises(JobError, match="all of the validation rows are liked") as caught:
        Liked.choose_metric(found.data, found.spec.model_copy(update={"training": training}))
    assert caught.value.field == "spec.training.evaluation.metric"
    assert Liked.choose_metric(found.data, found.spec) == "loss"


def test_the_report_shows_rewards_answers_that_are_taken_the_other_way_round_and_samples(tmp_path: Path) -> None:
    found = task(tmp_path, samples=2)
    split = Split("validation", found.data.validation, referring(found))
    before = answer(found, split, CPU, never, found.spec.training)
    moved(found)
    after = answer(found, split, CPU, never, found.spec.training)
    table, cards, *_, samples = found.blocks(split.examples, before, after)
    assert isinstance(table, Table) and [row[0] for row in table.rows] == [
        "answers that are liked",
        "answers that are not",
    ]
    reward, liked = (after.column(name).to_numpy() for name in ("reward", "liked"))
    wrong = int(((reward > 0) != liked).sum())
    assert isinstance(cards, Cards) and len(cards.cards) == wrong > 0
    assert [part.name for part in cards.cards[0].parts] == ["prompt", "answer"]
    assert isinstance(samples, Samples) and len(samples.samples) == 2
    values = defined(scores(found, split, after))
    assert values["reward_margin"] == pytest.approx(reward[liked].mean() - reward[~liked].mean())
    assert values["reward_accuracy"] == pytest.approx(1 - wrong / len(reward))
