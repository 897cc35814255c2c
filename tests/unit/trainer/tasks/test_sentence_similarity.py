"""Sentence similarity: losses and vectors are those of sentence-transformers, equal texts are no negatives, and what cannot be compared is
refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CosineSimilarityLoss,
    MultipleNegativesRankingLoss,
)

from finetune_api.failures import FailureReason, JobError
from finetune_api.training import Freeze
from finetune_trainer.data.examples import Examples
from finetune_trainer.engine.freeze import freeze
from finetune_trainer.report.blocks import Cards, Curve, Scatter
from finetune_trainer.scores import values
from finetune_trainer.scores.ranking import CANDIDATES
from finetune_trainer.tasks import Task
from tests.training.models import save_tiny_bert
from tests.training.sentences import ROWS
from tests.unit.trainer.data.folders import written
from tests.unit.trainer.tasks.loading import ask, features_of, take, task_of

TEXTS = [text for text, _ in ROWS]
PARTNERS = [*TEXTS[1:], TEXTS[0]]
OTHERS = [*TEXTS[20:], *TEXTS[:20]]
SCORES = [number % 7 / 6 for number in range(len(TEXTS))]
PAIRS = [("text", TEXTS), ("textPair", [f"{text} And so on." for text in TEXTS])]
TRIPLETS = [*PAIRS, ("negative", [f"{text} Or not." for text in OTHERS])]
SCORED = [("text", TEXTS), ("textPair", PARTNERS), ("score", SCORES)]
Columns = list[tuple[str, Any]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("model"), [*TEXTS, "And so on.", "Or not."], dropout=0.0)


def similar(model: Path, folder: Path, columns: Columns, **spec: Any) -> Task:
    rows = [
        json.dumps(dict(zip([name for name, _ in columns], row, strict=True)))
        for row in zip(*(c for _, c in columns), strict=True)
    ]
    return task_of(model, written(folder, {"train.jsonl": "\n".join(rows)}), {}, task="sentence-similarity", **spec)


def losses(task: Task, *rows: int) -> torch.Tensor:
    batch = task.collate(take(features_of(task, task.data.train), *rows))
    with torch.no_grad():
        return task.losses(task.outputs(batch), batch)


def columns_of(task: Task, rows: int) -> list[list[str]]:
    """The texts of the first rows, by role."""
    roles = [role for role in ("text", "textPair", "negative") if role in task.data.train.roles]
    return [[*task.data.train.values(role)][:rows] for role in roles]


def theirs(task: Task, folder: Path) -> SentenceTransformer:
    task.save(folder)
    return SentenceTransformer(str(folder), device="cpu").eval()


def their_loss(loss: torch.nn.Module, encoder: SentenceTransformer, columns: list[list[str]], wanted: Any) -> float:
    with torch.no_grad():
        return float(loss([encoder.preprocess(texts) for texts in columns], wanted))


def test_the_loss_of_scored_pairs_is_that_of_sentence_transformers(model: Path, tmp_path: Path) -> None:
    task = similar(model, tmp_path, SCORED)
    encoder = theirs(task, tmp_path / "saved")
    wanted = torch.tensor(task.data.train.numbers("score")[:6], dtype=torch.float32)

    found = losses(task, *range(6))

    assert found.mean().item() == pytest.approx(
        their_loss(CosineSimilarityLoss(encoder), encoder, columns_of(task, 6), wanted), rel=1e-5
    )


@pytest.mark.parametrize("columns", [PAIRS, TRIPLETS], ids=["pairs", "triplets"])
@pytest.mark.parametrize("name", ["softmax", "symmetric"])
def test_the_loss_of_a_batch_of_pairs_is_that_of_sentence_transformers(
    model: Path, tmp_path: Path, columns: Columns, name: str
) -> None:
    task = similar(model, tmp_path, columns, similarity={"loss": name, "temperature": 0.1})
    encoder = theirs(task, tmp_path / "saved")
    ways = {
        "softmax": {},
        "symmetric": {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"},
    }
    loss = MultipleNegativesRankingLoss(encoder, scale=10.0, **ways[name])

    found = losses(task, *range(8))

    wanted = their_loss(loss, encoder, columns_of(task, 8), None)
    assert found.mean().item() == pytest.approx(wanted, rel=1e-5)
    assert wanted > 0.5, "there is nothing to tell apart"


@pytest.mark.parametrize("loss", ["softmax", "symmetric"])
def test_equal_texts_are_no_negatives_of_each_other(model: Path, tmp_path: Path, loss: str) -> None:
    """Two questions with one answer, one question with two answers, and an answer that is a question: the loss of each is as if the others
    were not there."""
    rows = [("Salt?", "Yes."), ("Pepper?", "Yes."), ("Mars?", "No."), ("Mars?", "Red."), ("Yes.", "Sure.")]
    task = similar(model, tmp_path, PAIRS, similarity={"loss": loss})
    texts, partners = zip(*rows, strict=True)
    examples = Examples(pa.table({"text": texts, "textPair": partners}), task.data.train.origins.take(range(5)))
    features = features_of(task, examples)

    def of(*places: int) -> float:
        batch = task.collate(take(features, *places))
        with torch.no_grad():
            return float(task.losses(task.outputs(batch), batch)[0])

    assert of(0, 2) > 0.01
    assert of(0, 1, 2) == pytest.approx(of(0, 2), rel=1e-5)
    assert of(0, 1) == of(2, 3) == 0
    assert (of(4, 0) > 0.01) == (loss == "symmetric")


@pytest.mark.parametrize(
    "way", ["pooling_mode_mean_tokens", "pooling_mode_cls_token", "pooling_mode_max_tokens", "pooling_mode_lasttoken"]
)
@pytest.mark.parametrize("normalizes", [True, False])
def test_a_model_of_sentence_transformers_gives_its_own_vectors_and_what_is_saved_gives_the_same(
    model: Path, tmp_path: Path, way: str, normalizes: bool
) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    modules = ["Transformer", "Pooling", "Normalize"][: 3 if normalizes else 2]
    paths = dict(zip(modules, ("", "1_Pooling", "2_Normalize"), strict=False))
    chain = [
        {"idx": i, "name": str(i), "path": paths[m], "type": f"sentence_transformers.models.{m}"}
        for i, m in enumerate(modules)
    ]
    for path in filter(None, paths.values()):
        (folder / path).mkdir()
    (folder / "modules.json").write_text(json.dumps(chain))
    (folder / "1_Pooling/config.json").write_text(
        json.dumps({"word_embedding_dimension": 16, "pooling_mode_mean_tokens": False, way: True})
    )
    task = similar(folder, tmp_path, PAIRS)
    texts = columns_of(task, 5)[0]

    before = SentenceTransformer(str(folder), device="cpu").encode(texts)
    after = theirs(task, tmp_path / "saved").encode(texts)

    ours = ask(task, features_of(task, task.data.train)).answers.column("text").to_pylist()[:5]
    assert before == pytest.approx(after, abs=1e-6)
    assert (np.linalg.norm(after, axis=1) == pytest.approx(1, abs=1e-5)) == normalizes
    assert np.array(ours) == pytest.approx(before / np.linalg.norm(before, axis=1, keepdims=True), abs=1e-5)


@pytest.mark.parametrize(("asked", "cut"), [(None, 12), (8, 8), (16, 16)])
def test_texts_are_cut_where_sentence_transformers_cuts_them_unless_the_spec_says_another_length(
    model: Path, tmp_path: Path, asked: int | None, cut: int
) -> None:
    """Before training, too: else the baseline would be of a model that nobody has."""
    folder = tmp_path / "model"
    theirs(similar(model, tmp_path, PAIRS), folder)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 12, "do_lower_case": False}))
    task = similar(folder, tmp_path, PAIRS, training={"maxLength": asked})
    features = features_of(task, task.data.train, asked)
    texts = columns_of(task, 5)[0]
    encoder = SentenceTransformer(str(folder), device="cpu")
    encoder.max_seq_length = cut

    before, after = encoder.encode(texts), theirs(task, tmp_path / "saved").encode(texts)

    assert min(len(task.tokenizer.tokenize(text)) for text in texts) > 16
    assert max(len(feature["text"]["input_ids"]) for feature in take(features, *range(5))) == cut
    ours = np.array(ask(task, features).answers.column("text").to_pylist()[:5])
    assert before == pytest.approx(after, abs=1e-6)
    assert ours == pytest.approx(before / np.linalg.norm(before, axis=1, keepdims=True), abs=1e-5)


def test_the_metrics_of_scores_are_scipys(model: Path, tmp_path: Path) -> None:
    task = similar(model, tmp_path, SCORED)
    answers = ask(task, features_of(task, task.data.train)).answers
    said, truth = answers.column("similarity").to_numpy(), task.data.train.numbers("score")
    found = values(task.scores(task.data.train, answers))
    assert list(found) == ["spearman", "pearson"]
    assert found == {
        "pearson": pytest.approx(pearsonr(said, truth).statistic),
        "spearman": pytest.approx(spearmanr(said, truth).statistic),
    }


def test_scores_that_can_be_no_cosines_are_learnt_as_those_from_0_to_1_and_that_is_said(
    model: Path, tmp_path: Path
) -> None:
    plain = similar(model, tmp_path / "plain", SCORED)
    wide = similar(model, tmp_path / "wide", [*SCORED[:2], ("score", [1 + 4 * score for score in SCORES])])
    assert losses(wide, 0, 1, 2).tolist() == pytest.approx(losses(plain, 0, 1, 2).tolist(), abs=1e-5)
    assert [note for note in wide.notes if "between 1 and 5" in note]
    assert not [note for note in plain.notes if "cosines" in note]


@pytest.mark.parametrize(("factor", "said"), [(1e-3, True), (1.0, False), (100.0, False)])
def test_scores_close_together_are_said_to_be_hard_to_tell_apart(
    factor: float, said: bool, model: Path, tmp_path: Path
) -> None:
    task = similar(model, tmp_path, [*SCORED[:2], ("score", [factor * score for score in SCORES])])
    assert any("hardly learns to tell them apart" in note for note in task.notes) is said


def test_recall_is_of_the_texts_that_find_their_own_and_only_vectors_that_are_searched_are_kept(
    model: Path, tmp_path: Path
) -> None:
    others = [
        f"{(text, other)[row % 2]} And so on." for row, (text, other) in enumerate(zip(TEXTS, OTHERS, strict=True))
    ]
    task = similar(model, tmp_path, [("text", TEXTS), ("textPair", others)])
    examples = task.data.train.take([row % len(task.data.train) for row in range(CANDIDATES + 10)])
    features = features_of(task, examples)

    answers = task.merge(features, ask(task, features).answers)

    first, second = (np.array(answers.column(role).to_pylist()[:CANDIDATES]) for role in ("text", "textPair"))
    assert answers.column("text").null_count == len(examples) - CANDIDATES
    assert answers.column("similarity").null_count == 0
    cosines = first @ second.T
    own = np.array([*examples.values("text")][:CANDIDATES])
    equal = own[:, None] == own
    found = (np.where(equal, cosines, -2).max(axis=1) > np.where(equal, -2, cosines).max(axis=1)).mean()
    assert values(task.scores(examples, answers))["recall_at_1"] == pytest.approx(found, abs=1e-9)
    assert 0 < found < 1


def test_the_report_shows_scores_beside_cosines_and_the_pairs_most_wrongly_ranked(model: Path, tmp_path: Path) -> None:
    task = similar(model, tmp_path, SCORED)
    answers = ask(task, features_of(task, task.data.train)).answers

    scatter, cards = task.blocks(task.data.train, None, answers)

    assert isinstance(scatter, Scatter) and isinstance(cards, Cards)
    truth = task.data.train.numbers("score")
    said = answers.column("similarity").to_numpy()
    assert scatter.diagonal and scatter.x.tolist() == truth.tolist() and scatter.y.tolist() == pytest.approx(said)
    first = int(np.argmax(np.abs(said.argsort().argsort() - truth.argsort().argsort())))
    shown = [card.origin for card in cards.cards]
    assert str(task.data.train.origins[first]) in shown and len(shown) == 12


def test_the_report_shows_how_many_find_their_own_and_what_was_nearer(model: Path, tmp_path: Path) -> None:
    task = similar(model, tmp_path, TRIPLETS)
    features = features_of(task, task.data.train)
    answers = task.merge(features, ask(task, features).answers)
    wrong = pa.table({name: answers.column(name) for name in answers.column_names}).set_column(
        answers.column_names.index("text"), "text", answers.column("negative")
    )  # each text is its own negative, which none can be nearer than

    curve, cards = task.blocks(task.data.train, answers, wrong)

    assert isinstance(curve, Curve) and isinstance(cards, Cards)
    assert [line.name for line in curve.lines] == ["after training", "before training"]
    assert curve.lines[0].y[0] < curve.lines[1].y[0]
    assert list(curve.lines[1].y) == sorted(curve.lines[1].y)
    negatives = set(task.data.train.values("negative"))
    assert cards.cards and all(card.parts[-1].text in negatives for card in cards.cards)  # type: ignore[union-attr]


def test_a_pair_alone_in_its_batch_would_learn_nothing_and_is_refused(model: Path, tmp_path: Path) -> None:
    alone = {"training": {"batchSize": 1, "evaluation": {"metric": "recall_at_1"}}}
    with pytest.raises(JobError, match="learns from the other pairs of its batch") as error:
        similar(model, tmp_path, PAIRS, **alone)
    assert error.value.field == "spec.training.batchSize"
    assert similar(model, tmp_path / "more", TRIPLETS, **alone)


def _without_pooling(folder: Path) -> None:
    shutil.rmtree(folder / "1_Pooling")


def _file(name: str, content: Any) -> Any:
    return lambda folder: (folder / name).write_text(json.dumps(content))


def _dense(folder: Path) -> None:
    chain = json.loads((folder / "modules.json").read_text())
    chain.append({"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(chain))


FAULTS = {
    "a layer behind the pooling": (_dense, "'Dense'"),
    "no pooling where one is named": (_without_pooling, "1_Pooling/config.json is not there"),
    "two ways at once": (
        _file("1_Pooling/config.json", {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}),
        "mean and cls",
    ),
    "a way that is not known": (_file("1_Pooling/config.json", {"pooling_mode": "weightedmean"}), "weightedmean"),
    "no JSON": (lambda folder: (folder / "modules.json").write_text("{"), "modules.json is no JSON"),
    "another kind of JSON": (_file("modules.json", {"a": 1}), "does not hold"),
    "no length": (_file("sentence_bert_config.json", {"max_seq_length": "long"}), "max_seq_length 'long'"),
    "lower case by another hand": (_file("sentence_bert_config.json", {"do_lower_case": True}), "lower case"),
}


@pytest.mark.parametrize(("spoil", "says"), FAULTS.values(), ids=FAULTS)
def test_a_model_that_does_more_than_is_done_here_is_refused(
    model: Path, tmp_path: Path, spoil: Any, says: str
) -> None:
    task = similar(model, tmp_path, PAIRS)
    task.save(tmp_path / "saved")
    spoil(tmp_path / "saved")
    with pytest.raises(JobError, match=says) as error:
        similar(tmp_path / "saved", tmp_path, PAIRS)
    assert error.value.reason is FailureReason.MODEL_INVALID and error.value.remedy


def test_a_prompt_that_sentence_transformers_would_add_is_said_and_not_kept(model: Path, tmp_path: Path) -> None:
    task = similar(model, tmp_path, PAIRS)
    task.save(tmp_path / "saved")
    settings = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    (tmp_path / "saved/config_sentence_transformers.json").write_text(json.dumps(settings))
    again = similar(tmp_path / "saved", tmp_path, PAIRS)
    assert [note for note in again.notes if "prompt 'query'" in note]
    assert theirs(again, tmp_path / "again").default_prompt_name is None


def test_a_pooler_that_nobody_reads_may_be_missing_and_is_not_drawn(model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(model, tmp_path / "model")
    weights = {n: w for n, w in load_file(folder / "model.safetensors").items() if not n.startswith("pooler.")}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    task = similar(folder, tmp_path, PAIRS)
    assert not task.new_parameters and not task.has_new_head
    assert set(dict(task.model.named_parameters())) == set(weights)


def test_its_lowest_layers_can_be_frozen(model: Path, tmp_path: Path) -> None:
    task = similar(model, tmp_path, PAIRS)
    freeze(task.model, Freeze.model_validate({"embeddings": True, "lowestLayers": 1}))
    batch = task.collate(take(features_of(task, task.data.train), 0, 1, 2, 3))
    task.losses(task.outputs(batch), batch).sum().backward()
    moved = {name for name, parameter in task.model.named_parameters() if parameter.grad is not None}
    assert moved and all(name.startswith("encoder.layer.1.") for name in moved)


def test_an_encoder_with_a_decoder_is_refused(tmp_path: Path) -> None:
    from transformers import BartConfig, BartModel

    from tests.training.models import tokenizer_for

    tokenizer = tokenizer_for(TEXTS)
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    BartModel(
        BartConfig(
            vocab_size=len(tokenizer),
            d_model=16,
            max_position_embeddings=64,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
            decoder_start_token_id=3,
            **sizes,
            **heads,
        )
    ).save_pretrained(tmp_path / "bart")
    tokenizer.save_pretrained(tmp_path / "bart")
    with pytest.raises(JobError, match="an encoder with a decoder"):
        similar(tmp_path / "bart", tmp_path, PAIRS)
