"""What is where in a model, found from its own structure: of encoders of texts and images, whose layers are one list or stages, and of
models of two towers, also where the second one reads the first one, as a decoder reads its encoder.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import zip_longest

from torch import nn
from transformers import PreTrainedModel

BEFORE = frozenset({"layernorm_embedding"})
AFTER = frozenset({"norm", "final_layer_norm", "pooler"})
"""What stands beside a list of layers by such a name comes before them, or after, also where a model was put together in another order."""
NORMALISED_AT_THE_END = re.compile("StableLayerNorm|Conformer")
"""Encoders of wav2vec2's kin whose `layer_norm` comes after the layers; that of the others comes before."""


def depths(model: PreTrainedModel) -> list[list[str]]:
    """The dotted names of the layers by depth, counted from the input; a layer of each tower where the model has two. Of a model whose
    layers come in stages these are the stages. Empty where there is no list of layers."""
    lists = [found for name, tower in towers(model) for found in layer_lists(name, tower)]
    layers = [[f"{name}.{index}" for index in range(len(found))] for name, found in lists]
    return [[name for name in names if name] for names in zip_longest(*layers, fillvalue="")]


def distances(model: PreTrainedModel) -> dict[str, int]:
    """How far from the top each parameter is, by its name: 0 what follows the last layer, such as the head; 1 the last layer, and so on; one
    more than there are layers what comes before the first one. Each tower is counted from its own top; what two share is of the longer way.
    Empty where there is no list of layers."""
    found: dict[int, int] = {}
    for prefix, tower in towers(model):
        lists, body = layer_lists(prefix, tower), tower.base_model
        if not lists:
            continue
        count = len(lists[0][1])
        own = {id(p): count - at for _, layers in lists for at, layer in enumerate(layers) for p in layer.parameters()}
        before, after = _beside(model.get_submodule(lists[0][0].rpartition(".")[0]))
        # DeBERTa's tables stand after its layers.
        before |= {id(m.weight) for m in body.modules() if isinstance(m, nn.Embedding)}
        begun = False
        for parameter in body.parameters():  # in the order in which the model was put together
            begun = begun or id(parameter) in own
            is_below = id(parameter) in before or not (begun or id(parameter) in after)
            distance = own.get(id(parameter), count + 1 if is_below else 0)
            found[id(parameter)] = max(distance, found.get(id(parameter), 0))
    return {name: found.get(id(parameter), 0) for name, parameter in model.named_parameters()} if found else {}


def _beside(holder: nn.Module) -> tuple[set[int], set[int]]:
    """The ids of the parameters that come before the layers in what holds these, and of those that come after, as far as names tell."""
    last = AFTER | {"layer_norm"} if NORMALISED_AT_THE_END.search(type(holder).__name__) else AFTER
    before, after = (
        {id(p) for name, child in holder.named_children() if name in names for p in child.parameters()}
        for names in (BEFORE, last)
    )
    return before, after


def head(model: PreTrainedModel, new: Collection[str]) -> set[str]:
    """The names of the parameters that a task has put on its pretrained model, and of those without pretrained values, `new`."""
    body = backbone(model)
    outside = {name for name, _ in model.named_parameters()} - within(model, body) if body else set()
    return outside | set(new)


def backbone(model: PreTrainedModel) -> list[str]:
    """The dotted names of what is not the head; none where the model does not tell."""
    found = towers(model)
    if len(found) > 1:
        return [name for name, _ in found]
    return [] if model.base_model is model else [name_in(model, model.base_model)]


def towers(model: PreTrainedModel) -> list[tuple[str, PreTrainedModel]]:
    """The parts of a model that each have layers of their own, such as CLIP's for texts and for images, or encoder and decoder; else the
    model itself, as ""."""
    if model.config.is_encoder_decoder:
        halves = (model.get_encoder(), model.get_decoder())
        both = [part.base_model for part in halves if isinstance(part, PreTrainedModel)]
        if len(both) == 2 and model not in both:
            return [(name_in(model, part), part) for part in both]
    parts = {f"{part.removesuffix('_config')}_model" for part in model.config.sub_configs}
    found = [(name, child) for name, child in model.base_model.named_children() if name in parts]
    if len(found) < 2:
        return [("", model)]
    return [(join(name_in(model, model.base_model), name), tower) for name, tower in found]


def layer_lists(prefix: str, tower: nn.Module) -> list[tuple[str, nn.ModuleList]]:
    """The name and the list of a tower's layers: its longest list of modules that is not inside another one. Of models with matrices in
    some of them these only: convolutions of a sound, or of positions, are what stands before the layers. Several where parts of the layers
    stand in lists of their own beside each other, such as XLM's attentions and what follows each, or what cuts an image before each stage."""
    lists = [(name, module) for name, module in tower.named_modules() if isinstance(module, nn.ModuleList)]
    lists = [item for item in lists if not all(isinstance(layer, nn.Embedding) for layer in item[1])]
    outermost = [
        (name, module) for name, module in lists if not any(name.startswith(f"{outer}.") for outer, _ in lists)
    ]
    if not outermost:
        return []
    with_matrices = [item for item in outermost if any(parameter.ndim == 2 for parameter in item[1].parameters())]
    name, layers = max(with_matrices or outermost, key=lambda item: len(item[1]))
    parent = name.rpartition(".")[0]
    beside = [item for item in outermost if item[0].rpartition(".")[0] == parent and len(item[1]) == len(layers)]
    return [(join(prefix, name), layers) for name, layers in beside]


@contextmanager
def called(model: nn.Module) -> Iterator[set[str]]:
    """Within, the names of the modules are collected that are called."""
    names: set[str] = set()

    def note(name: str, *_: object) -> None:
        names.add(name)

    hooks = [module.register_forward_hook(partial(note, name)) for name, module in model.named_modules()]
    try:
        yield names
    finally:
        for hook in hooks:
            hook.remove()


def unasked(model: nn.Module, called: Collection[str]) -> dict[str, str]:
    """The modules of experts that a router sent nothing to, each with the one that has its place in an expert that it asked: of a list of
    modules that numbers tell apart some were called, and of this one nothing was. By other tokens it may be."""
    awake = {name[: dot.start()] for name in called for dot in re.finditer(r"\.|$", name)}
    found: dict[str, str] = {}
    for holder, modules in model.named_modules():
        if not isinstance(modules, nn.ModuleList | nn.ModuleDict):
            continue
        alike: dict[str, list[str]] = {}
        for own, _ in modules.named_children():
            alike.setdefault(re.sub(r"\d+", "#", own), []).append(join(holder, own))
        for names in alike.values():
            asked = [name for name in names if name in awake]
            for name in names if asked else []:
                if name not in awake:
                    inside = model.get_submodule(name).named_modules()
                    found |= {join(name, part): join(asked[0], part) for part, _ in inside}
    return found


def name_in(model: nn.Module, wanted: nn.Module) -> str:
    """The dotted name of a module of the model."""
    names: dict[int, str] = {id(module): name for name, module in model.named_modules()}
    return names[id(wanted)]


def join(*names: str) -> str:
    return ".".join(name for name in names if name)


def within(model: nn.Module, modules: Iterable[str]) -> set[str]:
    """The names of the parameters of these modules, also of those that they share with others and that are called after them."""
    inside = {id(parameter) for module in modules for parameter in model.get_submodule(module).parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in inside}
