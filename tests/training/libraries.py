"""What an attempt imports, as it does: the server that attempts are forked from imports this module, once."""

import os

from finetune_trainer.attempt import prepare_libraries

os.environ["OMP_NUM_THREADS"] = "1"  # as every attempt of the tests has it; read once, by the import
prepare_libraries()

import finetune_trainer.engine.session  # noqa: E402
import finetune_trainer.report.write  # noqa: E402, F401
