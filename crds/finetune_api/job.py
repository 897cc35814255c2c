"""FineTuneJob: what a user writes."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from finetune_api.acceptance import Acceptance
from finetune_api.base import (
    KEY_WORDS,
    MAX_INT32,
    NAME_WORDS,
    OBJECT_NAME,
    DnsLabel,
    InputUri,
    LabelValue,
    Model,
    ObjectName,
    OutputUri,
    Rule,
    says,
)
from finetune_api.dataset import Dataset
from finetune_api.options import (
    Classification,
    Contrastive,
    FillMask,
    Generation,
    Images,
    QuestionAnswering,
    Similarity,
    TextGeneration,
    TokenClassification,
)
from finetune_api.placement import (
    CLAIMS_AGREE,
    HAS_A_DEVICE,
    Pod,
    Resources,
    SecretKey,
    SecretName,
    claims_that_differ,
    has_more_gpus_than,
)
from finetune_api.task_rules import task_rules
from finetune_api.tasks import QLORA, TASKS, all_blocks
from finetune_api.training import Checkpoints, Method, Training
from finetune_api.words import what_tasks_learn

if TYPE_CHECKING:
    TaskName = str
else:
    TaskName = Literal[tuple(TASKS)]

Parallelism = Literal["auto", "replicated", "sharded"]
DEFAULT_REVISION = "main"
"""Of a hub model, where `model.revision` is not given."""
DEFAULT_REGION = "us-east-1"
"""Of S3, where neither `storage.region` nor the environment names one."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
"""Of a job, what `spec.queue` says as well."""
MAX_NAME = 40
"""A job's name is part of its children's names, which end at 63 characters."""


