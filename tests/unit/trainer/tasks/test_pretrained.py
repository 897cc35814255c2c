"""What a task's model ends in: a row a name, rows without names, or nothing that may be new; see the table in `tasks/pretrained.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, BertConfig, CLIPConfig, PreTrainedConfig, PreTrainedModel, ResNetConfig, ViTConfig

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.tasks.pretrained import Head, Pretrained, load_model
from tests.training.models import SIZES

TEXT = BertConfig(vocab_size=60, num_hidden_layers=2, max_position_embeddings=32, **SIZES)
PICTURE = {**SIZES, "num_hidden_layers": 2, "image_size": 16, "patch_size": 8}
TAGS = Head.of(["O", "B-city", "I-city"])
SCORE = Head(1, problem_type="regression")
ENDS = Head(2)


def save(config: object, loads: str, folder: Path, **options: object) -> PreTrainedModel:
    """A pretrained model of transformers' class `loads`, in a folder."""
    torch.manual_seed(0)
    model = getattr(transformers, loads).from_config(config, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    return model


def load(folder: Path, loads: str, head: Head | None, **options: bool) -> Pretrained:
    torch.manual_seed(1)
    return load_model(folder, AutoConfig.from_pretrained(folder), loads, head, trust_remote_code=False, **options)


def drop(folder: Path, part: str) -> None:
    """Take the tensors with `part` in their names out of the weights."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    kept = {name: tensor for name, tensor in tensors.items() if part not in name}
    assert len(kept) < len(tensors)
    save_file(kept, file, {"format": "pt"})


NEW = {
    "a score": ("AutoModelForSequenceClassification", SCORE, "classifier", (1, 16)),
    "tags": ("AutoModelForTokenClassification", TAGS, "classifier", (3, 16)),
    "the ends of an answer": ("AutoModelForQuestionAnswering", ENDS, "qa_outputs", (2, 16)),
}


@pytest.mark.parametrize(("loads", "head", "layer", "shape"), NEW.values(), ids=NEW)
def test_a_head_that_the_weights_have_none_of_is_drawn_in_the_shape_that_the_task_needs(
    loads, head, layer, shape, tmp_path
):
    body = save(TEXT, "AutoModel", tmp_path)

    found = load(tmp_path, loads, head)

    assert found.has_new_head
    assert found.new >= {f"{layer}.weight", f"{layer}.bias"}
    assert all(name.startswith((layer, "bert.pooler")) for name in found.new)
    assert found.model.get_submodule(layer).weight.shape == shape
    assert torch.equal(found.model.bert.embeddings.word_embeddings.weight, body.embeddings.word_embeddings.weight)


@pytest.mark.parametrize(("loads", "head", "layer", "shape"), NEW.values(), ids=NEW)
def test_a_head_that_was_tuned_for_the_same_is_kept(loads, head, layer, shape, tmp_path):
    config = BertConfig(**{**TEXT.to_dict(), "num_labels": head.rows})
    if head.names:
        config.id2label = dict(enumerate(head.names))
        config.label2id = {name: number for number, name in enumerate(head.names)}
    tuned = save(config, loads, tmp_path)

    found = load(tmp_path, loads, head)

    assert not found.has_new_head and not found.new and not found.notes
    assert torch.equal(found.model.get_submodule(layer).weight, tuned.get_submodule(layer).weight)
    assert found.model.config.num_labels == head.rows and found.model.config.problem_type == head.problem_type


@pytest.mark.parametrize(("loads", "head", "layer", "shape"), NEW.values(), ids=NEW)
def test_a_head_of_another_number_of_rows_is_drawn_anew(loads, head, layer, shape, tmp_path):
    save(BertConfig(**{**TEXT.to_dict(), "num_labels": 5}), loads, tmp_path)

    found = load(tmp_path, loads, head)

    assert found.has_new_head and found.new == {f"{layer}.weight", f"{layer}.bias"}
    assert torch.std(found.model.get_submodule(layer).weight) < 0.1, "as drawn, not as tuned"


def test_tags_in_another_order_are_put_in_order(tmp_path):
    names = ("B-city", "I-city", "O")
    config = BertConfig(**{**TEXT.to_dict(), "num_labels": 3, "id2label": dict(enumerate(names))})
    tuned = save(config, "AutoModelForTokenClassification", tmp_path)

    found = load(tmp_path, "AutoModelForTokenClassification", TAGS)

    assert torch.equal(found.model.classifier.weight, tuned.classifier.weight[[2, 0, 1]])
    assert "put in order" in found.notes[0] and not found.new


WHOLE = {
    "a masked language model": (TEXT, "AutoModelForMaskedLM", "cls.predictions.transform"),
    "a model of two towers": (
        CLIPConfig(
            text_config={**SIZES, "num_hidden_layers": 2, "vocab_size": 60, "max_position_embeddings": 16},
            vision_config=PICTURE,
            projection_dim=8,
        ),
        "AutoModel",
        "text_projection",
    ),
    "the temperature of one": (
        CLIPConfig(
            text_config={**SIZES, "num_hidden_layers": 2, "vocab_size": 60, "max_position_embeddings": 16},
            vision_config=PICTURE,
            projection_dim=8,
        ),
        "AutoModel",
        "logit_scale",
    ),
}


@pytest.mark.parametrize(("config", "loads", "part"), WHOLE.values(), ids=WHOLE)
def test_where_all_was_pretrained_nothing_is_drawn(config, loads, part, tmp_path):
    saved = save(config, loads, tmp_path)
    found = load(tmp_path, loads, None)

    assert not found.new and not found.has_new_head
    wanted = saved.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in found.model.state_dict().items())

    drop(tmp_path, part)
    with pytest.raises(JobError, match="not in the weights") as error:
        load(tmp_path, loads, None)
    assert error.value.reason == FailureReason.MODEL_INVALID and part in error.value.message


def test_a_body_alone_is_no_masked_language_model(tmp_path):
    save(TEXT, "AutoModel", tmp_path)

    with pytest.raises(JobError, match="was pretrained with are not in the weights"):
        load(tmp_path, "AutoModelForMaskedLM", None)


def test_a_pooler_may_be_missing_only_where_nobody_reads_it(tmp_path):
    save(TEXT, "AutoModel", tmp_path, add_pooling_layer=False)

    assert load(tmp_path, "AutoModel", None, reads_pooler=False).new == {"pooler.dense.weight", "pooler.dense.bias"}
    with pytest.raises(JobError, match="pooler"):
        load(tmp_path, "AutoModel", None)


PICTURES = {
    "resnet": ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"),
    "vit": ViTConfig(**PICTURE),
}


@pytest.mark.parametrize("config", PICTURES.values(), ids=PICTURES)
def test_models_of_images_get_a_head_for_the_labels(config, tmp_path):
    save(config, "AutoModel", tmp_path)

    found = load(tmp_path, "AutoModelForImageClassification", Head.of(["cat", "dog"]))

    assert found.has_new_head
    assert all(name.startswith("classifier") for name in found.new)
    assert found.model.config.id2label == {0: "cat", 1: "dog"}


class Wrapped(PreTrainedConfig):
    """As transformers wraps models of timm: the label names are a list, and the part that is called the body has the head in it."""

    model_type = "wrapped"

    def to_dict(self):
        written = super().to_dict()
        return {**written, "label_names": list(written.pop("id2label").values())}


class WrappedModel(PreTrainedModel):
    config_class = Wrapped
    base_model_prefix = "net"

    def __init__(self, config):
        super().__init__(config)
        self.net = torch.nn.Sequential()
        self.net.add_module("stem", torch.nn.Linear(4, 6))
        self.net.add_module("classifier", torch.nn.Linear(6, config.num_labels))
        self.post_init()


@pytest.fixture
def wrapped(tmp_path):
    AutoConfig.register("wrapped", Wrapped, exist_ok=True)
    transformers.AutoModelForImageClassification.register(Wrapped, WrappedModel, exist_ok=True)

    def saved(*names):
        config = Wrapped(num_labels=len(names), id2label=dict(enumerate(names)))
        return save(config, "AutoModelForImageClassification", tmp_path)

    return saved


def test_a_head_within_what_is_called_the_body_is_a_head(wrapped, tmp_path):
    tuned = wrapped("a", "b", "c", "d", "e")

    found = load(tmp_path, "AutoModelForImageClassification", TAGS)

    assert found.has_new_head and found.new == {"net.classifier.weight", "net.classifier.bias"}
    assert torch.equal(found.model.net.stem.weight, tuned.net.stem.weight)

    drop(tmp_path, "stem.bias")
    with pytest.raises(JobError, match=r"net\.stem\.bias has shape .* and is not in the weights") as caught:
        load(tmp_path, "AutoModelForImageClassification", TAGS)
    assert caught.value.reason is FailureReason.MODEL_INVALID


def test_label_names_are_names(wrapped, tmp_path):
    tuned = wrapped("B-city", "I-city", "O")

    found = load(tmp_path, "AutoModelForImageClassification", TAGS)

    assert torch.equal(found.model.net.classifier.weight, tuned.net.classifier.weight[[2, 0, 1]])
    assert "put in order" in found.notes[0] and not found.new
