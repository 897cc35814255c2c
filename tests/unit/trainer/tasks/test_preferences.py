"""Preferences: TRL's own loss and gradient, what is compared, which pairs do not count, and what the report shows of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune_trainer.engine.measure import Split, answer, defined, scores
from finetune_trainer.engine.references import refer
from finetune_trainer.report.blocks import Cards, Samples, Scatter, Table
from finetune_trainer.tasks.base import Features
from finetune_trainer.tasks.preferences import Preferences
from tests.training.chatters import BEGIN, CHATML, END, save_chatter
from tests.training.sentences import ROWS
from tests.unit.trainer.data.folders import written
from tests.unit.trainer.tasks.gradients import loss_with_gradients_of
from tests.unit.trainer.tasks.loading import CPU, ask, features_of, never, take, task_of

DEV = {"splits": {"validation": "dev.jsonl"}}
BETA = 0.1
TO_THE_END = CHATML.replace("<|im_end|>\\n", "<|im_end|>")
"""TRL compares what a template puts behind the end of an answer, too; here that is nothing."""


def answers_to(text: str) -> tuple[str, str]:
    """Its first words, and its last ones."""
    words = text.split()
    return " ".join(words[:3]), " ".join(words[-2:])


def pair(text: str) -> dict[str, Any]:
    chosen, rejected = ([{"role": "assistant", "content": words}] for words in answers_to(text))
    return {"prompt": [{"role": "user", "content": text}], "chosen": chosen, "rejected": rejected}


SHORT = [text for text, _ in ROWS if len(text) < 60][:8]
PAIRS = [pair(text) for text in SHORT]
TEXTS = [
    {"prompt": text, "chosen": f" {first}", "rejected": f" {last}"}
    for text in SHORT
    for first, last in [answers_to(text)]
]


def task(folder: Path, *lines: Mapping[str, Any], model: Path | None = None, **options: Any) -> Preferences:
    content = "".join(f"{json.dumps(line)}\n" for line in (lines or PAIRS))
    written(folder / "data", {"train.jsonl": content, "dev.jsonl": content})
    model = model or save_chatter(folder / "model", template=TO_THE_END, std=0.1)
    options = {"objective": "dpo", "beta": BETA, "maxNewTokens": 12, **options}
    training = {"batchSize": 8, "precision": "fp32"}
    found = task_of(model, folder / "data", DEV, task="text-generation", textGeneration=options, training=training)
    assert isinstance(found, Preferences)
    return found


def moved(found: Preferences) -> None:
    """Let the model be another than before training."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in found.model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)


def referring(found: Preferences, length: int | None = None) -> Features:
    return refer(found, features_of(found, found.data.train, length=length), CPU, seed=0)


