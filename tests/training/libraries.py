"""What an attempt imports, as it does: the server that attempts are forked from imports this module, once."""

from finetune_trainer.imports import nothing_collected, spare_peft
from finetune_trainer.libraries import prepare_libraries

prepare_libraries()

with nothing_collected():
    spare_peft()

    import finetune_trainer.engine.session
    import finetune_trainer.report.write  # noqa: F401
