"""What comes before the layers of a model, and what after them, is what is called so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForAudioClassification,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from finetune_api.failures import JobError
from finetune_api.training import Freeze
from finetune_trainer.engine.freeze import freeze
from finetune_trainer.engine.layers import depths, distances, layer_lists, towers, unasked, within
from tests.training import images, models, sounds

TOKENS = {"vocab_size": 50, "pad_token_id": 1, "eos_token_id": 2}
TALL = {**TOKENS, **models.SIZES, "num_hidden_layers": 3, "max_position_embeddings": 64}
PAIR = {
    **TOKENS,
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 3),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 32),
    "d_model": 16,
    "max_position_embeddings": 64,
}
XLM = {"vocab_size": 50, "emb_dim": 16, "n_layers": 3, "n_heads": 2, "max_position_embeddings": 64}
STAGES = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 2, 1], "mlp_ratios": [2, 2, 2, 2]}
TEXTS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("albert", "gte", "mpnet", "nomic_bert", "roformer"), TALL),
    "bart": PAIR,
    "t5": {
        **TOKENS,
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 3,
        "num_heads": 2,
        "decoder_start_token_id": 1,
    },
    "opt": {**TOKENS, **models.SIZES, "ffn_dim": 32, "word_embed_proj_dim": 16, "num_hidden_layers": 3},
    "xlm": XLM,
    "flaubert": XLM,
    "markuplm": TALL,
}
IMAGES: dict[str, dict[str, Any]] = {
    "poolformer": STAGES,
    "pvt": {**STAGES, "image_size": 32, "num_attention_heads": [1, 1, 1, 1]},
}
BUILDS: dict[str, tuple[Any, Callable[[], Any]]] = {
    **{
        kind: (AutoModelForSequenceClassification, lambda config=config: config)
        for kind, config in models.CONFIGS.items()
    },
    **{
        kind: (AutoModelForSequenceClassification, lambda kind=kind: AutoConfig.for_model(kind, **TEXTS[kind]))
        for kind in TEXTS
    },
    **{kind: (AutoModelForImageClassification, config) for kind, config in images.CONFIGS.items()},
    **{
        kind: (AutoModelForImageClassification, lambda kind=kind: AutoConfig.for_model(kind, **IMAGES[kind]))
        for kind in IMAGES
    },
    **{kind: (AutoModelForAudioClassification, config) for kind, config in sounds.CONFIGS.items()},
}


def built(kind: str) -> PreTrainedModel:
    loads, config = BUILDS[kind]
    torch.manual_seed(0)
    model: PreTrainedModel = loads.from_config(config())
    return model.eval()


def given(model: PreTrainedModel, kind: str) -> dict[str, torch.Tensor]:
    if kind in sounds.CONFIGS:
        frames = {"ast": (100, 16), "whisper": (8, 200), "wav2vec2-bert": (40, 16)}
        if kind == "ast":
            return {"input_values": torch.randn(1, *frames[kind])}
        if kind in frames:
            return {"input_features": torch.randn(1, *frames[kind])}
        return {"input_values": torch.randn(1, 4000)}
    if model.main_input_name == "pixel_values":
        return {"pixel_values": torch.randn(1, 3, 32, 32)}
    ids = torch.arange(3, 19)[None]
    ids[0, -1] = 2
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def first_calls(model: PreTrainedModel, kind: str) -> dict[nn.Module, int]:
    """The number of each module's first call."""
    order: dict[nn.Module, int] = {}

    def called(module: nn.Module, *_: Any) -> None:
        order.setdefault(module, len(order))

    for module in model.modules():
        module.register_forward_pre_hook(called)
    with torch.no_grad():
        model(**given(model, kind))
    return order


@pytest.mark.parametrize("kind", BUILDS)
def test_what_is_called_before_the_first_layer_is_below_and_what_is_called_after_the_last_one_is_above(
    kind: str,
) -> None:
    model = built(kind)
    order, found = first_calls(model, kind), distances(model)

    wanted: dict[int, int] = {}
    for prefix, tower in towers(model):
        lists = [layers for _, layers in layer_lists(prefix, tower)]
        inside = [{part for layers in lists for part in layers[at].modules()} for at in range(len(lists[0]))]
        begins = [min(order[part] for part in parts if part in order) for parts in inside]
        assert begins == sorted(begins)
        around = {part for part in tower.modules() if any(layers in set(part.modules()) for layers in lists)}
        for module in set(tower.modules()) - set().union(*inside) - around:
            if module in order and not begins[0] <= order[module] <= begins[-1]:
                distance = len(inside) + 1 if order[module] < begins[0] else 0
                wanted |= {id(p): max(distance, wanted.get(id(p), 0)) for p in module.parameters(recurse=False)}
    assert wanted
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[one]: found[names[one]] for one in wanted} == {names[one]: wanted[one] for one in wanted}


