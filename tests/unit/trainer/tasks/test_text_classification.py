"""Text classification: lengths, padding, pairs, metrics and models that do not fit the task."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.scores import values
from tests.training.architectures import save
from tests.training.models import save_tiny_bert, tiny, tokenizer_for
from tests.training.sentences import ROWS
from tests.unit.trainer.rows import examples
from tests.unit.trainer.tasks.loading import encode, features_of, load, logits, take

TEXTS = [text for text, _ in ROWS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("model"), TEXTS)


def test_a_batch_is_padded_to_its_longest_example_only(folder):
    task = load(folder)
    encoded = encode(task, [TEXTS[0], "Salt.", TEXTS[1]], length=64)

    batch = task.collate(take(encoded, 1, 2))

    assert batch["input_ids"].shape == (2, int(encoded.costs[2]))
    assert batch["attention_mask"].sum(dim=1).tolist() == encoded.costs[1:].tolist()
    assert (batch["input_ids"][0, int(encoded.costs[1]) :] == task.tokenizer.pad_token_id).all()


def test_batches_are_what_transformers_own_padding_gives(folder):
    task = load(folder)
    ours = task.collate(take(encode(task, TEXTS[:4], TEXTS[4:8], length=64), *range(4)))
    theirs = task.tokenizer(TEXTS[:4], TEXTS[4:8], padding=True, return_tensors="pt")

    assert {name for name in ours if name != "labels"} == set(theirs)
    for name, wanted in theirs.items():
        assert torch.equal(ours[name], wanted), name


def test_pairs_are_told_apart_by_token_types(folder):
    task = load(folder)
    [feature] = take(encode(task, ["Salt the soup."], ["Mars is red."], length=64), 0)

    assert set(feature["token_type_ids"].tolist()) == {0, 1}


def test_long_examples_are_cut_and_counted(folder):
    task = load(folder)

    encoded = encode(task, ["Salt.", " ".join(TEXTS)], length=16)

    assert encoded.costs.tolist()[1] == 16
    assert "1 example is cut at 16 tokens" in encoded.notes


def test_tokenising_looks_at_the_stop_signal_between_blocks(folder):
    looks = []
    features_of(load(folder), examples(["Salt."] * 2500), 16, stop=lambda: looks.append(1))

    assert len(looks) == 3


@pytest.mark.parametrize(("architecture", "limit"), [("bert", 64), ("roberta", 64), ("modernbert", 64)])
def test_the_default_length_is_what_the_model_can_take(folder, architecture, limit):
    task = load(folder)
    task.tokenizer.model_max_length = 10**30
    task.reader._model = tiny(architecture)

    assert task.reader.max_length(None) == limit
    assert task.reader.max_length(20) == 20


def test_roberta_runs_at_the_length_it_is_given(folder):
    model = tiny("roberta").eval()

    model(input_ids=torch.full((1, 64), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, 65), 5))


def test_the_default_is_512_where_the_model_takes_more(folder):
    task = load(folder)
    task.tokenizer.model_max_length = 8192
    task.reader._model = tiny("modernbert")
    task.reader._model.config.max_position_embeddings = 8192

    assert task.reader.max_length(None) == 512
    assert task.reader.max_length(4096) == 4096
    assert task.notes == []


@pytest.mark.parametrize("architecture", ["deberta-v3", "t5", "modernbert", "llama", "qwen"])
def test_a_model_without_a_table_of_positions_takes_more_than_it_was_made_for(architecture, tmp_path):
    task = load(save(architecture, tmp_path))

    assert task.reader.max_length(None) == 64
    assert task.notes == []
    assert task.reader.max_length(200) == 200
    assert task.notes == ["maxLength is 200; the model can take that, but was made for texts of at most 64 tokens."]
    with torch.no_grad():
        assert torch.isfinite(logits(task, encode(task, [" ".join(TEXTS)], length=200), 0)).all()


@pytest.mark.parametrize("architecture", ["bert", "roberta", "mpnet", "deberta-v2", "longformer", "bart", "gpt2"])
def test_a_table_of_positions_is_used_to_its_end_and_no_further(architecture, tmp_path):
    task = load(save(architecture, tmp_path))

    with torch.no_grad():
        logits(task, encode(task, [" ".join(TEXTS)], length=64), 0)
    with pytest.raises(JobError, match="maxLength is 65, but the model takes at most 64 tokens"):
        encode(task, TEXTS, length=65)


def test_a_length_beyond_the_model_is_an_error_with_the_limit(folder):
    with pytest.raises(JobError, match="maxLength is 512, but the model takes at most 64 tokens") as error:
        encode(load(folder), TEXTS, length=512)

    assert error.value.field == "spec.training.maxLength"


def test_a_tokenizer_without_padding_pads_with_its_end_of_text(folder, tmp_path):
    tokenizer = tokenizer_for(TEXTS)
    tokenizer.pad_token, tokenizer.eos_token = None, "[SEP]"
    model = load(folder).model
    model.config.pad_token_id = None
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    task = load(tmp_path)

    assert task.tokenizer.pad_token == "[SEP]"
    assert task.model.config.pad_token_id == 3


def test_a_tokenizer_that_cannot_pad_at_all_is_an_invalid_model(folder, tmp_path):
    tokenizer = tokenizer_for(TEXTS)
    tokenizer.pad_token = None
    model = load(folder).model
    model.config.pad_token_id = None
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    with pytest.raises(JobError, match="no padding token") as error:
        load(tmp_path)

    assert error.value.reason == FailureReason.MODEL_INVALID


def test_a_head_for_other_labels_is_replaced(folder, tmp_path):
    load(folder, ["a", "b", "c"]).model.save_pretrained(tmp_path)
    load(folder).tokenizer.save_pretrained(tmp_path)

    task = load(tmp_path)

    assert task.model.config.id2label == {0: "cooking", 1: "sky"}
    assert task.model.classifier.out_features == 2
    assert {"classifier.weight", "classifier.bias"} <= task.new_parameters


def test_half_precision_weights_are_trained_in_fp32(folder, tmp_path):
    AutoModelForSequenceClassification.from_pretrained(folder).to(torch.bfloat16).save_pretrained(tmp_path)
    load(folder).tokenizer.save_pretrained(tmp_path)

    assert {parameter.dtype for parameter in load(tmp_path).model.parameters()} == {torch.float32}


def test_code_that_comes_with_a_model_is_not_run_unasked(folder, tmp_path):
    load(folder).model.save_pretrained(tmp_path)
    load(folder).tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config.update(
        model_type="own", auto_map={"AutoConfig": "own.Config", "AutoModelForSequenceClassification": "own.Model"}
    )
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")

    with pytest.raises(JobError, match="custom code") as error:
        load(tmp_path)

    assert error.value.reason == FailureReason.MODEL_INVALID
    assert "trustRemoteCode" in error.value.remedy
    assert not (tmp_path / "ran").exists()


def test_broken_weights_are_an_invalid_model(folder, tmp_path):
    load(folder).model.save_pretrained(tmp_path)
    load(folder).tokenizer.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])

    with pytest.raises(JobError) as error:
        load(tmp_path)

    assert error.value.reason == FailureReason.MODEL_INVALID


def metrics(task, truth, said):
    """What the task's metrics are where these labels are true and said."""
    probability = np.eye(len(task.names), dtype=np.float32)[said]
    rows = examples(["Salt."] * len(truth), labels=np.array(truth))
    return values(task.scores(rows, pa.table({"probability": probability.tolist()})))


