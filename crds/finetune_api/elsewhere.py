"""What other tools call a field: transformers' Trainer, TRL, peft, LLaMA-Factory, axolotl. By spelling alone `lora_r` is nearest to `rslora`,
and `save_steps` to `maxSteps`."""

from __future__ import annotations

from collections.abc import Mapping

from finetune_api.base import PathKeys

_BATCH = "It counts the examples of one step on all GPUs together: multiply by their number, and by gradient_accumulation_steps."

CALLED: Mapping[str, tuple[str, ...]] = {
    "spec.model.uri": ("model_name_or_path", "base_model", "model.name", "model.path", "model.id"),
    "spec.hub.tokenSecretRef": ("hf_token", "hub_token", "model.token", "dataset.token"),
    "spec.dataset.uri": ("dataset.name", "dataset.path", "dataset.repo"),
    "spec.dataset.splits.validation": ("splits.eval", "splits.dev", "eval_file", "validation_file"),
    "spec.dataset.validationFraction": ("val_size", "val_set_size", "test_size"),
    "spec.method.lora.rank": ("r", "lora_r", "lora_rank"),
    "spec.method.type": ("load_in_4bit", "quantization", "quantization_bit", "finetuning_type", "bits"),
    "spec.training.learningRate": ("lr", "max_lr", "peak_lr"),
    "spec.training.learningRateSchedule": ("lr_scheduler", "lr_scheduler_type", "scheduler"),
    "spec.training.warmupRatio": ("warmup", "warmup_steps"),
    "spec.training.batchSize": ("per_device_train_batch_size", "gradient_accumulation_steps", "train_batch_size"),
    "spec.training.maxLength": ("cutoff_len", "max_seq_len", "max_seq_length", "sequence_len", "model_max_length"),
    "spec.training.precision": ("bf16", "fp16", "dtype", "torch_dtype", "mixed_precision"),
    "spec.training.evaluation.metric": ("metric_for_best_model",),
    "spec.checkpoints.everySteps": ("save_steps",),
    "spec.checkpoints.keep": ("save_total_limit",),
    "spec.parallelism": ("deepspeed", "fsdp", "strategy"),
    "spec.output.uri": ("output_dir", "output.path", "output.dir"),
    "spec.resources.limits": ("gpu", "gpus", "num_gpus", "resources.memory", "resources.cpu", "resources.cpus"),
    "spec.textGeneration.loss": ("train_on_inputs", "train_on_prompt"),
    "spec.textGeneration.beta": ("pref_beta", "dpo_beta", "kto_beta"),
}
"""By path; a name that is this field's in one block only stands with the block."""

_HOW: Mapping[str, str] = {
    "spec.method.type": "Four bits are `type: qlora`.",
    "spec.training.batchSize": _BATCH,
    "spec.training.warmupRatio": "It is a part of all steps, such as 0.1.",
    "spec.resources.limits": "Write them as limits: {nvidia.com/gpu: 1, memory: 16Gi}.",
}
"""Where the value is another one, too."""

_NONE: Mapping[str, str] = {
    "eval_steps": "Remove it: models are measured at the end of each epoch.",
    "eval_strategy": "Remove it: models are measured at the end of each epoch.",
    "evaluation_strategy": "Remove it: models are measured at the end of each epoch.",
    "optim": "Remove it: it is always AdamW.",
    "optimizer": "Remove it: it is always AdamW.",
}
"""What there is no field for."""


def form(name: str) -> str:
    """The same for `batchSize`, `batch_size` and `batch-size`."""
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


_BY_NAME = {form(name): path for path, names in CALLED.items() for name in names}
_SENTENCES = {form(name): sentence for name, sentence in _NONE.items()}


def known_elsewhere(keys: PathKeys) -> str:
    """What to do about a field that there is not, if other tools have one of its name; else nothing."""
    for name in (".".join(map(str, keys[-2:])), str(keys[-1])):
        if path := _BY_NAME.get(form(name)):
            return " ".join(filter(None, (f"Here it is {path}.", _HOW.get(path))))
        if sentence := _SENTENCES.get(form(name)):
            return sentence
    return ""
