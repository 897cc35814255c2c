"""What a process of the trainer imports before its first step, and what it leaves for later."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.training.absent import as_in_the_image

SCRIPT = """\
import gc
import sys

from finetune_trainer.imports import nothing_collected, spare_peft

with nothing_collected():
    from finetune_trainer.libraries import prepare_libraries

    prepare_libraries()
    assert not gc.isenabled()
    spare_peft()
    import finetune_trainer.engine.session
assert gc.isenabled() and gc.get_freeze_count() > 100_000

import pyarrow as pa

assert pa.array(["a"]).to_pylist() == ["a"]
for name in ("matplotlib", "pandas", "datasets", "peft", "accelerate"):
    assert name not in sys.modules, name

import pandas  # as libraries for data of a hub do

table = pandas.DataFrame({"text": ["a", None], "number": [1.0, float("nan")]})
assert pa.Table.from_pandas(table).to_pydict() == {"text": ["a", None], "number": [1.0, None]}
from finetune_trainer.engine.adapters import peft_library

assert peft_library().LoraConfig(r=4).r == 4
assert "bitsandbytes" not in sys.modules  # which takes three seconds, and only four bits need it
assert pa.table({"number": [1, 2]}).to_pandas()["number"].tolist() == [1, 2]
"""


def test_plots_tables_of_pandas_and_adapters_are_imported_when_they_are_needed_and_not_before(tmp_path):
    environment = os.environ | as_in_the_image(tmp_path)

    ended = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)

    assert ended.returncode == 0, ended.stderr