def test_metrics_are_those_worked_out_by_hand(folder):
    # Labels 1 1 1 0, predictions 1 1 0 1: of class 1 precision 2/3 and recall 2/3; of class 0 nothing.
    found = metrics(load(folder), [1, 1, 1, 0], [1, 1, 0, 1])

    assert found == {"accuracy": 0.5, "f1": pytest.approx(2 / 3), "macro_f1": pytest.approx(1 / 3)}


def test_macro_f1_is_over_the_labels_that_occur_and_f1_is_for_two_labels_only(folder):
    task = load(folder, ["a", "b", "c"])
    perfect = metrics(task, [0, 1], [0, 1])
    # "c" was said although no row has it, so it counts: of a, b and c, one is right.
    one_said = metrics(task, [0, 1], [0, 2])

    assert perfect == {"accuracy": 1.0, "macro_f1": 1.0}
    assert one_said == {"accuracy": 0.5, "macro_f1": pytest.approx(1 / 3)}


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), RuntimeError("DefaultCPUAllocator: can't allocate memory: 7 bytes")],
)
def test_a_machine_that_is_too_small_to_load_the_model_is_not_the_models_fault(folder, error, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(AutoModelForSequenceClassification, "from_pretrained", fail)
    with pytest.raises(type(error)) as caught:
        load(folder)
    assert caught.value is error