@pytest.mark.parametrize("kind", ["xlm", "flaubert", "poolformer", "pvt"])
def test_layers_whose_parts_stand_in_lists_beside_each_other_are_frozen_whole(kind: str) -> None:
    model = built(kind)
    freeze(model, Freeze(lowestLayers=1))

    count = len(depths(model))
    held = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert (
        held
        == {name for name, distance in distances(model).items() if distance == count}
        == within(model, depths(model)[0])
    )
    assert len(depths(model)[0]) == {"xlm": 4, "flaubert": 4, "poolformer": 2, "pvt": 2}[kind]


@pytest.mark.parametrize("kind", ["pvt", "segformer"])
def test_embeddings_that_are_not_told_are_not_taken_for_none(kind: str) -> None:
    """What cuts an image is a part of each stage there: nothing would be frozen."""
    with pytest.raises(JobError, match="does not tell its embeddings from its layers"):
        freeze(built(kind), Freeze(embeddings=True))


def test_what_a_model_keeps_itself_stays_so() -> None:
    """As Whisper keeps its positions, which are sines."""
    model = built("whisper")
    assert not model.encoder.embed_positions.weight.requires_grad
    freeze(model, Freeze(lowestLayers=1))
    assert not model.encoder.embed_positions.weight.requires_grad
    freeze(model, None)
    assert not model.encoder.embed_positions.weight.requires_grad
    assert model.encoder.conv1.weight.requires_grad


def holding(**parts: nn.Module) -> nn.Module:
    module = nn.Module()
    for name, part in parts.items():
        module.add_module(name, part)
    return module


def expert() -> nn.Module:
    return holding(up=nn.Linear(1, 1), down=nn.Linear(1, 1))


UNASKED: dict[str, tuple[nn.Module, set[str], dict[str, str]]] = {
    "experts by number": (
        holding(experts=nn.ModuleList(expert() for _ in range(3))),
        {"", "experts.1", "experts.1.up", "experts.1.down"},
        {f"experts.{n}{part}": f"experts.1{part}" for n in (0, 2) for part in ("", ".up", ".down")},
    ),
    "experts by name, whose parts alone are called": (
        holding(experts=nn.ModuleDict({f"expert_{n}": expert() for n in range(2)})),
        {"", "experts", "experts.expert_0.up", "experts.expert_0.down"},
        {f"experts.expert_1{part}": f"experts.expert_0{part}" for part in ("", ".up", ".down")},
    ),
    "experts in layers": (
        holding(layers=nn.ModuleList(holding(up=nn.ModuleList(nn.Linear(1, 1) for _ in range(2))) for _ in range(2))),
        {"", "layers.0", "layers.0.up.1", "layers.1", "layers.1.up.0"},
        {"layers.0.up.0": "layers.0.up.1", "layers.1.up.1": "layers.1.up.0"},
    ),
    "a pooler": (holding(layers=nn.ModuleList([expert()]), pooler=expert()), {"", "layers.0", "layers.0.up"}, {}),
    "a part that its layer has no use for": (
        holding(layers=nn.ModuleList(expert() for _ in range(2))),
        {"", "layers.0", "layers.0.up", "layers.0.down", "layers.1", "layers.1.down"},
        {},
    ),
    "a language": (
        holding(adapters=nn.ModuleDict({"en_XX": expert(), "de_DE": expert()})),
        {"", "adapters.en_XX", "adapters.en_XX.up"},
        {},
    ),
    "none of them": (holding(experts=nn.ModuleList(expert() for _ in range(2))), {""}, {}),
}


@pytest.mark.parametrize("case", UNASKED)
def test_what_was_not_called_may_be_by_other_tokens_where_others_of_its_kind_were(case: str) -> None:
    model, names, wanted = UNASKED[case]
    assert unasked(model, names) == wanted
