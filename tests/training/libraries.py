"""What an attempt imports, as it does: the server that attempts are forked from imports this module, once."""

from finetune_trainer.libraries import prepare_libraries

prepare_libraries()

import finetune_trainer.engine.session  # noqa: E402
import finetune_trainer.report.write  # noqa: E402, F401
