"""Frozen layers, on every architecture by its own structure."""

from dataclasses import dataclass
from typing import Any

import pytest
from transformers import (
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForImageClassification,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BartConfig,
    BertConfig,
    CLIPConfig,
    ConvNextConfig,
    EncoderDecoderConfig,
    ResNetConfig,
    SiglipConfig,
    SwinConfig,
    T5Config,
    VisionTextDualEncoderConfig,
    ViTConfig,
)

from finetune_api.failures import JobError
from finetune_api.training import Freeze
from finetune_trainer.engine.freeze import ParameterCount, freeze
from finetune_trainer.engine.layers import depths
from tests.training.models import CONFIGS, LAYERS, SIZES, tiny
from tests.training.sounds import CONFIGS as OF_SOUNDS

ARCHITECTURES = sorted(CONFIGS)

EMBEDDINGS = {
    "bert": "bert.embeddings.",
    "distilbert": "distilbert.embeddings.",
    "roberta": "roberta.embeddings.",
    "deberta-v2": "deberta.embeddings.",
    "electra": "electra.embeddings.",
    "modernbert": "model.embeddings.",
}
FIRST_LAYERS = {
    "bert": "bert.encoder.layer.{}.",
    "distilbert": "distilbert.transformer.layer.{}.",
    "roberta": "roberta.encoder.layer.{}.",
    "deberta-v2": "deberta.encoder.layer.{}.",
    "electra": "electra.encoder.layer.{}.",
    "modernbert": "model.layers.{}.",
}
HEADS = {
    "bert": ("classifier.",),
    "distilbert": ("pre_classifier.", "classifier."),
    "roberta": ("classifier.",),
    "deberta-v2": ("pooler.", "classifier."),
    "electra": ("classifier.",),
    "modernbert": ("head.", "classifier."),
}


def frozen(model):
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def all_below(model, *prefixes):
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_embeddings_are_all_that_is_added_up_before_the_first_layer(architecture):
    model = tiny(architecture)

    freeze(model, Freeze(embeddings=True))

    assert frozen(model) == all_below(model, EMBEDDINGS[architecture]) != set()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_lowest_layers_are_those_next_to_the_input(architecture):
    model = tiny(architecture)

    freeze(model, Freeze(lowestLayers=2))

    wanted = all_below(model, *(FIRST_LAYERS[architecture].format(index) for index in (0, 1)))
    assert frozen(model) == wanted != set()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_backbone_leaves_the_head_alone(architecture):
    model = tiny(architecture)

    freeze(model, Freeze(backbone=True))

    trained = {name for name, _ in model.named_parameters()} - frozen(model)
    assert trained == all_below(model, *HEADS[architecture]) != set()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_more_layers_than_there_are_is_an_error_with_their_number(architecture):
    with pytest.raises(JobError, match=f"lowestLayers is 12, but the model has {LAYERS} layers") as error:
        freeze(tiny(architecture), Freeze(lowestLayers=12))

    assert error.value.field == "spec.method.freeze.lowestLayers"
    assert str(LAYERS) in error.value.remedy


def test_patterns_match_the_dotted_names_of_parameters():
    model = tiny("bert")

    freeze(model, Freeze(modules=["*.layer.[02].attention.*", "*LayerNorm.bias"]))

    layers = ("bert.encoder.layer.0.attention.", "bert.encoder.layer.2.attention.")
    norms = {name for name, _ in model.named_parameters() if name.endswith("LayerNorm.bias")}
    assert frozen(model) == all_below(model, *layers) | norms


def test_a_pattern_that_matches_nothing_is_an_error_with_the_nearest_names():
    with pytest.raises(JobError, match=r"'\*\.layr\.1\.\*' matches no parameter") as error:
        freeze(tiny("bert"), Freeze(modules=["*.bias", "*.layr.1.*"]))

    assert "encoder.layer.1" in error.value.message
    assert error.value.field == "spec.method.freeze.modules[1]"


def test_a_pooler_without_pretrained_values_is_trained_with_the_head():
    model = tiny("bert")

    freeze(model, Freeze(backbone=True), new={"bert.pooler.dense.weight", "bert.pooler.dense.bias"})

    assert all_below(model, "bert.pooler.").isdisjoint(frozen(model))


def test_freezing_everything_is_an_error():
    with pytest.raises(JobError, match="every parameter is frozen"):
        freeze(tiny("bert"), Freeze(modules=["*"]))


def test_trained_and_frozen_parameters_are_counted():
    model = tiny("bert")

    freeze(model, Freeze(backbone=True))

    count = ParameterCount.of(model)
    assert count.trained == 2 * 16 + 2
    assert count.trained + count.frozen == sum(parameter.numel() for parameter in model.parameters())
    assert str(count).startswith("34 of ")