class Base(Model):
    """The pretrained model to start from."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "revision is for hub models (hf://) only; remove it",
            "!has(self.revision) || self.uri.startsWith('hf://')",
            lambda m: m.revision is None or m.uri.startswith("hf://"),
        ),
    )

    uri: InputUri
    """Where the model is: `hf://owner/name` on the hub; `s3://`, `gs://`, `az://` or `file:///` for a folder with config,
    tokenizer and safetensors weights. In local runs a path relative to the manifest is allowed too."""

    revision: (
        Annotated[
            str,
            Field(
                pattern=r"^[A-Za-z0-9][-A-Za-z0-9_./]*$",
                min_length=1,
                max_length=128,
                json_schema_extra=says("a branch, tag or commit"),
            ),
        ]
        | None
    ) = None
    """The branch, tag or commit of a hub model. Default: main."""

    trust_remote_code: bool = False
    """Run Python code that comes with the model. Default: false. Say true only for a model whose code you have read."""


class Output(Model):
    """Where the results go."""

    uri: OutputUri
    """The folder that gets one folder a run: checkpoints while it trains, then model, metrics, plots, report and model card.
    `s3://`, `gs://` or `az://`; `file:///` in local runs only. Nothing below it is deleted with the job."""


class Storage(Model):
    """How object storage is reached, for every `s3://`, `gs://` and `az://` URI of the job."""

    endpoint: (
        Annotated[
            str,
            Field(
                pattern=r"^https?://[A-Za-z0-9.:\[\]-]+$",
                min_length=8,
                max_length=512,
                json_schema_extra=says(
                    "http:// or https:// with a host and perhaps a port, without a path or a password"
                ),
            ),
        ]
        | None
    ) = None
    """The server's address, such as `https://minio.example:9000`. Default: the cloud provider's own."""

    region: DnsLabel | None = None
    """The region of the bucket. Default: us-east-1 for S3."""

    addressing: Literal["auto", "path", "virtualHost"] = "auto"
    """How the bucket of an `s3://` URI is named in requests: `path` for `https://endpoint/bucket/key`, `virtualHost` for
    `https://bucket.endpoint/key`, which Alibaba's and Tencent's stores insist on. Default: auto, which is `path` until the store
    asks for the other."""

    secret_ref: SecretName | None = None
    """A Secret whose keys become environment variables of the pod: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` (and
    `AWS_SESSION_TOKEN`) for s3, `GOOGLE_SERVICE_ACCOUNT_KEY` for gs, `AZURE_STORAGE_ACCOUNT_NAME` and
    `AZURE_STORAGE_ACCOUNT_KEY` for az. Default: the pod's cloud identity; in local runs always the shell's environment."""


class Hub(Model):
    """Access to the model hub."""

    token_secret_ref: SecretKey
    """The Secret key with a hub token, for gated and private models and data. In local runs `HF_TOKEN` of the shell."""


_BATCH_SIZE = "self.?training.?batchSize.orValue(32)"
"""In CEL, of a spec, as the next."""
HAS_SEVERAL_GPUS = has_more_gpus_than("1")


class FineTuneJobSpec(Model):
    """What to tune, on what, how, and where the results go."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "training.microBatchSize must not be larger than training.batchSize; lower it, or leave it out",
            f"self.?training.?microBatchSize.orValue(1) <= {_BATCH_SIZE}",
            lambda s: s.training.micro_batch_size is None or s.training.micro_batch_size <= s.training.batch_size,
        ),
        Rule(
            "training.batchSize is what all GPUs together take of one step, and with fewer examples than GPUs some would do nothing; "
            "raise it to the number of GPUs in resources.limits or more, or ask for fewer GPUs",
            f"!({has_more_gpus_than(_BATCH_SIZE)})",
            lambda s: s.resources.gpus <= s.training.batch_size,
            walks=True,
        ),
        Rule(
            "method.unfreeze adds layers with each epoch after the first; set training.epochs to 2 or more, or remove it",
            "!self.?method.?unfreeze.hasValue() || self.?training.?epochs.orValue(3) >= 2",
            lambda s: s.method.unfreeze is None or s.training.epochs >= 2,
        ),
        Rule(
            "method.type qlora holds weights in four bits, which takes a CUDA GPU; ask for one in resources.limits, such as "
            "nvidia.com/gpu: 1, or set method.type to lora",
            f"self.?method.?type.orValue('') != '{QLORA}' || ({HAS_A_DEVICE})",
            lambda s: s.method.type != QLORA or s.resources.have_a_device,
            walks=True,
        ),
        Rule(
            "parallelism sharded divides a model among several GPUs; ask for two or more in resources.limits, such as nvidia.com/gpu: 2, "
            "or leave parallelism out",
            f"self.?parallelism.orValue('') != 'sharded' || ({HAS_SEVERAL_GPUS})",
            lambda s: s.parallelism != "sharded" or s.resources.gpus > 1,
            walks=True,
        ),
        Rule(
            "method.type qlora holds weights in four bits, which cannot be divided among GPUs; leave parallelism out, or set method.type to lora",
            f"self.?parallelism.orValue('') != 'sharded' || self.?method.?type.orValue('') != '{QLORA}'",
            lambda s: s.parallelism != "sharded" or s.method.type != QLORA,
        ),
        Rule(
            "pod.resourceClaims says which claims the pod has, each by a name of its own, and resources.claims that the training uses them; "
            "name the same in both",
            CLAIMS_AGREE,
            lambda s: not claims_that_differ(s.pod, s.resources),
        ),
        Rule(
            "output.uri must be object storage (s3://, gs:// or az://) in a cluster, because a file would go with its pod",
            "!self.output.uri.startsWith('file:')",
            lambda s: not s.output.uri.startswith("file:"),
            cluster_only=True,
        ),
        *task_rules(TASKS),
    )

    task: Annotated[TaskName, Field(description=what_tasks_learn(TASKS))]

    model: Base
    """The pretrained model."""

    dataset: Dataset
    """The data to train and measure on."""

    method: Method = Method()
    """Which weights are tuned. Default: all."""

    training: Training = Training()
    """The hyper-parameters. Default: 3 epochs of 32 examples a step at 5e-5."""

    classification: Classification | None = None
    """Options of text-classification. Default: those of the fields below it."""

    images: Images | None = None
    """How images are shown to the model. Default: as its own image processor does, without augmentation."""

    contrastive: Contrastive | None = None
    """What zero-shot-image-classification makes texts of. Default: that of the field below it."""

    token_classification: TokenClassification | None = None
    """Options of token-classification. Default: those of the fields below it."""

    fill_mask: FillMask | None = None
    """Options of fill-mask. Default: those of the fields below it."""

    similarity: Similarity | None = None
    """Options of sentence-similarity. Default: those of the fields below it."""

    question_answering: QuestionAnswering | None = None
    """Options of question-answering. Default: those of the fields below it."""

    generation: Generation | None = None
    """Options of text2text-generation. Default: those of the fields below it."""

    text_generation: TextGeneration | None = None
    """Options of text-generation. Default: those of the fields below it."""

    checkpoints: Checkpoints = Checkpoints()
    """When the state of training is saved. Default: every 10 minutes and at each epoch's end, keeping 2."""

    output: Output
    """Where the results go."""

    storage: Storage = Storage()
    """How object storage is reached. Default: the cloud provider's own address and the pod's identity."""

    hub: Hub | None = None
    """Access to the model hub. Default: anonymous."""

    image: (
        Annotated[
            str,
            Field(
                pattern=r"^[a-zA-Z0-9][-a-zA-Z0-9._/:@]*$",
                min_length=1,
                max_length=512,
                json_schema_extra=says("an image's name with its tag or digest, such as registry.example/trainer:1.0"),
            ),
        ]
        | None
    ) = None
    """The trainer's container image; fixed once an attempt has run. Default: the one the operator was installed with."""

    resources: Resources = Resources()
    """What the training pod gets and may use. Each whole GPU trains as a process of its own, which gets its share of each batch and of the
    CPUs; slices of GPUs cannot work together, so of these one is of use. A change is obeyed by the next pod, which goes on from the last
    checkpoint with as many GPUs as there are then. Default: no limits, no GPU."""

    parallelism: Parallelism = "auto"
    """How the GPUs of `resources` share the work, where there are several; each computes its share of every batch. `replicated`: each holds
    the whole model. `sharded`: each holds a part of weights, gradients and optimiser, and layers are put together while they are computed
    (FSDP), which takes less memory and more talk between GPUs. It is no training input: batches, losses and metrics are those of one
    GPU, but for rounding and for what dropout drops; a change is obeyed by the next pod. Default: auto, which is replicated where training
    fits on one GPU, and sharded where it does not."""

    pod: Pod = Pod()
    """Where the training pod runs and what it carries. Default: any node."""

    queue: Annotated[ObjectName, Field(max_length=63)] | None = None
    """The queue of [Kueue](https://kueue.sigs.k8s.io) that lets the training in, a LocalQueue of the job's namespace; the label
    `kueue.x-k8s.io/queue-name` of the job says the same. A change is obeyed while no pod runs. Default: that of the label, or no queue."""

    run_id: Annotated[DnsLabel, Field(max_length=20)] | None = None
    """The name of this run, the last part of its output folder. Change it to run again. Default: a short hash of the training
    inputs, so that equal inputs share a folder and a finished result is adopted instead of trained again. A default that is
    written out is the same input as one left out."""

    acceptance: Acceptance | None = None
    """What the model has to reach. It is no training input: it may change at any time, and what has finished is judged again by what was
    measured, without training. Default: nothing, any model that is trained succeeds."""

    suspend: bool = False
    """Stop training, keep everything, and go on when this is false again. Default: false."""

    backoff_limit: Annotated[int, Field(ge=0, le=100)] = 3
    """How many failed attempts are followed by another. Preemptions and drained nodes do not count. A lower value ends no attempt
    that is under way. Default: 3."""

    active_deadline_seconds: Annotated[int, Field(ge=1, le=MAX_INT32)] | None = None
    """Seconds after which a run that is not finished fails with DeadlineExceeded. Time in suspension does not count.
    Default: none."""

    pending_deadline_seconds: Annotated[int, Field(ge=1, le=MAX_INT32)] | None = None
    """Seconds without a running attempt, though no queue holds the job back, after which it fails with the reason that it waits for, and
    frees what it had got. Those in which its Job cannot be made count as well, as far as an operator is there to try. They are counted
    anew each time that a queue lets it in or an attempt has ended, from when the next one is due, and when what a pod asks for is
    changed. Default: none, it waits for as long as it takes."""

    progress_deadline_seconds: Annotated[int, Field(ge=10, le=MAX_INT32)] | None = None
    """Seconds without a sign of progress after which an attempt is ended because it hangs, and the next one goes on from the last
    checkpoint. Signs are a step, a batch of an evaluation, a part of the data that is read; give more than the longest of these, and than it
    takes to load the model, to store a checkpoint and to write the results. The attempt leaves the stacks of all its threads in its log and ends with
    TrainingStalled, which counts as a failure; one that cannot even do that is deleted after half as long again without a word from it.
    Default: none."""

    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=MAX_INT32)] | None = None
    """Seconds after its end when the Job and its pods are deleted; the FineTuneJob and its results stay. Default: they stay until
    the FineTuneJob is deleted."""

    def given(self, fields: Collection[str]) -> dict[str, Any]:
        """What the spec says in these of its fields, named as in a manifest; defaults are left out."""
        said = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return {field: value for field, value in said.items() if field in fields}


TRAINING_INPUTS = ("task", "model", "dataset", "method", "training", *all_blocks(TASKS))
"""The fields that decide what a run learns. The run id is their hash."""

OBEYED_BY_THE_TRAINER = (*TRAINING_INPUTS, "checkpoints", "output", "storage", "parallelism")
"""The fields that the trainer obeys. The others are the operator's, and a trainer need not know them."""

FIXED_FOR_A_RUN = (*TRAINING_INPUTS, "output", "image")
"""The fields whose meaning may change only together with `runId`, image once an attempt has run. The others are obeyed by the next
pod, or at once."""


_KEY = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
MAX_DOMAIN = 253
MAX_ANNOTATIONS = 256 * 1024


def _short_domain(key: str) -> str:
    if len(key.rpartition("/")[0]) > MAX_DOMAIN:
        raise PydanticCustomError("key", "a domain that is too long")
    return key


def _not_too_many(annotations: dict[str, str]) -> dict[str, str]:
    size = sum(len(text.encode()) for pair in annotations.items() for text in pair)
    if size > MAX_ANNOTATIONS:
        raise PydanticCustomError("annotations", "too long", {"size": size})
    return annotations


def _nulls_empty(values: Any) -> Any:
    return (
        {key: "" if value is None else value for key, value in values.items()} if isinstance(values, dict) else values
    )


NULL_IS_EMPTY = BeforeValidator(_nulls_empty)
"""In the metadata's maps, where it is not absent as elsewhere."""
MetadataKey = Annotated[
    str,
    Field(pattern=f"^({OBJECT_NAME.strip('^$')}/)?{_KEY}$", min_length=1, json_schema_extra=says(KEY_WORDS)),
    AfterValidator(_short_domain),
]
"""A key as the API server checks it in the metadata of any object; stricter than it can check one in a spec."""
AnnotationKey = Annotated[
    str,
    Field(pattern=f"^((?i:{OBJECT_NAME.strip('^$')})/)?{_KEY}$", min_length=1, json_schema_extra=says(KEY_WORDS)),
    AfterValidator(_short_domain),
]
"""The same for annotations, whose domains may be in capitals."""


class Metadata(Model):
    """Name, labels and annotations, as of every object of Kubernetes. What only the API server writes is left out."""

    name: Annotated[DnsLabel, Field(max_length=MAX_NAME)]
    """The job's name, at most 40 characters."""

    generate_name: (
        Annotated[
            str,
            Field(pattern=r"^[a-z0-9][-a-z0-9.]*$", min_length=1, max_length=253, json_schema_extra=says(NAME_WORDS)),
        ]
        | None
    ) = None
    """The beginning of the name that the API server makes up for a job without one, at most 35 characters. For
    `kubectl create` only. Default: none."""

    namespace: DnsLabel | None = None
    """Where the job lives. Default: the namespace of kubectl's context; local runs have none."""

    labels: Annotated[dict[MetadataKey, LabelValue], NULL_IS_EMPTY] | None = None
    """Labels of the job. Default: none."""

    annotations: Annotated[dict[AnnotationKey, str], NULL_IS_EMPTY, AfterValidator(_not_too_many)] | None = None
    """Annotations of the job, at most 256 KiB together. Default: none."""


class FineTuneJob(Model):
    """A model to fine-tune."""

    api_version: Literal["finetune.dev/v1alpha1"]
    kind: Literal["FineTuneJob"]
    metadata: Metadata
    """The name, at most 40 characters, and the usual labels and annotations."""
    spec: FineTuneJobSpec
    """What to tune, on what, how, and where the results go."""
