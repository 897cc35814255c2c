"""Good and bad manifests, each named by a sentence.

Both doors, the API server (strict field validation) and `finetune validate`, must say the same about each. Where that of local
runs is another one, the case says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.api_cases.builder import REMOVED, job


@dataclass(frozen=True)
class Good:
    claim: str
    changes: dict[str, Any]
    in_a_cluster_only_because: str = ""

    def manifest(self) -> dict[str, Any]:
        return job(self.changes)


@dataclass(frozen=True)
class Bad:
    claim: str
    changes: dict[str, Any]
    path: str
    """Where the problem is, as the command line names it."""
    says: str
    """A word that the command line's message must contain."""
    local_runs_accept_because: str = ""
    kubectl_accepts_because: str = ""
    """Then a program can send what kubectl cannot, and the server refuses that."""

    def manifest(self) -> dict[str, Any]:
        return job(self.changes)


FILES = {"spec.dataset.uri": "s3://data/reviews"}
MANY_LABELS = [f"label-{number}" for number in range(1000)]

GOOD = [
    Good("the smallest manifest", {}),
    Good("a model in object storage", {"spec.model.uri": "s3://models/base"}),
    Good("a model on the hub without an owner", {"spec.model.uri": "hf://gpt2"}),
    Good("a bucket without a path", {"spec.output.uri": "gs://results"}),
    Good("a container of Azure", {"spec.output.uri": "az://results/a/b"}),
    Good("a file inside the image as data", {"spec.dataset.uri": "file:///opt/data"}),
    Good("a key with a hash", {"spec.dataset.uri": "s3://data/reviews#2"}),
    Good("a path with letters beyond ASCII", {"spec.dataset.uri": "s3://data/Übung"}),
    Good("a path that ends with a slash", {"spec.output.uri": "s3://results/team/"}),
    Good("names that begin and end with dots", {"spec.dataset.uri": "s3://data/.hidden/..two/.../a.."}),
    Good("a key with a query and a percent", {"spec.dataset.uri": "s3://data/reviews?v=2&100%"}),
    Good(
        "a file with characters that are escaped",
        {"spec.dataset.uri": "file:///opt/my%20data/100%25/%C3%9Cbung/..b%23"},
    ),
    Good("a model's revision and its code", {"spec.model.revision": "refs/pr/1", "spec.model.trustRemoteCode": True}),
    Good("a subset of a hub dataset", {"spec.dataset.subset": "mrpc"}),
    Good("semicolons between values", FILES | {"spec.dataset.format": "csv", "spec.dataset.csv.delimiter": ";"}),
    Good("a tab between values", FILES | {"spec.dataset.csv.delimiter": "\t"}),
    Good("quotes that are ordinary characters", FILES | {"spec.dataset.csv.quoteChar": ""}),
    Good("an encoding and named columns", FILES | {"spec.dataset.csv": {"encoding": "latin-1", "columnNames": ["a"]}}),
    Good("patterns of files for each split", FILES | {"spec.dataset.splits": {"train": "t/*.csv", "test": "test.csv"}}),
    Good("a validation split", {"spec.dataset.splits.validation": "dev"}),
    Good("rows that should not be forgotten", {"spec.dataset.splits.retention": "general"}),
    Good(
        "a delimiter that no quote is, as quotes are ordinary",
        FILES | {"spec.dataset.csv": {"delimiter": '"', "quoteChar": ""}},
    ),
    Good("a fraction for validation", {"spec.dataset.validationFraction": 0.2}),
    Good("pairs of texts", {"spec.dataset.columns": {"text": "a", "textPair": "b", "label": "c"}}),
    Good("a thousand labels", {"spec.dataset.labels": MANY_LABELS}),
    Good("a label of one letter beyond 16 bits", {"spec.dataset.labels": ["😀", "y"]}),
    Good("full tuning, said", {"spec.method.type": "full"}),
    Good("a frozen backbone", {"spec.method.freeze.backbone": True}),
    Good("frozen embeddings and layers", {"spec.method.freeze": {"embeddings": True, "lowestLayers": 4}}),
    Good("a backbone and nothing beside it", {"spec.method.freeze": {"backbone": True, "lowestLayers": 0}}),
    Good(
        "a number written 0.0 where a rule compares it", {"spec.method.freeze": {"backbone": True, "lowestLayers": 0.0}}
    ),
    Good(
        "numbers with .0 that rules compare with each other",
        {"spec.training": {"microBatchSize": 2.0, "batchSize": 2.0, "epochs": 3.0}},
    ),
    Good("frozen patterns", {"spec.method.freeze.modules": ["*.layer.5.*", "bert.pooler.[dw]*"]}),
    Good("slower layers and a faster head", {"spec.method": {"layerDecay": 0.9, "headLearningRate": 1e-3}}),
    Good(
        "layers as fast as the rest, a whole number", {"spec.method": {"layerDecay": 1, "freeze": {"backbone": True}}}
    ),
    Good("slower layers of which some are frozen", {"spec.method": {"layerDecay": 0.5, "freeze": {"lowestLayers": 4}}}),
    Good("a head alone, at its own rate", {"spec.method": {"headLearningRate": 1, "freeze": {"backbone": True}}}),
    Good("layers that begin to move one after another", {"spec.method.unfreeze.layersPerEpoch": 1}),
    Good(
        "all of it at once, but for some layers",
        {
            "spec.method": {
                "layerDecay": 0.9,
                "headLearningRate": 1e-3,
                "unfreeze": {"layersPerEpoch": 2},
                "freeze": {"embeddings": True, "lowestLayers": 4},
            },
            "spec.training.epochs": 2,
        },
    ),
    Good("adapters", {"spec.method.type": "lora"}),
    Good("adapters, and a block that says nothing of them", {"spec.method": {"type": "lora", "lora": {}}}),
    Good(
        "adapters, all said",
        {
            "spec.method": {
                "type": "lora",
                "lora": {
                    "rank": 8,
                    "alpha": 16,
                    "dropout": 0.05,
                    "targetModules": ["q_proj", "*.self.query", "layer.1[01].*"],
                    "rslora": True,
                    "dora": True,
                },
                "merge": False,
            }
        },
    ),
    Good(
        "adapters beside weights in four bits, on a slice of a GPU",
        {
            "spec.method": {"type": "qlora", "lora": {"rank": 8}, "merge": False},
            "spec.resources.limits": {"nvidia.com/mig-1g.10gb": "1", "memory": "32Gi"},
        },
    ),
    Good("adapters that are merged, said", {"spec.method": {"type": "lora", "merge": True}}),
    Good("full tuning that is merged into itself", {"spec.method": {"type": "full", "merge": True}}),
    Good(
        "adapters at rates of their own, one after another, on some layers",
        {
            "spec.method": {
                "type": "lora",
                "layerDecay": 0.9,
                "headLearningRate": 1e-3,
                "unfreeze": {"layersPerEpoch": 1},
                "freeze": {"embeddings": True, "lowestLayers": 4},
            }
        },
    ),
    Good("an epoch written 3.0", {"spec.training.epochs": 3.0}),
    Good("a learning rate of 1, a whole number", {"spec.training.learningRate": 1}),
    Good("the largest micro-batch", {"spec.training.batchSize": 8, "spec.training.microBatchSize": 8}),
    Good("a micro-batch of the default batch", {"spec.training.microBatchSize": 32}),
    Good("activation checkpointing, always", {"spec.training.activationCheckpointing": "on"}),
    Good("activation checkpointing, never", {"spec.training.activationCheckpointing": "off"}),
    Good("f1 with two labels", {"spec.training.evaluation.metric": "f1", "spec.dataset.labels": ["no", "yes"]}),
    Good("early stopping", {"spec.training.evaluation.earlyStoppingPatience": 1}),
    Good("a warm-up of nothing", {"spec.training.warmupRatio": 0}),
    Good(
        "all the training fields",
        {
            "spec.training": {
                "epochs": 10,
                "maxSteps": 100,
                "batchSize": 16,
                "learningRate": 2e-5,
                "learningRateSchedule": "cosine",
                "warmupRatio": 0.1,
                "weightDecay": 0.01,
                "maxLength": 128,
                "precision": "bf16",
                "seed": 0,
            },
        },
    ),
    Good("a save each hour and a half", {"spec.checkpoints": {"interval": "1h30m", "keep": 1}}),
    Good("a save each hundred steps", {"spec.checkpoints.everySteps": 100}),
    Good(
        "storage of one's own",
        {
            "spec.storage": {
                "endpoint": "http://minio.storage:9000",
                "region": "eu-west-1",
                "secretRef": {"name": "s3"},
            },
        },
    ),
    Good(
        "a bucket in the host's name",
        {"spec.storage": {"endpoint": "https://oss.example", "addressing": "virtualHost"}},
    ),
    Good("a bucket in the path", {"spec.storage.addressing": "path"}),
    Good("a server by its IPv6 address", {"spec.storage.endpoint": "https://[::1]:9000"}),
    Good("a hub token", {"spec.hub.tokenSecretRef": {"name": "hf", "key": "HF_TOKEN"}}),
    Good("an image by digest", {"spec.image": "registry.example:5000/team/trainer@sha256:" + "0" * 64}),
    Good("a GPU and memory", {"spec.resources.limits": {"nvidia.com/gpu": 1, "memory": "16Gi", "cpu": "1.5"}}),
    Good(
        "four GPUs that each hold the model",
        {"spec.resources.limits": {"nvidia.com/gpu": 4}, "spec.parallelism": "replicated"},
    ),
    Good("eight GPUs of another maker", {"spec.resources.limits": {"amd.com/gpu": "8"}, "spec.parallelism": "auto"}),
    Good(
        "two GPUs that divide the model",
        {"spec.resources.limits": {"nvidia.com/gpu": 2}, "spec.parallelism": "sharded", "spec.method.type": "lora"},
    ),
    Good(
        "weights in four bits on several GPUs, of which each holds all",
        {"spec.resources.limits": {"nvidia.com/gpu": 2}, "spec.parallelism": "auto", "spec.method.type": "qlora"},
    ),
    Good(
        "one GPU that holds the model, as it does anyway",
        {"spec.resources.limits": {"nvidia.com/gpu": 1}, "spec.parallelism": "replicated"},
    ),
    Good("a processor that holds the model", {"spec.parallelism": "replicated"}),
    Good(
        "an example for each GPU",
        {"spec.resources.limits": {"nvidia.com/gpu": 2}, "spec.training.batchSize": 2},
    ),
    Good("an example of the default batch for each GPU", {"spec.resources.limits": {"nvidia.com/gpu": "32"}}),
    Good(
        "fewer examples than slices of GPUs, of which one is used",
        {"spec.resources.limits": {"nvidia.com/mig-1g.10gb": 4}, "spec.training.batchSize": 2},
    ),
    Good(
        "requests below limits and a device in both",
        {
            "spec.resources": {
                "limits": {"cpu": 2, "memory": "2Gi", "nvidia.com/gpu": "1", "hugepages-2Mi": "4Mi"},
                "requests": {"cpu": "2000m", "memory": "2000M", "nvidia.com/gpu": 1, "hugepages-2Mi": "4Mi"},
            }
        },
    ),
    Good("a resource of Kubernetes' own domain in parts", {"spec.resources.limits": {"kubernetes.io/x": "1.5"}}),
    Good("requests with fractions in exponents", {"spec.resources.requests": {"cpu": "500m", "memory": "1e9"}}),
    Good(
        "where the pod runs",
        {
            "spec.pod": {
                "nodeSelector": {"example.com/disk": "ssd", "empty": ""},
                "tolerations": [
                    {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
                    {"operator": "Exists", "value": ""},
                    {"key": "spot", "effect": "NoExecute", "tolerationSeconds": 60},
                ],
                "affinity": {"nodeAffinity": {"anything": [1, None, {"goes": True}]}, "podAntiAffinity": {}},
                "serviceAccountName": "trainer",
                "priorityClassName": "low",
                "runtimeClassName": "nvidia",
                "labels": {"team": "nlp"},
                "annotations": {"note": "a text, of any kind"},
                "imagePullSecrets": [{"name": "pull"}],
            },
        },
    ),
    Good("a run by name", {"spec.runId": "second-try"}),
    Good("a run named 2 in quotes", {"spec.runId": "2"}),
    Good(
        "devices by claims",
        {
            "spec.pod.resourceClaims": [
                {"name": "gpu", "resourceClaimTemplateName": "one-gpu"},
                {"name": "nic", "resourceClaimName": "shared.nic"},
            ],
            "spec.resources.claims": [{"name": "nic", "request": "fast"}, {"name": "gpu"}],
        },
    ),
    Good(
        "four bits on a device by a claim",
        {
            "spec.method.type": "qlora",
            "spec.resources": {"claims": [{"name": "gpu"}]},
            "spec.pod.resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}],
        },
    ),
    Good("no claims, written out", {"spec.pod.resourceClaims": [], "spec.resources.claims": []}),
    Good("a job with a queue", {"spec.queue": "team-a.gpus"}),
    Good(
        "a suspended job with limits of time",
        {
            "spec.suspend": True,
            "spec.activeDeadlineSeconds": 3600,
            "spec.pendingDeadlineSeconds": 1,
            "spec.ttlSecondsAfterFinished": 0,
            "spec.backoffLimit": 0,
        },
    ),
    Good(
        "a model that has to be better, within bounds",
        {"spec.acceptance": {"metric": "loss", "min": 0, "max": 1.5, "betterThanBaseline": True}},
    ),
    Good("an attempt that is not to hang for long", {"spec.progressDeadlineSeconds": 10}),
    Good("a model that has to be so good", {"spec.acceptance.min": 0.8}),
    Good("a model that has to be just so", {"spec.acceptance": {"min": 1, "max": 1.0}}),
    Good("empty blocks", {f"spec.{block}": {} for block in ("training", "method", "checkpoints", "storage", "pod")}),
    Good(
        "empty values, which are as if absent",
        {
            "spec.training": {"epochs": None},
            "spec.hub": None,
            "spec.pod": {"nodeSelector": {"a": None}},
            "metadata.labels": {"a": None},
        },
    ),
    Good("a name of 40 characters", {"metadata.name": "n" * 40}),
    Good("a selector of the longest name", {"spec.pod.nodeSelector": {f"{'p' * 253}/{'n' * 63}": ""}}),
    Good(
        "a name to be made up",
        {"metadata": {"generateName": "try-"}},
        in_a_cluster_only_because="a local run without a name has no folder of its own",
    ),
    Good(
        "the longest name to be made up",
        {"metadata": {"generateName": "n" * 35}},
        in_a_cluster_only_because="a local run without a name has no folder of its own",
    ),
    Good("a name, and one that need not be made up", {"metadata.generateName": "try-"}),
    Good("a name, and none to be made up", {"metadata.generateName": ""}),
    Good(
        "a label and an annotation without a value",
        {"metadata.labels": {"a": None}, "metadata.annotations": {"b": None}},
    ),
    Good("an annotation's domain in capitals", {"metadata.annotations": {"Example.COM/x": "1"}}),
    Good("as many annotations as fit", {"metadata.annotations": {"x": "a" * (256 * 1024 - 1)}}),
    Good("labels and annotations", {"metadata.labels": {"team": "nlp"}, "metadata.annotations": {"a/b": "c d"}}),
    Good("an object as the server gives it back", {"metadata.creationTimestamp": None, "status": {"phase": "Running"}}),
]

BAD = [
    # fields that are not there, or are not known
    Bad("no task", {"spec.task": REMOVED}, "spec.task", "missing"),
    Bad("no model", {"spec.model": REMOVED}, "spec.model", "missing"),
    Bad("no uri of the model", {"spec.model": {}}, "spec.model.uri", "missing"),
    Bad("no dataset", {"spec.dataset": REMOVED}, "spec.dataset", "missing"),
    Bad("no output", {"spec.output": REMOVED}, "spec.output", "Add `output:` to spec"),
    Bad("an empty model", {"spec.model": None}, "spec.model", "missing"),
    Bad("an unknown field that is empty", {"spec.flavour": None}, "spec.flavour", "no such field"),
    Bad(
        "a claim that the pod does not have",
        {"spec.resources.claims": [{"name": "gpu"}]},
        "spec",
        "name the same in both",
    ),
    Bad(
        "a claim that nobody uses",
        {"spec.pod.resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]},
        "spec",
        "name the same in both",
    ),
    Bad(
        "a claim that is there twice",
        {
            "spec.pod.resourceClaims": [{"name": "gpu", "resourceClaimName": name} for name in "ab"],
            "spec.resources.claims": [{"name": "gpu"}, {"name": "gpu"}],
        },
        "spec",
        "name the same in both",
    ),
    Bad(
        "a claim of nothing",
        {"spec.pod.resourceClaims": [{"name": "gpu"}], "spec.resources.claims": [{"name": "gpu"}]},
        "spec.pod.resourceClaims[0]",
        "give one of resourceClaimName and resourceClaimTemplateName",
    ),
    Bad(
        "a claim that is there and made",
        {
            "spec.pod.resourceClaims": [{"name": "gpu", "resourceClaimName": "a", "resourceClaimTemplateName": "b"}],
            "spec.resources.claims": [{"name": "gpu"}],
        },
        "spec.pod.resourceClaims[0]",
        "give one of resourceClaimName and resourceClaimTemplateName",
    ),
    Bad("a queue in capitals", {"spec.queue": "GPUs"}, "spec.queue", "Write gpus, in lower case"),
    Bad("a queue that no label can name", {"spec.queue": "q" * 64}, "spec.queue", "Shorten it"),
    Bad(
        "a deadline before anything can begin",
        {"spec.pendingDeadlineSeconds": 0},
        "spec.pendingDeadlineSeconds",
        "Raise it",
    ),
    Bad("an empty item of a list", {"spec.pod.tolerations": [None]}, "spec.pod.tolerations[0]", "null"),
    Bad("no spec", {"spec": REMOVED}, "spec", "missing"),
    Bad("no name", {"metadata": {}}, "metadata.name", "missing"),
    Bad("no Secret's name", {"spec.storage.secretRef": {}}, "spec.storage.secretRef.name", "missing"),
    Bad("an unknown field", {"spec.flavour": "x"}, "spec.flavour", "no such field"),
    Bad("a slip of the pen", {"spec.training.epoch": 3}, "spec.training.epoch", "Did you mean epochs?"),
    Bad(
        "a field in snake case", {"spec.training.batch_size": 8}, "spec.training.batch_size", "Did you mean batchSize?"
    ),
    Bad("a field one level too high", {"spec.epochs": 3}, "spec.epochs", "Did you mean spec.training.epochs?"),
    Bad("a field beside spec", {"training": {}}, "training", "Did you mean spec.training?"),
    Bad("an unknown field in a list", {"spec.pod.tolerations": [{"kee": "x"}]}, "spec.pod.tolerations[0].kee", "key"),
    Bad(
        "a slip of the pen in the affinity",
        {"spec.pod.affinity": {"nodeAfinity": {}}},
        "spec.pod.affinity.nodeAfinity",
        "Did you mean nodeAffinity?",
    ),
    Bad("an unknown field of the metadata", {"metadata.lables": {}}, "metadata.lables", "Did you mean labels?"),
    # values of the wrong kind
    Bad("epochs in quotes", {"spec.training.epochs": "3"}, "spec.training.epochs", "Write 3 without quotes"),
    Bad("epochs as a word", {"spec.training.epochs": "three"}, "spec.training.epochs", "text"),
    Bad("half an epoch", {"spec.training.epochs": 2.5}, "spec.training.epochs", "not a whole number"),
    Bad("true epochs", {"spec.training.epochs": True}, "spec.training.epochs", "a boolean"),
    Bad(
        "a learning rate in quotes",
        {"spec.training.learningRate": "5e-5"},
        "spec.training.learningRate",
        "without quotes",
    ),
    Bad("a true learning rate", {"spec.training.learningRate": True}, "spec.training.learningRate", "a boolean"),
    Bad("a switch in quotes", {"spec.suspend": "true"}, "spec.suspend", "true or false"),
    Bad("a switch as a number", {"spec.suspend": 1}, "spec.suspend", "true or false"),
    Bad(
        "a column that YAML reads as a boolean",
        {"spec.dataset.columns.label": True},
        "spec.dataset.columns.label",
        "quotes",
    ),
    Bad("a run named by a number", {"spec.runId": 2}, "spec.runId", 'Put it in quotes: "2"'),
    Bad("labels that are numbers", {"spec.dataset.labels": [0, 1]}, "spec.dataset.labels[0]", 'Put it in quotes: "0"'),
    Bad("a label that is empty", {"spec.dataset.labels": ["a", None]}, "spec.dataset.labels[1]", "text"),
    Bad("labels in one text", {"spec.dataset.labels": "no, yes"}, "spec.dataset.labels", "a list"),
    Bad("labels as a block", {"spec.dataset.labels": {"no": 0}}, "spec.dataset.labels", "a list"),
    Bad("a model as a text", {"spec.model": "hf://a/b"}, "spec.model", "a block of the fields uri"),
    Bad("training as a list", {"spec.training": [{"epochs": 3}]}, "spec.training", "a block"),
    Bad("a spec that is a text", {"spec": "train"}, "spec", "a block"),
    Bad("limits as a list", {"spec.resources.limits": ["gpu"]}, "spec.resources.limits", "keys with values"),
    Bad(
        "half a core as a number", {"spec.resources.limits": {"cpu": 0.5}}, "spec.resources.limits.cpu", 'quotes: "0.5"'
    ),
    Bad("affinity as a text", {"spec.pod.affinity": "zone-a"}, "spec.pod.affinity", "a block"),
    Bad(
        "a selector's value as a boolean",
        {"spec.pod.nodeSelector": {"gpu": True}},
        "spec.pod.nodeSelector.gpu",
        "quotes",
    ),
    # values out of bounds
    Bad("no epochs", {"spec.training.epochs": 0}, "spec.training.epochs", "too small"),
    Bad("too many epochs", {"spec.training.epochs": 10_001}, "spec.training.epochs", "10000"),
    Bad("a seed beyond 32 bits", {"spec.training.seed": 2**31}, "spec.training.seed", "too large"),
    Bad("epochs beyond 64 bits", {"spec.training.epochs": 10**20}, "spec.training.epochs", "too large"),
    Bad("a learning rate of nothing", {"spec.training.learningRate": 0}, "spec.training.learningRate", "above 0"),
    Bad("a learning rate of 5", {"spec.training.learningRate": 5}, "spec.training.learningRate", "at most 1"),
    Bad("all steps as warm-up", {"spec.training.warmupRatio": 1}, "spec.training.warmupRatio", "below 1"),
    Bad(
        "all rows for validation",
        {"spec.dataset.validationFraction": 1.0},
        "spec.dataset.validationFraction",
        "below 1",
    ),
    Bad("examples of three tokens", {"spec.training.maxLength": 3}, "spec.training.maxLength", "too small"),
    Bad("no checkpoint kept", {"spec.checkpoints.keep": 0}, "spec.checkpoints.keep", "too small"),
    Bad("a negative limit of attempts", {"spec.backoffLimit": -1}, "spec.backoffLimit", "too small"),
    Bad("a single label", {"spec.dataset.labels": ["spam"]}, "spec.dataset.labels", "2 to 1000"),
    Bad("a label twice", {"spec.dataset.labels": ["a", "b", "a"]}, "spec.dataset.labels", "twice"),
    Bad("a label without letters", {"spec.dataset.labels": ["", "a"]}, "spec.dataset.labels[0]", "0 characters"),
    Bad(
        "two characters as delimiter",
        FILES | {"spec.dataset.csv.delimiter": "||"},
        "spec.dataset.csv.delimiter",
        "one char",
    ),
    Bad(
        "a column's name of 129 characters",
        {"spec.dataset.columns.text": "t" * 129},
        "spec.dataset.columns.text",
        "129 characters",
    ),
    Bad("a name of 41 characters", {"metadata.name": "n" * 41}, "metadata.name", "40"),
    Bad("a run's name of 21 characters", {"spec.runId": "r" * 21}, "spec.runId", "20"),
    Bad(
        "seventeen limits",
        {"spec.resources.limits": {f"r{n}": 1 for n in range(17)}},
        "spec.resources.limits",
        "too many",
    ),
    Bad(
        "an acceptance that asks for nothing",
        {"spec.acceptance": {"metric": "f1"}},
        "spec.acceptance",
        "asks for nothing",
    ),
    Bad("a hurry", {"spec.progressDeadlineSeconds": 9}, "spec.progressDeadlineSeconds", "too small"),
    Bad("an empty acceptance", {"spec.acceptance": {}}, "spec.acceptance", "asks for nothing"),
    Bad(
        "a model that need not be better",
        {"spec.acceptance.betterThanBaseline": False},
        "spec.acceptance",
        "asks for nothing",
    ),
    Bad("bounds with nothing between", {"spec.acceptance": {"min": 0.8, "max": 0.7}}, "spec.acceptance", "above"),
    Bad(
        "an acceptance by what nobody measures",
        {"spec.acceptance": {"metric": "acuracy", "min": 0.8}},
        "spec.acceptance.metric",
        "Did you mean accuracy?",
    ),
    Bad("a bound in quotes", {"spec.acceptance.min": "0.8"}, "spec.acceptance.min", "without quotes"),
    # choices and forms
    Bad("an unknown task", {"spec.task": "text-clasification"}, "spec.task", "Did you mean text-classification?"),
    Bad("a format in capitals", FILES | {"spec.dataset.format": "CSV"}, "spec.dataset.format", "Did you mean csv?"),
    Bad(
        "an unknown schedule",
        {"spec.training.learningRateSchedule": "step"},
        "spec.training.learningRateSchedule",
        "cosine",
    ),
    Bad(
        "activation checkpointing without quotes, which YAML reads as a boolean",
        {"spec.training.activationCheckpointing": True},
        "spec.training.activationCheckpointing",
        "on",
    ),
    Bad("a wrapper's name for parallelism", {"spec.parallelism": "ddp"}, "spec.parallelism", "replicated"),
    Bad("half precision that is not offered", {"spec.training.precision": "fp16"}, "spec.training.precision", "bf16"),
    Bad("another version", {"apiVersion": "finetune.dev/v1"}, "apiVersion", "finetune.dev/v1alpha1"),
    Bad("another kind", {"kind": "FinetuneJob"}, "kind", "FineTuneJob"),
    Bad(
        "a hub model without hf://",
        {"spec.model.uri": "google-bert/bert-base"},
        "spec.model.uri",
        "hf://google-bert/bert",
    ),
    Bad("a web page as a model", {"spec.model.uri": "https://huggingface.co/a/b"}, "spec.model.uri", "hf://owner/name"),
    Bad(
        "a hub dataset by its path",
        {"spec.dataset.uri": "hf://datasets/a/b"},
        "spec.dataset.uri",
        "Write hf://a/b.",
    ),
    Bad(
        "an encoding that nobody knows",
        FILES | {"spec.dataset.csv.encoding": "utf-9"},
        "spec.dataset.csv.encoding",
        "utf-8",
    ),
    Bad(
        "a line end between values",
        FILES | {"spec.dataset.csv.delimiter": "\n"},
        "spec.dataset.csv.delimiter",
        "no line end",
    ),
    Bad(
        "a line end as quotes",
        FILES | {"spec.dataset.csv.quoteChar": "\r"},
        "spec.dataset.csv.quoteChar",
        "no line end",
    ),
    Bad("a quantity of a hundred digits", {"spec.resources.limits.cpu": "1e100"}, "spec.resources.limits.cpu", "16Gi"),
    Bad("a space in a URI", {"spec.dataset.uri": "s3://data/my reviews"}, "spec.dataset.uri", "spaces"),
    Bad("a fragment in a path", {"spec.output.uri": "file:///models#2"}, "spec.output.uri", "file:///path"),
    Bad("a query in a path", {"spec.dataset.uri": "file:///data?v=2"}, "spec.dataset.uri", "file:///path"),
    *(
        Bad(f"{what} in {kind}", {f"spec.{field}.uri": f"{begin}/{path}"}, f"spec.{field}.uri", says)
        for field, kind, begin in (
            ("output", "the path of a bucket", "s3://results"),
            ("dataset", "the path of a file", "file:///data"),
            ("model", "the path of a container", "az://models"),
        )
        for what, path, says in (
            ("a way up", "a/../b", "/b."),
            ("nothing but a way up", "..", ".. in the path"),
            ("a dot", "a/./b", "a/b."),
            ("an empty part", "a//b", "a/b."),
            ("an empty part at the end", "a//", "a."),
            ("a line break", "a\nb", "control character"),
            ("a tabulator", "a\tb", "control character"),
            ("a control character", "a\x1bb", "control character"),
            ("a deletion", "a\x7fb", "control character"),
        )
    ),
    *(
        Bad(f"an escaped {what}", {"spec.dataset.uri": f"file:///data/{path}"}, "spec.dataset.uri", says)
        for what, path, says in (
            ("slash", "a%2Fb", "file:///path"),
            ("way up", "%2E%2e/b", "file:///path"),
            ("zero", "a%00", "control character"),
            ("line break", "a%0Ab", "control character"),
            ("nothing", "100%", "file:///path"),
            ("word", "a%zz", "file:///path"),
        )
    ),
    Bad("a bucket without a name", {"spec.output.uri": "s3:///models"}, "spec.output.uri", "s3://bucket/path"),
    Bad("results on the hub", {"spec.output.uri": "hf://me/model"}, "spec.output.uri", "bucket"),
    Bad("a password in a URI", {"spec.output.uri": "s3://key:hunter2@models"}, "spec.output.uri", "not shown"),
    Bad(
        "another way to name a bucket", {"spec.storage.addressing": "virtual"}, "spec.storage.addressing", "virtualHost"
    ),
    Bad("an endpoint without http", {"spec.storage.endpoint": "minio:9000"}, "spec.storage.endpoint", "http://"),
    Bad(
        "an endpoint with a path",
        {"spec.storage.endpoint": "http://minio/s3"},
        "spec.storage.endpoint",
        "without a path",
    ),
    Bad("ten minutes as a number", {"spec.checkpoints.interval": 10}, "spec.checkpoints.interval", "10m"),
    Bad("ten minutes in words", {"spec.checkpoints.interval": "10 min"}, "spec.checkpoints.interval", "1h30m"),
    Bad("a save each moment", {"spec.checkpoints.interval": "0s"}, "spec.checkpoints", "longer than 0s"),
    Bad("a run's name in capitals", {"spec.runId": "Second"}, "spec.runId", "lower case"),
    Bad("a job's name in capitals", {"metadata.name": "Paraphrase"}, "metadata.name", "lower case"),
    Bad("a job's name with a dot", {"metadata.name": "glue.mrpc"}, "metadata.name", "Write glue-mrpc, with a dash."),
    Bad(
        "a name to be made up that has a dot",
        {"metadata": {"generateName": "glue.mrpc-"}},
        "metadata.generateName",
        "with a dash",
    ),
    Bad("a job's name with a dot at its end", {"metadata.name": "a."}, "metadata.name", "letters"),
    Bad(
        "a name to be made up of capitals",
        {"metadata": {"generateName": "Try-"}},
        "metadata.generateName",
        "Write try-,",
    ),
    Bad(
        "a name to be made up that leaves no room",
        {"metadata": {"generateName": "n" * 36}},
        "metadata.generateName",
        "41 characters, with the 5 characters that the API server adds",
    ),
    Bad("a name to be made up of nothing", {"metadata": {"generateName": ""}}, "metadata.name", "missing"),
    Bad("a name to be made up as a number", {"metadata": {"generateName": 3}}, "metadata.generateName", "number"),
    Bad("an unknown field of the status", {"status": {"fase": "Running"}}, "status.fase", "no such field"),
    Bad(
        "an unknown field of an attempt in the status",
        {"status": {"attempts": [{"nam": "pod"}]}},
        "status.attempts[0].nam",
        "no such field",
    ),
    Bad("a label's domain in capitals", {"metadata.labels": {"Example.COM/x": "1"}}, "metadata.labels", "key"),
    Bad("a label's domain with two dots", {"metadata.labels": {"a..b/x": "1"}}, "metadata.labels", "key"),
    Bad("a label's domain that is too long", {"metadata.labels": {"a" * 254 + "/x": "1"}}, "metadata.labels", "key"),
    Bad("a label without a value and with a wrong key", {"metadata.labels": {"/a": None}}, "metadata.labels", "key"),
    Bad("an annotation without a value", {"metadata.annotations": {"a b": None}}, "metadata.annotations", "key"),
    Bad("a label's value of 64 characters", {"metadata.labels": {"x": "a" * 64}}, "metadata.labels.x", "64 char"),
    Bad("a label's value with a space", {"metadata.labels": {"x": "a b"}}, "metadata.labels.x", "letters"),
    Bad("a label's value as a number", {"metadata.labels": {"x": 1}}, "metadata.labels.x", "quotes"),
    Bad("an annotation as a boolean", {"metadata.annotations": {"x": True}}, "metadata.annotations.x", "quotes"),
    Bad("an annotation's key with two slashes", {"metadata.annotations": {"a/b/c": ""}}, "metadata.annotations", "key"),
    Bad(
        "annotations of more than 256 KiB",
        {"metadata.annotations": {"x": "a" * (256 * 1024)}},
        "metadata.annotations",
        "too long",
    ),
    Bad("a job's name with a slash", {"metadata.name": "a/b"}, "metadata.name", "letters"),
    Bad(
        "memory with an unknown unit",
        {"spec.resources.limits": {"memory": "16GB"}},
        "spec.resources.limits.memory",
        "16Gi",
    ),
    Bad("negative memory", {"spec.resources.limits": {"memory": -1}}, "spec.resources.limits.memory", "whole number"),
    Bad("a resource with a space", {"spec.resources.limits": {"a b": 1}}, "spec.resources.limits", "key"),
    Bad(
        "a selector whose domain is too long",
        {"spec.pod.nodeSelector": {f"{'p' * 254}/n": ""}},
        "spec.pod.nodeSelector",
        "key",
    ),
    Bad("a selector whose name is too long", {"spec.pod.nodeSelector": {"n" * 64: ""}}, "spec.pod.nodeSelector", "key"),
    Bad("a selector with two slashes", {"spec.pod.nodeSelector": {"a/b/c": "d"}}, "spec.pod.nodeSelector", "key"),
    Bad(
        "a selector's value with a space", {"spec.pod.nodeSelector": {"a": "b c"}}, "spec.pod.nodeSelector.a", "letters"
    ),
    Bad(
        "an unknown effect",
        {"spec.pod.tolerations": [{"effect": "Never"}]},
        "spec.pod.tolerations[0].effect",
        "NoSchedule",
    ),
    Bad(
        "a pattern of modules with a space",
        {"spec.method.freeze.modules": ["a b"]},
        "spec.method.freeze.modules[0]",
        "dotted",
    ),
    Bad("layers that do not move at all", {"spec.method.layerDecay": 0}, "spec.method.layerDecay", "0"),
    Bad("layers that are faster than the head", {"spec.method.layerDecay": 1.1}, "spec.method.layerDecay", "1"),
    Bad("a head that does not move", {"spec.method.headLearningRate": 0}, "spec.method.headLearningRate", "0"),
    Bad("no layers an epoch", {"spec.method.unfreeze.layersPerEpoch": 0}, "spec.method.unfreeze.layersPerEpoch", "1"),
    Bad("unfreezing nobody knows what", {"spec.method.unfreeze": {}}, "spec.method.unfreeze.layersPerEpoch", "missing"),
    Bad("a method that nobody knows", {"spec.method.type": "ia3"}, "spec.method.type", "full, lora, qlora"),
    *(
        Bad(
            f"{field} of adapters that is {value}",
            {"spec.method": {"type": "lora", "lora": {field: value}}},
            f"spec.method.lora.{field}{at}",
            says,
        )
        for field, value, at, says in (
            ("rank", 0, "", "from 1 to 1024"),
            ("rank", 1025, "", "from 1 to 1024"),
            ("alpha", 0, "", "from 1"),
            ("dropout", 1, "", "below 1"),
            ("targetModules", [], "", "1 to 64"),
            ("targetModules", ["q proj"], "[0]", "dotted"),
        )
    ),
    # rules over several fields
    Bad("adapters of full tuning", {"spec.method.lora.rank": 8}, "spec.method", "set type to lora"),
    Bad("adapters of full tuning, said", {"spec.method": {"type": "full", "lora": {}}}, "spec.method", "type to lora"),
    Bad("full tuning left apart", {"spec.method.merge": False}, "spec.method", "set type to lora"),
    Bad(
        "adapters on layers that all stay as they are",
        {"spec.method": {"type": "lora", "freeze": {"backbone": True}}},
        "spec.method",
        "freeze.backbone",
    ),
    Bad(
        "weights in four bits on layers that all stay as they are",
        {
            "spec.method": {"type": "qlora", "freeze": {"backbone": True}},
            "spec.resources.limits": {"nvidia.com/gpu": 1},
        },
        "spec.method",
        "freeze.backbone",
    ),
    *(
        Bad(f"weights in four bits {where}", {"spec.method.type": "qlora", **limits}, "spec", "takes a CUDA GPU")
        for where, limits in (
            ("on a CPU", {}),
            ("on a CPU with a limit", {"spec.resources.limits": {"memory": "8Gi"}}),
            ("on no GPUs", {"spec.resources.limits": {"nvidia.com/gpu": 0}}),
        )
    ),
    Bad("a subset of files", FILES | {"spec.dataset.subset": "x"}, "spec.dataset", "subset is for hub datasets"),
    Bad("a format of a hub dataset", {"spec.dataset.format": "csv"}, "spec.dataset", "knows its own format"),
    Bad(
        "csv details of parquet",
        FILES | {"spec.dataset.format": "parquet", "spec.dataset.csv": {}},
        "spec.dataset",
        "csv or tsv",
    ),
    Bad(
        "two sources of validation",
        {
            "spec.dataset.validationFraction": 0.1,
            "spec.dataset.splits.validation": "dev",
        },
        "spec.dataset",
        "not both",
    ),
    Bad(
        "one split for two purposes",
        {"spec.dataset.splits": {"validation": "general", "retention": "general"}},
        "spec.dataset.splits",
        "retention",
    ),
    Bad(
        "what should not be forgotten trained on",
        {"spec.dataset.splits.retention": "train"},
        "spec.dataset.splits",
        "retention",
    ),
    Bad(
        "what should not be forgotten as test",
        {"spec.dataset.splits": {"test": "general", "retention": "general"}},
        "spec.dataset.splits",
        "retention",
    ),
    Bad(
        "one split for validation and test",
        {"spec.dataset.splits": {"validation": "test", "test": "test"}},
        "spec.dataset.splits",
        "different rows",
    ),
    Bad(
        "the training split as validation", {"spec.dataset.splits.validation": "train"}, "spec.dataset.splits", "train"
    ),
    Bad(
        "the training split as test",
        {"spec.dataset.splits": {"train": "a", "test": "a"}},
        "spec.dataset.splits",
        "train",
    ),
    Bad(
        "quotes that separate values too",
        FILES | {"spec.dataset.csv": {"delimiter": ";", "quoteChar": ";"}},
        "spec.dataset.csv",
        "different characters",
    ),
    Bad(
        "quotes that separate values", FILES | {"spec.dataset.csv.delimiter": '"'}, "spec.dataset.csv", "different char"
    ),
    Bad("a default delimiter as quotes", FILES | {"spec.dataset.csv.quoteChar": ","}, "spec.dataset.csv", "a comma"),
    Bad("text and label from one column", {"spec.dataset.columns.text": "label"}, "spec", "different columns"),
    Bad("both texts from one column", {"spec.dataset.columns.textPair": "text"}, "spec", "different columns"),
    Bad("a revision of a folder", {"spec.model": {"uri": "s3://a/b", "revision": "v1"}}, "spec.model", "remove it"),
    Bad(
        "a backbone and its layers, in a number with .0",
        {"spec.method.freeze": {"backbone": True, "lowestLayers": 2.0}},
        "spec.method.freeze",
        "remove embeddings",
    ),
    Bad(
        "a part of a batch that is larger than it, in numbers with .0",
        {"spec.training": {"microBatchSize": 3.0, "batchSize": 2.0}},
        "spec",
        "must not be larger than training.batchSize",
    ),
    Bad(
        "a backbone and its layers",
        {
            "spec.method.freeze": {"backbone": True, "lowestLayers": 2},
        },
        "spec.method.freeze",
        "remove embeddings",
    ),
    Bad(
        "layers that begin to move, of a frozen backbone",
        {"spec.method": {"unfreeze": {"layersPerEpoch": 1}, "freeze": {"backbone": True}}},
        "spec.method",
        "unfreeze",
    ),
    Bad(
        "layers that begin to move after the end",
        {"spec.method.unfreeze.layersPerEpoch": 1, "spec.training.epochs": 1},
        "spec",
        "training.epochs",
    ),
    Bad(
        "slower layers of a frozen backbone",
        {"spec.method": {"layerDecay": 0.9, "freeze": {"backbone": True}}},
        "spec.method",
        "layerDecay",
    ),
    Bad(
        "a micro-batch larger than the batch",
        {
            "spec.training.batchSize": 8,
            "spec.training.microBatchSize": 16,
        },
        "spec",
        "microBatchSize",
    ),
    *(
        Bad(
            f"a model that is divided among {among}",
            {"spec.parallelism": "sharded", **limits},
            "spec",
            "two or more in resources.limits",
        )
        for among, limits in (
            ("no GPUs", {}),
            ("no GPUs, said", {"spec.resources.limits": {"nvidia.com/gpu": 0}}),
            ("one GPU", {"spec.resources.limits": {"nvidia.com/gpu": 1, "memory": "16Gi"}}),
            ("one GPU of each maker", {"spec.resources.limits": {"nvidia.com/gpu": "1", "amd.com/gpu": 1}}),
            ("slices of a GPU", {"spec.resources.limits": {"nvidia.com/mig-3g.40gb": 2}}),
        )
    ),
    Bad(
        "weights in four bits that are divided",
        {"spec.resources.limits": {"nvidia.com/gpu": 2}, "spec.parallelism": "sharded", "spec.method.type": "qlora"},
        "spec",
        "cannot be divided among GPUs",
    ),
    *(
        Bad(f"fewer examples than GPUs, {said}", changes, "spec", "what all GPUs together take")
        for said, changes in (
            ("of both a few", {"spec.training.batchSize": 3, "spec.resources.limits": {"nvidia.com/gpu": 4}}),
            ("as text", {"spec.training.batchSize": 3, "spec.resources.limits": {"amd.com/gpu": "10"}}),
            ("of the default batch", {"spec.resources.limits": {"nvidia.com/gpu": 33, "memory": "1Ti"}}),
        )
    ),
    Bad("a micro-batch larger than the default batch", {"spec.training.microBatchSize": 33}, "spec", "microBatchSize"),
    Bad(
        "f1 with three labels",
        {
            "spec.training.evaluation.metric": "f1",
            "spec.dataset.labels": ["a", "b", "c"],
        },
        "spec",
        "use macro_f1",
    ),
    Bad(
        "saves by time and by steps",
        {"spec.checkpoints": {"interval": "1m", "everySteps": 5}},
        "spec.checkpoints",
        "not both",
    ),
    Bad(
        "a label that is the operator's own",
        {"spec.pod.labels": {"finetune.dev/run": "x"}},
        "spec.pod",
        "another prefix",
    ),
    # what a pod may not have
    Bad(
        "a toleration of any value with a value",
        {"spec.pod.tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]},
        "spec.pod.tolerations[0]",
        "remove value",
    ),
    Bad(
        "a toleration of nothing in particular",
        {"spec.pod.tolerations": [{"effect": "NoSchedule"}]},
        "spec.pod.tolerations[0]",
        "operator: Exists",
    ),
    Bad(
        "a toleration that ends without a reason to",
        {"spec.pod.tolerations": [{"key": "a", "tolerationSeconds": 5, "effect": "NoSchedule"}]},
        "spec.pod.tolerations[0]",
        "effect: NoExecute",
    ),
    Bad("a resource without its domain", {"spec.resources.limits": {"gpu": 1}}, "spec.resources", "nvidia.com/gpu"),
    Bad("a request without its domain", {"spec.resources.requests": {"gpu": 1}}, "spec.resources", "nvidia.com/gpu"),
    Bad("half a GPU", {"spec.resources.limits": {"nvidia.com/gpu": "500m"}}, "spec.resources", "a whole number"),
    Bad(
        "more GPUs than there are",
        {"spec.resources.limits": {"nvidia.com/gpu": "9" * 32}},
        "spec.resources",
        "a whole number",
    ),
    Bad(
        "a GPU that is requested only",
        {"spec.resources.requests": {"nvidia.com/gpu": 1}},
        "spec.resources",
        "give them in limits only",
    ),
    Bad(
        "fewer GPUs requested than the limit",
        {"spec.resources": {"limits": {"nvidia.com/gpu": 2}, "requests": {"nvidia.com/gpu": 1}}},
        "spec.resources",
        "give them in limits only",
    ),
    Bad(
        "as many GPUs requested, in another unit",
        {"spec.resources": {"limits": {"nvidia.com/gpu": 1000}, "requests": {"nvidia.com/gpu": "1k"}}},
        "spec.resources",
        "give them in limits only",
    ),
    Bad(
        "as much of hugepages requested, written in another unit",
        {"spec.resources": {"limits": {"hugepages-2Mi": "4Mi"}, "requests": {"hugepages-2Mi": "4096Ki"}}},
        "spec.resources",
        "give them in limits only",
    ),
    Bad(
        "more memory requested than the limit",
        {"spec.resources": {"limits": {"memory": "2G"}, "requests": {"memory": "2Gi"}}},
        "spec.resources",
        "lower the request",
    ),
    # secrets in the wrong place
    Bad("a token in the spec", {"spec.hub": {"token": "hf_abcdefghijklmnop"}}, "spec.hub.token", "no such field"),
    Bad(
        "a key as a reference",
        {"spec.storage.secretRef": "AKIAABCDEFGHIJKLMNOP"},
        "spec.storage.secretRef",
        "not shown",
    ),
    # where another door is looser, and why
    Bad(
        "results in a file",
        {"spec.output.uri": "file:///tmp/out"},
        "spec",
        "object storage",
        local_runs_accept_because="a local run writes to files",
    ),
    Bad(
        "a number of GPUs written 1.0",
        {"spec.resources.limits": {"nvidia.com/gpu": 1.0}},
        "spec.resources",
        "XIntOrString",
        kubectl_accepts_because="the server's rules do not convert; kubectl writes 1 for 1.0, so only programs meet this",
    ),
]