TEXT = {**SIZES, "num_hidden_layers": 3, "vocab_size": 50, "max_position_embeddings": 16}
PICTURE = {**SIZES, "num_hidden_layers": 2, "image_size": 16, "patch_size": 8}
STAGES = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 2, 1]}


def pair(picture, text):
    return VisionTextDualEncoderConfig.from_vision_text_configs(picture, text, projection_dim=8)


@dataclass(frozen=True)
class Shape:
    """What is where in a model of images, of images and texts, or of sounds."""

    loads: Any
    config: Any
    embeddings: tuple[str, ...]
    lowest: tuple[str, ...]
    layers: int
    head: tuple[str, ...]


SHAPES = {
    "resnet": Shape(
        AutoModelForImageClassification,
        ResNetConfig(embedding_size=8, layer_type="basic", **STAGES),
        ("resnet.embedder.",),
        ("resnet.encoder.stages.0.",),
        4,
        ("classifier.",),
    ),
    "convnext": Shape(
        AutoModelForImageClassification,
        ConvNextConfig(**STAGES),
        ("convnext.embeddings.",),
        ("convnext.encoder.stages.0.",),
        4,
        ("classifier.",),
    ),
    "vit": Shape(
        AutoModelForImageClassification,
        ViTConfig(**PICTURE),
        ("vit.embeddings.",),
        ("vit.layers.0.",),
        2,
        ("classifier.",),
    ),
    "swin": Shape(
        AutoModelForImageClassification,
        SwinConfig(embed_dim=8, depths=[1, 1], num_heads=[2, 2], image_size=16, patch_size=4, window_size=2),
        ("swin.embeddings.",),
        ("swin.encoder.layers.0.",),
        2,
        ("classifier.",),
    ),
    "clip": Shape(
        AutoModel,
        CLIPConfig(text_config=TEXT, vision_config=PICTURE, projection_dim=8),
        ("text_model.embeddings.", "vision_model.embeddings."),
        ("text_model.encoder.layers.0.", "vision_model.encoder.layers.0."),
        3,
        ("visual_projection.", "text_projection.", "logit_scale"),
    ),
    "siglip": Shape(
        AutoModel,
        SiglipConfig(text_config=TEXT, vision_config=PICTURE),
        ("text_model.embeddings.", "vision_model.embeddings."),
        ("text_model.encoder.layers.0.", "vision_model.encoder.layers.0."),
        3,
        ("logit_scale", "logit_bias"),
    ),
    "vit and bert": Shape(
        AutoModel,
        pair(ViTConfig(**PICTURE), BertConfig(**TEXT)),
        ("text_model.embeddings.", "vision_model.embeddings."),
        ("text_model.encoder.layer.0.", "vision_model.layers.0."),
        3,
        ("visual_projection.", "text_projection.", "logit_scale"),
    ),
    **{
        kind: Shape(
            AutoModelForAudioClassification,
            OF_SOUNDS[kind](),  # with more convolutions than layers
            (f"{kind}.feature_extractor.", f"{kind}.feature_projection."),
            (f"{kind}.encoder.layers.0.",),
            2,
            ("projector.", "classifier."),
        )
        for kind in ("wav2vec2", "hubert", "wavlm")
    },
    "ast": Shape(
        AutoModelForAudioClassification,
        OF_SOUNDS["ast"](),
        ("audio_spectrogram_transformer.embeddings.",),
        ("audio_spectrogram_transformer.layers.0.",),
        2,
        ("classifier.",),
    ),
}
of_images_or_sounds = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


@of_images_or_sounds
@pytest.mark.parametrize("part", ["embeddings", "lowest", "backbone"])
def test_what_is_frozen_of_stages_and_of_two_towers(shape, part):
    model = shape.loads.from_config(shape.config)
    names = {name for name, _ in model.named_parameters()}
    wanted = {
        "embeddings": (Freeze(embeddings=True), all_below(model, *shape.embeddings)),
        "lowest": (Freeze(lowestLayers=1), all_below(model, *shape.lowest)),
        "backbone": (Freeze(backbone=True), names - all_below(model, *shape.head)),
    }

    freeze(model, wanted[part][0])

    assert frozen(model) == wanted[part][1] != set()


@of_images_or_sounds
def test_layers_are_counted_by_stage_and_by_the_deeper_tower(shape):
    model = shape.loads.from_config(shape.config)

    found = depths(model)

    assert len(found) == shape.layers
    assert all(model.get_submodule(name) is not None for names in found for name in names)
    with pytest.raises(JobError, match=f"lowestLayers is {shape.layers + 1}, but the model has {shape.layers} layers"):
        freeze(model, Freeze(lowestLayers=shape.layers + 1))


