"""From URIs to checked examples: every problem is found before training, with its file, row, column and remedy.

model = fetch_model(spec.model, storage=spec.storage, workspace=folder, stop=stop)
data = load(spec.dataset, forms, storage=spec.storage, workspace=folder, seed=spec.training.seed, stop=stop)
"""

from finetune_trainer.data.examples import Examples, Origin, Origins, Stop
from finetune_trainer.data.fetch import FetchedModel, fetch_model
from finetune_trainer.data.fingerprint import fingerprint_inputs
from finetune_trainer.data.listing import list_inputs
from finetune_trainer.data.load import load
from finetune_trainer.data.loaded import Data, Source

__all__ = [
    "Data",
    "Examples",
    "FetchedModel",
    "Origin",
    "Origins",
    "Source",
    "Stop",
    "fetch_model",
    "fingerprint_inputs",
    "list_inputs",
    "load",
]
