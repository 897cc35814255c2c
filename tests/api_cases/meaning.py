"""What means the same and what does not: defaults written out, training inputs changed, and the run ids of version 0.1.0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from finetune_api.base import PathKeys
from finetune_api.job import TRAINING_INPUTS
from finetune_api.manifest import path_keys
from finetune_api.schema import child, job_schema, paths_of
from tests.api_cases.builder import job
from tests.api_cases.manifests import FILES

CSV = FILES | {"spec.dataset.format": "csv"}
TSV = FILES | {"spec.dataset.format": "tsv"}
MANY = {"spec.dataset.columns.labels": "labels"}
GRADES = {"spec.task": "text-regression"}
LOOKED_FOR = {"spec.task": "zero-shot-image-classification", "spec.dataset.columns.label": "class"}
IMAGES = {"spec.task": "image-classification"}
TAGGED = {"spec.task": "token-classification"}
MASKS = {"spec.task": "fill-mask"}
PAIRS = {"spec.task": "sentence-similarity"}
ASKED = {"spec.task": "question-answering"}
HEARD = {"spec.task": "audio-classification"}
WRITTEN = {"spec.task": "text2text-generation"}
CHATS = {"spec.task": "text-generation"}
PREFERENCES = CHATS | {"spec.textGeneration.objective": "dpo"}
ADAPTERS = {"spec.method.type": "lora"}
TWO = {"spec.dataset.labels": ["no", "yes"]}


@dataclass(frozen=True)
class Written:
    """A manifest, and what is added to it."""

    path: str
    value: Any
    beside: dict[str, Any]

    def without(self) -> dict[str, Any]:
        return job(self.beside)

    def with_it(self) -> dict[str, Any]:
        return job(self.beside | {self.path: self.value})

    def __str__(self) -> str:
        return f"{self.path}={self.value!r}"


def _inputs() -> list[PathKeys]:
    paths = [("spec", *path) for path in paths_of(child(job_schema(), ("spec",)))]
    return [path for path in paths if path[1] in TRAINING_INPUTS]


def _name(path: PathKeys) -> str:
    return ".".join(map(str, path))


def _beside(path: str) -> dict[str, Any]:
    """What a field cannot do without."""
    needed = {
        "spec.dataset.csv": CSV,
        "spec.method.lora": ADAPTERS,
        "spec.classification": MANY,
        "spec.images": IMAGES,
        "spec.contrastive": LOOKED_FOR,
        "spec.tokenClassification": TAGGED,
        "spec.fillMask": MASKS,
        "spec.similarity": PAIRS,
        "spec.questionAnswering": ASKED,
        "spec.generation": WRITTEN,
        "spec.textGeneration.beta": PREFERENCES,
        "spec.textGeneration": CHATS,
    }
    return next((beside for block, beside in needed.items() if path.startswith(block)), {})


SCHEMA = {_name(path): child(job_schema(), path) for path in _inputs()}
FIELDS = [path for path, schema in SCHEMA.items() if "properties" not in schema]
"""Every field, of any block, that is a training input."""
BLOCKS = [path for path, schema in SCHEMA.items() if "properties" in schema and "required" not in schema]

DECIDED_BY_OTHERS = [
    Written("spec.model.revision", "main", {}),
    Written("spec.dataset.validationFraction", 0.1, {}),
    Written("spec.classification.threshold", 0.5, MANY),
    Written("spec.similarity.loss", "softmax", PAIRS),
    Written("spec.similarity.temperature", 0.05, PAIRS),
    Written("spec.textGeneration.loss", "answers", CHATS),
    Written("spec.textGeneration.packing", "auto", CHATS),
    Written("spec.textGeneration.beta", 0.1, PREFERENCES),
    Written("spec.dataset.csv.delimiter", ",", CSV),
    Written("spec.dataset.csv.delimiter", "\t", TSV),
    Written("spec.dataset.csv.quoteChar", '"', CSV),
    Written("spec.dataset.csv.quoteChar", "", TSV),
]
CALLED_LIKE_THEIR_ROLE = [
    *(Written(f"spec.dataset.columns.{role}", role, {}) for role in ("text", "label")),
    *(Written(f"spec.dataset.columns.{role}", role, GRADES) for role in ("text", "score")),
    *(Written(f"spec.dataset.columns.{role}", role, IMAGES) for role in ("image", "label")),
    *(Written(f"spec.dataset.columns.{role}", role, TAGGED) for role in ("tokens", "tags")),
    *(Written(f"spec.dataset.columns.{role}", role, PAIRS) for role in ("text", "textPair")),
    *(Written(f"spec.dataset.columns.{role}", role, ASKED) for role in ("question", "context", "answers")),
    *(Written(f"spec.dataset.columns.{role}", role, WRITTEN) for role in ("text", "target")),
    *(Written(f"spec.dataset.columns.{role}", role, HEARD) for role in ("audio", "label")),
]
NO_DEFAULT_TO_WRITE = {
    "spec.task": "required",
    "spec.model.uri": "required",
    "spec.dataset.uri": "required",
    "spec.dataset.subset": "left to the hub's dataset",
    "spec.dataset.format": "told by each file's extension",
    "spec.dataset.csv.columnNames": "read from the files",
    "spec.dataset.splits.validation": "a part of train, which has no name",
    "spec.dataset.splits.test": "none",
    "spec.dataset.splits.retention": "none",
    "spec.dataset.columns.textPair": "none",
    "spec.dataset.columns.labels": "read where the data has no column called label",
    "spec.dataset.columns.negative": "read where the data has such a column",
    "spec.dataset.columns.messages": "called conversations where the data has none of that name",
    **dict.fromkeys(
        [f"spec.dataset.columns.{role}" for role in ("tools", "system", "input", "history")],
        "read where the data has such a column",
    ),
    **dict.fromkeys(
        [f"spec.dataset.columns.{role}" for role in ("instruction", "output", "prompt", "completion")],
        "read where the data has no messages",
    ),
    **dict.fromkeys(
        [f"spec.dataset.columns.{role}" for role in ("chosen", "rejected")],
        "called otherwise where the data has none of that name",
    ),
    "spec.textGeneration.systemPrompt": "none, or the chat template's own",
    "spec.classification.classWeights": "none",
    "spec.classification.separator": "none",
    "spec.contrastive.prompts": "a list, which only the trainer knows",
    "spec.images.size": "what the model was made for",
    "spec.images.augment": "nothing",
    "spec.tokenClassification.stride": "a quarter of maxLength, which the model decides",
    "spec.questionAnswering.stride": "a quarter of maxLength, which the model decides",
    "spec.dataset.labels": "read from the data",
    "spec.method.freeze.modules": "none",
    "spec.method.lora.targetModules": "every linear layer but the head",
    "spec.method.headLearningRate": "that of training.learningRate",
    "spec.method.unfreeze.layersPerEpoch": "all move from the first step",
    "spec.training.maxSteps": "none",
    "spec.training.microBatchSize": "found by trying",
    "spec.training.maxLength": "less where the model takes less, and then 512 is an error",
    "spec.training.evaluation.metric": "decided by the number of labels, of which the data has the last word",
    "spec.training.evaluation.earlyStoppingPatience": "never",
}
"""A field → what it is when it is left out."""

WRITTEN_OUT = [
    *[
        Written(path, SCHEMA[path]["default"], _beside(path))
        for path in FIELDS
        if SCHEMA[path].get("default") is not None
    ],
    *DECIDED_BY_OTHERS,
    *CALLED_LIKE_THEIR_ROLE,
    *[Written(path, {}, FILES if path == "spec.dataset.csv" else _beside(path)) for path in BLOCKS],
    *[Written(path, None, _beside(path)) for path in (*FIELDS, *BLOCKS) if "default" in SCHEMA[path]],
    Written("spec.method", {"freeze": {"embeddings": False, "lowestLayers": 0, "backbone": False}}, {}),
    Written("spec.dataset.csv", {"encoding": "utf-8", "delimiter": ","}, CSV),
]
"""Each means the same with it as without."""

CHANGED = [
    Written("spec.model.uri", "hf://other/model", {}),
    Written("spec.model.revision", "v2", {}),
    Written("spec.model.trustRemoteCode", True, {}),
    Written("spec.dataset.uri", "hf://other/data", {}),
    Written("spec.dataset.subset", "mrpc", {}),
    Written("spec.dataset.format", "csv", FILES),
    Written("spec.dataset.csv.delimiter", ",", FILES),
    Written("spec.dataset.csv.delimiter", "\t", CSV),
    Written("spec.dataset.csv.delimiter", ",", TSV),
    Written("spec.dataset.csv.quoteChar", "", CSV),
    Written("spec.dataset.csv.quoteChar", '"', TSV),
    Written("spec.dataset.csv.encoding", "latin-1", CSV),
    Written("spec.dataset.csv.columnNames", ["text", "label"], CSV),
    Written("spec.dataset.splits.train", "training", {}),
    Written("spec.dataset.splits.validation", "dev", {}),
    Written("spec.dataset.splits.test", "test", {}),
    Written("spec.dataset.splits.retention", "general", {}),
    Written("spec.dataset.validationFraction", 0.2, {}),
    Written("spec.dataset.columns.text", "sentence", {}),
    Written("spec.dataset.columns.textPair", "other", {}),
    Written("spec.dataset.columns.label", "class", {}),
    Written("spec.dataset.columns.labels", "labels", {}),
    Written("spec.dataset.columns.score", "grade", GRADES),
    Written("spec.dataset.columns.image", "picture", IMAGES),
    Written("spec.contrastive.prompts", ["a {}"], LOOKED_FOR),
    Written("spec.images.size", 224, IMAGES),
    Written("spec.images.augment", ["flip"], IMAGES),
    Written("spec.images.augment", ["flip", "color"], IMAGES | {"spec.images.augment": ["color", "flip"]}),
    Written("spec.dataset.columns.tokens", "words", TAGGED),
    Written("spec.dataset.columns.tags", "ner_tags", TAGGED),
    Written("spec.dataset.columns.question", "query", ASKED),
    Written("spec.dataset.columns.context", "passage", ASKED),
    Written("spec.dataset.columns.answers", "gold", ASKED),
    Written("spec.questionAnswering.stride", 16, ASKED),
    Written("spec.dataset.columns.target", "summary", WRITTEN),
    Written("spec.dataset.columns.audio", "recording", HEARD),
    Written("spec.generation.maxNewTokens", 64, WRITTEN),
    Written("spec.generation.beams", 4, WRITTEN),
    *(
        Written(f"spec.dataset.columns.{role}", role, CHATS)
        for role in ("messages", "tools", "system", "input", "history")
    ),
    *(
        Written(f"spec.dataset.columns.{role}", "other", CHATS)
        for role in ("instruction", "output", "prompt", "completion")
    ),
    *(Written(f"spec.dataset.columns.{role}", "other", PREFERENCES) for role in ("chosen", "rejected")),
    Written("spec.textGeneration.objective", "dpo", CHATS),
    Written("spec.textGeneration.beta", 0.3, PREFERENCES),
    Written("spec.textGeneration.loss", "all", CHATS),
    Written("spec.textGeneration.packing", "off", CHATS),
    Written("spec.textGeneration.systemPrompt", "Be short.", CHATS),
    Written("spec.textGeneration.samples", 0, CHATS),
    Written("spec.textGeneration.maxNewTokens", 64, CHATS),
    Written("spec.task", "text-regression", {}),
    Written("spec.tokenClassification.stride", 16, TAGGED),
    Written("spec.dataset.columns.score", "score", PAIRS),
    Written("spec.dataset.columns.negative", "negative", PAIRS),
    Written("spec.similarity.loss", "symmetric", PAIRS),
    Written("spec.similarity.temperature", 0.1, PAIRS),
    Written("spec.classification.separator", "|", MANY),
    Written("spec.classification.threshold", 0.3, MANY),
    Written("spec.classification.classWeights", "balanced", {}),
    Written("spec.classification.labelSmoothing", 0.1, {}),
    Written("spec.fillMask.probability", 0.3, MASKS),
    Written("spec.fillMask.wholeWords", False, MASKS),
    Written("spec.dataset.labels", ["no", "yes"], {}),
    Written("spec.dataset.labels", ["yes", "no"], TWO),
    Written("spec.method.freeze.embeddings", True, {}),
    Written("spec.method.freeze.lowestLayers", 1, {}),
    Written("spec.method.freeze.backbone", True, {}),
    Written("spec.method.freeze.modules", ["*.layer.0.*"], {}),
    Written("spec.method.type", "lora", {}),
    Written("spec.method.lora.rank", 8, ADAPTERS),
    Written("spec.method.lora.alpha", 16, ADAPTERS),
    Written("spec.method.lora.dropout", 0.1, ADAPTERS),
    Written("spec.method.lora.targetModules", ["query"], ADAPTERS),
    Written("spec.method.lora.rslora", True, ADAPTERS),
    Written("spec.method.lora.dora", True, ADAPTERS),
    Written("spec.method.merge", False, ADAPTERS),
    Written("spec.method.layerDecay", 0.9, {}),
    Written("spec.method.headLearningRate", 5e-5, {}),
    Written("spec.method.unfreeze.layersPerEpoch", 1, {}),
    Written("spec.training.epochs", 4, {}),
    Written("spec.training.maxSteps", 10, {}),
    Written("spec.training.batchSize", 16, {}),
    Written("spec.training.microBatchSize", 32, {}),
    Written("spec.training.activationCheckpointing", "off", {}),
    Written("spec.training.learningRate", 4e-5, {}),
    Written("spec.training.learningRateSchedule", "cosine", {}),
    Written("spec.training.warmupRatio", 0.1, {}),
    Written("spec.training.weightDecay", 0.01, {}),
    Written("spec.training.maxLength", 512, {}),
    Written("spec.training.precision", "fp32", {}),
    Written("spec.training.seed", 0, {}),
    Written("spec.training.evaluation.metric", "f1", {}),
    Written("spec.training.evaluation.metric", "f1", TWO),
    Written("spec.training.evaluation.metric", "f1", {"spec.training.evaluation.earlyStoppingPatience": 1}),
    Written("spec.training.evaluation.earlyStoppingPatience", 1, {}),
]
"""Each is another run with it than without."""


def added(written: Written) -> dict[str, Any]:
    """The merge patch that adds it."""
    patch: dict[str, Any] = {}
    *blocks, last = path_keys(written.path)
    block = patch
    for name in blocks:
        block = block.setdefault(str(name), {})
    block[str(last)] = written.value
    return patch


RUN_IDS: list[tuple[str, dict[str, Any], str]] = [
    ("the smallest spec", {}, "8270b7aa15"),
    ("files in object storage", FILES, "2f68383b47"),
    (
        "a model of one's own, and its code",
        {"spec.model": {"uri": "s3://models/base", "trustRemoteCode": True}},
        "67a73ee303",
    ),
    ("a model's revision", {"spec.model.revision": "v2"}, "81231eaa4f"),
    (
        "a subset and other columns",
        {
            "spec.dataset.subset": "mrpc",
            "spec.dataset.columns": {"text": "sentence1", "textPair": "sentence2", "label": "label"},
        },
        "9e238ad35c",
    ),
    ("columns called like their roles", {"spec.dataset.columns": {"text": "text", "label": "label"}}, "8270b7aa15"),
    ("a text called like its role", {"spec.dataset.columns": {"text": "text", "label": "class"}}, "45df727ff9"),
    ("a label called like its role", {"spec.dataset.columns": {"text": "a", "label": "label"}}, "0bdd38defc"),
    ("a label called like another role", {"spec.dataset.columns.label": "textPair"}, "13f43e2529"),
    ("a second text, called like its role", {"spec.dataset.columns.textPair": "textPair"}, "384fea7c60"),
    (
        "all columns called like their roles",
        {"spec.dataset.columns": {"text": "text", "textPair": "textPair", "label": "label"}},
        "384fea7c60",
    ),
    (
        "splits by name",
        {"spec.dataset.splits": {"train": "train", "validation": "validation", "test": "test"}},
        "81d2251761",
    ),
    ("another part for validation", {"spec.dataset.validationFraction": 0.2}, "db55fc7cd0"),
    ("labels in their order", {"spec.dataset.labels": ["different", "same"]}, "d708c261e4"),
    ("labels in another order", {"spec.dataset.labels": ["same", "different"]}, "5ce977da09"),
    ("labels in another alphabet", {"spec.dataset.labels": ["好评", "差评"]}, "0a1dd6af03"),
    (
        "semicolons and an encoding",
        CSV | {"spec.dataset.csv": {"delimiter": ";", "encoding": "latin-1"}},
        "2cfdfed0ee",
    ),
    ("columns without a header", TSV | {"spec.dataset.csv": {"columnNames": ["text", "label"]}}, "7881e514e4"),
    (
        "frozen layers",
        {"spec.method": {"type": "full", "freeze": {"embeddings": True, "lowestLayers": 8}}},
        "d48835b80b",
    ),
    ("a frozen backbone", {"spec.method.freeze": {"backbone": True}}, "ebd709dead"),
    ("frozen patterns", {"spec.method.freeze.modules": ["*.layer.5.*", "*.layer.4.*"]}, "dfff08695a"),
    ("epochs as by default", {"spec.training.epochs": 3}, "8270b7aa15"),
    ("other epochs", {"spec.training.epochs": 8}, "1999ce1faa"),
    (
        "all about the steps",
        {
            "spec.training": {
                "epochs": 10,
                "maxSteps": 100,
                "batchSize": 16,
                "microBatchSize": 4,
                "learningRate": 2e-5,
                "learningRateSchedule": "cosine",
                "warmupRatio": 0.1,
                "weightDecay": 0.01,
                "maxLength": 128,
                "precision": "bf16",
                "seed": 0,
            }
        },
        "e4a1dfe42e",
    ),
    ("a learning rate of 1, a whole number", {"spec.training.learningRate": 1}, "363cf3a545"),
    (
        "a metric and early stopping",
        {"spec.training.evaluation": {"metric": "accuracy", "earlyStoppingPatience": 2}},
        "506fe0c407",
    ),
    (
        "what trains nothing else",
        {
            "spec.image": "trainer:1",
            "spec.suspend": True,
            "spec.pod.labels": {"a": "b"},
            "spec.resources.limits": {"cpu": 1},
            "spec.checkpoints.keep": 5,
        },
        "8270b7aa15",
    ),
    (
        "how several GPUs share the work",
        {"spec.resources.limits": {"nvidia.com/gpu": 4}, "spec.parallelism": "sharded"},
        "8270b7aa15",
    ),
    ("another output", {"spec.output.uri": "s3://elsewhere/x/"}, "8270b7aa15"),
    ("a run's own name", {"spec.runId": "second-try"}, "second-try"),
]
"""Claim, changes and run id, as version 0.1.0 computed it."""

OTHER_RUN_IDS_THEN: list[tuple[str, dict[str, Any], str]] = [
    ("the revision main", {"spec.model.revision": "main"}, "1532fda6b0"),
    ("nothing frozen, as an empty block", {"spec.method.freeze": {}}, "95ea533455"),
    ("nothing frozen, said", {"spec.method.freeze": {"embeddings": False}}, "95ea533455"),
    ("an empty block of CSV details", FILES | {"spec.dataset.csv": {}}, "36d5a1e0f7"),
    ("a tenth for validation", {"spec.dataset.validationFraction": 0.1}, "e8c1223f8c"),
]
"""The same of defaults that were another run for version 0.1.0 when they were written out."""

RUN_IDS_OF_EXAMPLES = {
    "mrpc-freeze.yaml": "16a14d7ea2",
    "mrpc.yaml": "ace2e4c678",
    "quickstart.yaml": "3816204b66",
}
"""The same of the manifests in examples/ that need no change for a cluster."""