def test_a_tower_that_is_deeper_goes_on_alone():
    assert depths(AutoModel.from_config(SHAPES["clip"].config)) == [
        ["text_model.encoder.layers.0", "vision_model.encoder.layers.0"],
        ["text_model.encoder.layers.1", "vision_model.encoder.layers.1"],
        ["text_model.encoder.layers.2"],
    ]


WRITER = {"vocab_size": 50, "d_model": 16}
LIKE_BART = {"encoder_layers": 3, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
HEADS_OF_BART = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 16}
DECODER = {**TEXT, "num_hidden_layers": 2, "is_decoder": True, "add_cross_attention": True}
WRITERS = {
    "t5": Shape(
        AutoModelForSeq2SeqLM,
        T5Config(**WRITER, d_kv=8, d_ff=32, num_layers=3, num_decoder_layers=2, num_heads=2),
        ("shared.",),
        ("encoder.block.0.", "decoder.block.0."),
        3,
        (),
    ),
    "bart": Shape(
        AutoModelForSeq2SeqLM,
        BartConfig(**WRITER, **LIKE_BART, **HEADS_OF_BART),
        ("model.shared.", "model.encoder.embed_positions.", "model.decoder.embed_positions."),
        ("model.encoder.layers.0.", "model.decoder.layers.0."),
        3,
        (),
    ),
    "two berts": Shape(
        AutoModelForSeq2SeqLM,
        EncoderDecoderConfig.from_encoder_decoder_configs(BertConfig(**TEXT), BertConfig(**DECODER)),
        ("encoder.embeddings.", "decoder.bert.embeddings."),
        ("encoder.encoder.layer.0.", "decoder.bert.encoder.layer.0."),
        3,
        ("decoder.cls.predictions.transform.", "decoder.cls.predictions.bias"),
    ),
    "a classifier of bart": Shape(
        AutoModelForSequenceClassification,
        BartConfig(**WRITER, **LIKE_BART, **HEADS_OF_BART),
        ("model.shared.", "model.encoder.embed_positions.", "model.decoder.embed_positions."),
        ("model.encoder.layers.0.", "model.decoder.layers.0."),
        3,
        ("classification_head.",),
    ),
}
of_writers = pytest.mark.parametrize("shape", WRITERS.values(), ids=WRITERS)


@of_writers
@pytest.mark.parametrize("part", ["embeddings", "lowest", "backbone", "encoder", "decoder"])
def test_what_is_frozen_of_an_encoder_and_its_decoder(shape, part):
    """Embeddings that both share, and perhaps the output layer, too, are called after none of them."""
    model = shape.loads.from_config(shape.config)
    names = {name for name, _ in model.named_parameters()}
    wanted = {
        "embeddings": (Freeze(embeddings=True), all_below(model, *shape.embeddings)),
        "lowest": (Freeze(lowestLayers=1), all_below(model, *shape.lowest)),
        "backbone": (Freeze(backbone=True), names - all_below(model, *shape.head)),
        "encoder": (
            Freeze(modules=[f"{shape.lowest[0].partition('encoder.')[0]}encoder.*"]),
            {name for name in names if name.removeprefix("model.").startswith("encoder.")},
        ),
        "decoder": (
            Freeze(modules=[f"{shape.lowest[0].partition('encoder.')[0]}decoder.*"]),
            {name for name in names if name.removeprefix("model.").startswith("decoder.")},
        ),
    }
    if part == "backbone" and not shape.head:
        with pytest.raises(JobError, match="every parameter is frozen"):
            freeze(model, wanted[part][0])
        return

    freeze(model, wanted[part][0])

    assert frozen(model) == wanted[part][1] != set()


@of_writers
def test_layers_of_encoder_and_decoder_are_counted_side_by_side(shape):
    found = depths(shape.loads.from_config(shape.config))

    assert [len(names) for names in found] == [2, 2, 1]
    assert tuple(f"{name}." for name in found[0]) == shape.lowest


def test_what_joins_two_encoders_is_trained_with_the_head():
    model = AutoModelForSeq2SeqLM.from_config(WRITERS["two berts"].config)
    crossing = {name for name, _ in model.named_parameters() if "crossattention" in name}

    freeze(model, Freeze(backbone=True), new=crossing)

    trained = {name for name, _ in model.named_parameters()} - frozen(model)
    assert trained - crossing < trained
    assert trained - crossing == all_below(model, *WRITERS["two berts"].head)


def test_without_a_choice_everything_is_trained():
    model = tiny("bert")

    freeze(model, None)

    assert frozen(model) == set()
