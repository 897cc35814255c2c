"""A model that is given as adapters, as peft saves them, made whole before anything else: a folder like any other model's.

Everything else then knows models only. They are added in fp32, and what is read in the end are the settings that lie beside the adapters,
over those of the model that these are for.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Collection
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import CONFIG_NAME

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.data.adapted import ADAPTER_WEIGHTS, CONFIG, NAMED, REMEDY
from finetune_trainer.data.fetch import INDEX, SETTINGS
from finetune_trainer.engine.adapters import peft_library
from finetune_trainer.said import first_line
from finetune_trainer.shortage import shortage

KINDS = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "FEATURE_EXTRACTION": "AutoModel",
}
"""transformers' class by peft's name of a task."""
TOKENIZER = "tokenizer_config.json"
BESIDE_VOCABULARY = frozenset({TOKENIZER, "special_tokens_map.json", "added_tokens.json"})
PROCESSORS = frozenset({"processor_config.json", "preprocessor_config.json"})
"""Either says what is done to images and sounds."""

_WRONG = (
    *(OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError),
    *(AssertionError, ImportError, IndexError),
)
"""What transformers and peft raise where files make no sense."""


def made_whole(
    base: Path, adapter: Path, folder: Path, *, loads: str, more: Collection[str], trust_remote_code: bool
) -> Path:
    """Put the model of `base`, with the adapters added to it, into `folder`. `loads` is the class that loads it where their config names
    none, and `more` are files that may lie deeper. Raises JobError MODEL_INVALID where they are not for this model."""
    peft = peft_library()
    _refuse_quantised(base)
    described = adapter if (adapter / CONFIG_NAME).exists() else base
    try:
        config = AutoConfig.from_pretrained(described, trust_remote_code=trust_remote_code)
        model, loaded = _kind(json.loads((adapter / CONFIG).read_text()), loads).from_pretrained(
            base,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # of a head that the adapters bring along
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is missing, which is looked for below
            adapted = peft.PeftModel.from_pretrained(model, str(adapter))
        with safe_open(adapter / ADAPTER_WEIGHTS, "pt") as file:
            there = set(file.keys())
    except SafetensorError as error:
        raise _unfit(
            f"{ADAPTER_WEIGHTS} is cut short or damaged ({first_line(error)})", "Copy or save these adapters again."
        ) from error
    except _WRONG as error:
        if shortage(error) is not None:
            raise
        raise _unfit(first_line(error)) from error
    wanted = set(peft.get_peft_model_state_dict(adapted, save_embedding_layers=False))
    if lost := sorted(wanted ^ there):
        where = "has no place in it" if lost[0] in there else "is not among them"
        raise _unfit(f"{lost[0]} {where}, nor {len(lost) - 1} more" if len(lost) > 1 else f"{lost[0]} {where}")
    brought = tuple(f"{name}." for name, module in model.named_modules() if hasattr(module, "modules_to_save"))
    drawn = {*loaded["missing_keys"], *(name for name, *_ in loaded["mismatched_keys"])}
    lacking = {name for name in drawn if not name.startswith(brought)}
    whole = adapted.merge_and_unload()
    # What neither of the two holds was drawn at random: it is as absent as before, for whoever loads the folder to find so.
    kept = {name: values for name, values in whole.state_dict().items() if name not in lacking}
    whole.save_pretrained(folder, state_dict=kept)
    own = _settings(adapter, more)
    _copy([name for name in _settings(base, more) if not is_replaced(name, own)], base, folder)
    _copy(own, adapter, folder)
    return folder


def _settings(folder: Path, more: Collection[str]) -> list[str]:
    """The files that describe a model, and what it is used with."""
    at_the_top = [file.name for file in folder.iterdir() if file.suffix in (*SETTINGS, ".py")]
    deeper = [name for name in more if (folder / name).exists()]
    return [name for name in (*at_the_top, *deeper) if name not in (CONFIG, INDEX)]


def is_replaced(name: str, brought: Collection[str]) -> bool:
    """Whether what is brought along says what this file says, perhaps in files of other names: transformers reads a template, special tokens
    and sizes of images from whichever file it looks for first."""
    if name in PROCESSORS:
        return not PROCESSORS.isdisjoint(brought)
    if TOKENIZER not in brought:
        return False
    of_tokenizer = name in BESIDE_VOCABULARY or _is_vocabulary(name)
    return Path(name).suffix == ".jinja" or (of_tokenizer and any(map(_is_vocabulary, brought)))


def _is_vocabulary(name: str) -> bool:
    return name in ("tokenizer.json", "vocab.json") or Path(name).suffix not in (".json", ".jinja", ".py")


def _copy(names: Collection[str], source: Path, folder: Path) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, folder / name)


def _kind(said: dict[str, object], loads: str) -> type[PreTrainedModel]:
    mapped = said.get("auto_mapping")
    named = mapped.get("base_model_class") if isinstance(mapped, dict) else KINDS.get(str(said.get("task_type")))
    found: type[PreTrainedModel] = getattr(transformers, str(named or loads), None) or getattr(transformers, loads)
    return found


def _refuse_quantised(base: Path) -> None:
    """Of quantised weights, read as numbers, another model would be made."""
    if "quantization_config" in json.loads((base / CONFIG_NAME).read_text()):
        raise _unfit(
            "that one is quantised",
            f"Write in {NAMED} of {CONFIG} where the model is as it was before it was quantised.",
        )


def _unfit(why: str, remedy: str | None = None) -> JobError:
    return JobError(
        FailureReason.MODEL_INVALID,
        f"the adapters at spec.model.uri cannot be added to the model that they are for: {why}",
        field="spec.model.uri",
        remedy=remedy
        or f"Put a {CONFIG_NAME} that describes both, such as the labels of a head, beside them. {REMEDY}",
    )