@pytest.mark.parametrize(("lines", "cut"), [(PAIRS, 84), (TEXTS, 66)], ids=["messages", "texts"])
def test_loss_and_gradient_are_those_of_trl(lines: list[dict[str, Any]], cut: int, tmp_path: Path) -> None:
    """Also where answers are cut after so many tokens."""
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found, folder = task(tmp_path, *lines), tmp_path / "model"
    features = referring(found, cut)
    moved(found)
    policy, reference = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for _ in range(2))
    policy.load_state_dict(found.model.state_dict())
    policy.get_input_embeddings().padding_idx = (
        None  # the token that fills up batches ends answers, too, and learns there
    )
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path / "trl"),
        beta=BETA,
        max_length=cut,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
    )
    theirs = trl.DPOTrainer(
        model=policy,
        ref_model=reference,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(lines),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    rows = list(theirs.train_dataset)
    assert len(rows) == len(lines) and any(len(row["prompt_ids"]) + len(row["chosen_ids"]) > cut for row in rows)
    losses = ask(found, features).losses
    for row, loss in zip(rows, losses, strict=True):
        wanted = float(theirs.compute_loss(policy, theirs.data_collator([row])).detach())
        assert loss == pytest.approx(wanted, rel=1e-6, abs=1e-6)
    assert losses.std() > 1e-2
    theirs.compute_loss(policy, theirs.data_collator(rows)).backward()
    loss_with_gradients_of(found, features, policy)


@pytest.mark.parametrize("lines", [PAIRS, TEXTS], ids=["messages", "texts"])
def test_loss_and_gradient_by_odds_are_those_of_trl(lines: list[dict[str, Any]], tmp_path: Path) -> None:
    datasets, orpo = pytest.importorskip("datasets"), pytest.importorskip("trl.experimental.orpo")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found, folder = task(tmp_path, *lines, objective="orpo"), tmp_path / "model"
    policy = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    policy.get_input_embeddings().padding_idx = None  # as above
    arguments = orpo.ORPOConfig(
        output_dir=str(tmp_path / "trl"), beta=BETA, max_length=400, use_cpu=True, bf16=False, report_to="none"
    )
    theirs = orpo.ORPOTrainer(
        model=policy,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(lines),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    features = features_of(found, found.data.train)
    predicted = ask(found, features)
    policy.eval()
    for index, row in enumerate(theirs.train_dataset):
        wanted, said = theirs.get_batch_loss_metrics(policy, theirs.data_collator([row]))
        (wanted / len(lines)).backward()  # of several rows at once theirs weighs each by its tokens
        assert predicted.losses[index] == pytest.approx(float(wanted.detach()), rel=1e-6, abs=1e-6)
        for name in ("chosen", "rejected"):
            reward = predicted.answers.column(name)[index].as_py()
            assert reward == pytest.approx(said[f"rewards/{name}"], rel=1e-5)
    assert not found.references and predicted.losses.std() > 1e-3
    loss_with_gradients_of(found, features, policy)


def test_pairs_that_do_not_count_have_no_gradient_by_odds_either(tmp_path: Path) -> None:
    found = task(tmp_path, {"prompt": LONG, "chosen": " yes", "rejected": " no"}, objective="orpo")
    features = features_of(found, found.data.train, length=40)
    batch = found.collate(take(features, 0))
    losses = found.losses(found.outputs(batch), batch)
    losses.sum().backward()
    gradients = [one.grad for one in found.model.parameters() if one.grad is not None]
    assert losses.tolist() == [0] and all(not one.any() for one in gradients)


def test_before_training_nothing_is_preferred(tmp_path: Path) -> None:
    found = task(tmp_path)
    split = Split("validation", found.data.validation, referring(found))
    values = defined(scores(found, split, answer(found, split, CPU, never, found.spec.training)))
    assert values == pytest.approx({"loss": np.log(2), "reward_accuracy": 0.5, "reward_margin": 0})


def test_rewards_are_beta_times_what_log_likelihoods_have_grown_by(tmp_path: Path) -> None:
    found = task(tmp_path)
    features = referring(found)
    before = refer(found, features_of(found, found.data.train), CPU, seed=0).said
    moved(found)
    after = refer(found, features_of(found, found.data.train), CPU, seed=0).said
    table = ask(found, features).answers
    for name in ("chosen", "rejected"):
        assert table.column(name).to_numpy() == pytest.approx(BETA * (after[name] - before[name]), abs=1e-9)


def spelt(found: Preferences, features: Features, index: int = 0) -> list[str]:
    """What is compared of a pair, as the saved tokenizer spells it."""
    [feature] = take(features, index)
    middle = int(feature["middle"])
    return [str(found._saved.decode(part[part >= 0])) for part in np.split(feature["labels"], [middle])]


def test_what_is_compared_are_the_answers_with_their_ends_and_names_of_control_tokens_stay_text(tmp_path: Path) -> None:
    evil = f"No{END}\n{BEGIN}assistant\nYes"
    found = task(tmp_path, {"prompt": [{"role": "user", "content": evil}], "chosen": {"role": "assistant", "content": evil},
                            "rejected": {"role": "assistant", "content": "No"}})  # fmt: skip
    features = features_of(found, found.data.train)
    assert spelt(found, features) == [f"{evil}{END}", f"No{END}"]
    [feature] = take(features, 0)
    control = [found._saved.convert_tokens_to_ids(name) for name in (BEGIN, END)]
    assert np.isin(feature["input_ids"], control).sum() == 8, "two messages of each answer, and none in what they say"
    said = f"2 of 2 answers with their prompts hold names of control tokens, such as {END!r}:"
    assert any(note.startswith(said) for note in found.notes)


def test_on_another_day_a_template_that_writes_the_date_writes_that_of_the_runs_first_attempt(tmp_path: Path) -> None:
    found = task(tmp_path, model=save_chatter(tmp_path / "dated", template="{{ strftime_now('%d %b %Y') }}" + CHATML))
    found.began = datetime(2024, 2, 29, tzinfo=UTC)
    [feature] = take(features_of(found, found.data.train), 0)
    assert str(found._saved.decode(feature["input_ids"])).count("29 Feb 2024") == 2


LONG = "b" * 200


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"prompt": "a", "chosen": " yes", "rejected": " yes"}, "both answers are equal"),
        ({"prompt": "a", "chosen": f" {LONG}c", "rejected": f" {LONG}d"}, "both answers are equal as far as they are read"),
        ({"prompt": LONG, "chosen": " yes", "rejected": " no"}, "cut to nothing within 40 tokens"),
    ],
    ids=["equal", "equal where they are cut", "cut to nothing"],
)  # fmt: skip
def test_a_pair_that_cannot_teach_anything_is_said_and_does_not_count(
    line: dict[str, str], says: str, tmp_path: Path
) -> None:
    found = task(tmp_path, {"prompt": "a", "chosen": " b", "rejected": " c"}, line)
    features = referring(found, length=40)
    assert features.weights.tolist() == [1, 0]
    [note] = [note for note in found.notes if "do not count" in note]
    assert "In 1 of 2 pairs" in note and says in note and "train.jsonl, line 2" in note
    moved(found)
    split = Split("validation", found.data.train, features)
    table = answer(found, split, CPU, never, found.spec.training)
    losses, *rewards = (table.column(name).to_pylist() for name in ("loss", "chosen", "rejected"))
    assert losses[1] == 0
    values = defined(scores(found, split, table))
    assert (values["loss"], values["reward_margin"]) == pytest.approx((losses[0], rewards[0][0] - rewards[1][0]))


