"""The FineTuneJob API and the contracts between operator and trainer, said once.

`job` is what a user writes, `status` what the operator answers, `run`, `progress` and `result` what
operator and trainer tell each other, `failures` why a job can end badly and what to do about it.
"""

GROUP = "finetune.dev"
VERSION = "v1alpha1"
KIND = "FineTuneJob"
PLURAL = "finetunejobs"
API_VERSION = f"{GROUP}/{VERSION}"
