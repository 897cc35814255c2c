"""A pretrained model for a task, with what is proved of it, whatever the task.

| the task's model ends in | its rows are | what may be new | proved before any training |
|---|---|---|---|
| a row a label or tag | `Head(names=…)` | the head, where the weights have none for these names | rows are put in the order of the names, or drawn anew |
| so many numbers without names: 1 for a score, 2 for the ends of an answer | `Head(rows=…)` | the head, where the weights have none of so many rows | its shape |
| what was pretrained too: words, embeddings | `None` | nothing; of two encoders put together what joins them | every parameter is in the weights |

Of all: what the model's class keeps, such as positions that are sines, gets no gradient; no quantised weights; every parameter of the body is in the weights, in the shape of config.json, and none of the body is left
over; all of them are numbers.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import PreTrainedConfig, PreTrainedModel

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.as_stored import compute_in_fp32, dtype_of
from finetune_trainer.said import first_line
from finetune_trainer.shortage import shortage
from finetune_trainer.tasks.heads import LabelNames, fit_head, output_layer
from finetune_trainer.tasks.weights import body_prefix, check_weights, stored_tensors

TRUST = "Use a model of an architecture that transformers knows; or read the code, and if you trust it set spec.model.trustRemoteCode."
INVALID = (
    *(OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError),
    *(AssertionError, ArithmeticError, AttributeError, IndexError, TypeError, StrictDataclassError),
)
"""What transformers raises where files of a model do not make sense."""


_SENSES = {"image processor": "looks at images", "feature extractor": "hears sounds"}
_ABSENT = re.compile(f"Can't load ({'|'.join(_SENSES)}) for")
"""How transformers begins where a folder has no preprocessor_config.json; it goes on about its hub."""


@dataclass(frozen=True)
class Head:
    """The layer that gives a task's answers, which may be new."""

    rows: int
    names: tuple[str, ...] | None = None
    """What each row means; None where rows have no names."""
    problem_type: str | None = None
    """transformers' word for the loss, which those who load the model read: `single_label_classification`."""

    @classmethod
    def of(cls, names: Sequence[str], problem_type: str | None = None) -> Head:
        """One row a name."""
        return cls(len(names), tuple(names), problem_type)


@dataclass(frozen=True)
class Pretrained:
    """A model in fp32, or as stored where it is kept so."""

    model: PreTrainedModel
    new: frozenset[str]
    """Names of the parameters that were drawn at random, by torch's global generator."""
    has_new_head: bool
    notes: list[str]
    head: frozenset[str] = frozenset()
    """Names of the parameters of the layer that gives the answers and of what else is above the body; none without a `Head`."""


def load_model(
    folder: Path,
    config: PreTrainedConfig,
    loads: str,
    head: Head | None,
    *,
    trust_remote_code: bool,
    reads_pooler: bool = True,
    may_be_new: Callable[[PreTrainedModel], Collection[str]] = lambda model: (),
) -> Pretrained:
    """The model in `folder` as transformers' class `loads` loads it; `config` is changed to describe `head`. Where there is none,
    parameters that `may_be_new` names may be missing, and the body's pooler, if the task does not read it.

    Raises JobError MODEL_INVALID, and what transformers raises where the files make no sense; see `said_as_invalid`.
    """
    before = LabelNames.of(folder)
    if head is not None:
        config.num_labels = head.rows
        config.problem_type = head.problem_type
    if head is not None and head.names is not None:
        config.id2label = dict(enumerate(head.names))
        config.label2id = {name: number for number, name in enumerate(head.names)}
    dtype = torch.float32 if head is not None else dtype_of(stored_tensors(folder))
    model, loaded = getattr(transformers, loads).from_pretrained(
        folder,
        config=config,
        dtype=dtype,
        use_safetensors=True,
        ignore_mismatched_sizes=True,  # of a head for another number of rows; anything else is refused below
        output_loading_info=True,
        trust_remote_code=trust_remote_code,
    )
    _keep_what_the_class_keeps(model)
    if loaded["missing_keys"]:
        model.float()  # what is drawn at random is trained
    elif dtype != torch.float32:
        compute_in_fp32(model)
    if head is None:
        new = check_weights(model, loaded, folder, None, reads_pooler=reads_pooler, may_be_new=may_be_new(model))
        return Pretrained(model, new, has_new_head=False, notes=[])
    layer = output_layer(model, head.rows)
    answering = frozenset(f"{layer[0]}.{name}" for name, _ in layer[1].named_parameters()) if layer else frozenset()
    drawn = check_weights(model, loaded, folder, answering)
    new, notes = fit_head(model, before, head.names, head.rows, drawn)
    body = body_prefix(model)
    above = frozenset(name for name, _ in model.named_parameters() if body and not name.startswith(body))
    return Pretrained(model, new, has_new_head=bool(answering & new), notes=notes, head=answering | above)


def _keep_what_the_class_keeps(model: PreTrainedModel) -> None:
    """Let what the class of a model makes without a gradient have none, such as Whisper's positions, which are sines: transformers asks for one
    of whatever it loads."""
    with torch.device("meta"):
        bare = type(model)(copy.deepcopy(model.config))
    kept = {name for name, parameter in bare.named_parameters() if not parameter.requires_grad}
    for name, parameter in model.named_parameters():
        if name in kept:
            parameter.requires_grad_(False)


@contextmanager
def said_as_invalid(what: str) -> Iterator[None]:
    """Say whatever transformers finds wrong with the files of a model, which `what` came of, as JobError MODEL_INVALID."""
    try:
        yield
    except INVALID as error:
        if shortage(error) is not None:
            raise  # the machine's fault, not the model's
        if absent := _ABSENT.match(str(error).strip()):
            raise JobError(
                FailureReason.MODEL_INVALID,
                f"there is no {absent[1]} beside the model (preprocessor_config.json), by which it {_SENSES[absent[1]]}",
                field="spec.model.uri",
                remedy="Name a model that was made for this task; or put its preprocessor_config.json beside its weights.",
            ) from error
        raise JobError(
            FailureReason.MODEL_INVALID,
            f"the model {what}: {first_line(error)}",
            field="spec.model.uri",
            remedy=TRUST if "custom code" in str(error) else None,
        ) from error