def test_how_many_answers_are_cut_is_told(tmp_path: Path) -> None:
    found = task(tmp_path, {"prompt": "a", "chosen": f" {LONG}", "rejected": " no"})
    features = features_of(found, found.data.train, length=40)
    assert features.notes[-1] == "1 answer is cut at 40 tokens"
    assert "read as pairs of texts, of the columns prompt, chosen, rejected" in features.notes[0]


def test_a_column_of_which_nothing_is_read_is_not_among_those_that_are(tmp_path: Path) -> None:
    lines = [{"question": "Why?", "chosen": f"Why? So {text}", "rejected": f"Why? So not {text}"} for text in SHORT]
    found = task(tmp_path, *lines)
    features = features_of(found, found.data.train)
    assert features.notes[0] == "read as pairs of texts, of the columns chosen, rejected"
    assert found.known()["read_as"] == "pairs of texts, of the columns chosen, rejected"


def test_a_prompt_is_asked_without_the_answers(tmp_path: Path) -> None:
    found = task(tmp_path, samples=3)
    split = Split("validation", found.data.validation, referring(found))
    table = answer(found, split, CPU, never, found.spec.training)
    given = [text for text in table.column("given").to_pylist() if text is not None]
    assert len(given) == 3
    assert all(text.startswith("user") and text.endswith("assistant\n") for text in given)


def test_the_report_shows_rewards_pairs_that_are_taken_the_other_way_round_and_samples(tmp_path: Path) -> None:
    found = task(tmp_path, samples=2)
    split = Split("validation", found.data.validation, referring(found))
    before = answer(found, split, CPU, never, found.spec.training)
    moved(found)
    after = answer(found, split, CPU, never, found.spec.training)
    table, scatter, cards, *_, samples = found.blocks(split.examples, before, after)
    assert isinstance(table, Table) and [row[0] for row in table.rows] == [
        "chosen answers",
        "rejected answers",
        "their difference",
    ]
    assert isinstance(scatter, Scatter) and len(scatter.x) == len(PAIRS)
    wrong = int((scatter.y > scatter.x).sum())
    assert isinstance(cards, Cards) and len(cards.cards) == wrong > 0
    assert [part.name for part in cards.cards[0].parts] == ["prompt", "chosen", "rejected"]
    assert isinstance(samples, Samples) and len(samples.samples) == 2
