"""What all processes of an attempt do but the first: take their part in its training. They claim, store and report nothing. The first one of
another machine than the first's fetches there what its processes train with.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_api.failures import JobError
from finetune_api.result import ResultError
from finetune_api.run import Run
from finetune_trainer.ending import ended, explain, is_of_another, shown
from finetune_trainer.engine.allocator import keep_freed_memory
from finetune_trainer.gathering import UNKNOWN, agreed, as_begun, gather
from finetune_trainer.imports import nothing_collected, spare_peft
from finetune_trainer.libraries import prepare_libraries
from finetune_trainer.log import logger
from finetune_trainer.meeting import Nothing, call_together, come
from finetune_trainer.notes import Notes, Said
from finetune_trainer.processes import Place, scratch_of
from finetune_trainer.progress import Reporter
from finetune_trainer.room import BeginAgain
from finetune_trainer.stop import Preempted, StopSignal
from finetune_trainer.store.checkpoints import Checkpoints
from finetune_trainer.store.folder import Folder, open_folder
from finetune_trainer.store.own_parts import OwnParts
from finetune_trainer.trust import trust_authorities

if TYPE_CHECKING:
    from finetune_trainer.engine.preparation import Inputs
    from finetune_trainer.engine.ranks import Ranks


class Follower:
    """One of them."""

    def __init__(
        self, run: Run, workspace: Path, place: Place, notes: Notes, stop: StopSignal, reporter: Reporter
    ) -> None:
        """`reporter` reports nowhere."""
        self._reporter = reporter
        self._run = run
        self._workspace = workspace
        self._scratch = scratch_of(workspace, place)
        self._place = place
        self._notes = notes
        self._stop = stop

    def run(self) -> Said:
        """Take part; what is said of it for the parent."""
        try:
            self._take_part()
            said = Said()
        except Nothing:
            said = Said()
        except Preempted:
            said = Said(result=ended(self._run, "preempted"))
        except BeginAgain as error:
            logger.info("%s.", error)
            said = Said(result=ended(self._run, "preempted"), room=error.room)
        except Exception as error:
            if self._stop.told and not self._stop.has_unsaved_steps():
                said = Said(result=ended(self._run, "preempted"))
            else:
                said = self._failed(error)
        self._stop.disarm()
        return said

    def _take_part(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)  # of an attempt that was killed
        self._scratch.mkdir()
        keep_freed_memory()
        trust_authorities(self._scratch)
        # Where transformers copies the code of models to; into one folder several processes would write at once.
        os.environ["HF_MODULES_CACHE"] = str(self._scratch / "modules")
        threads = prepare_libraries(self._place.local_world)
        folder = open_folder(self._run.run.uri, self._run.spec.storage)
        inputs, ranks = (self._lead if self._place.leads else self._come)(folder, threads)
        from finetune_trainer.engine.session import Session

        with OwnParts(folder, self._place.rank) as checkpoints:
            Session(agreed(ranks, inputs), checkpoints, self._reporter, self._stop, ranks).train()

    def _lead(self, folder: Folder, threads: int) -> tuple[Inputs, Ranks]:
        """Fetch what those of this machine train with, which the first process is not on, and meet all."""
        run = as_begun(self._run, folder)
        with Checkpoints(folder, fingerprint=run.run.fingerprint, keep=1) as stored:
            inputs = gather(
                run, self._workspace, self._scratch, self._place, self._stop, stored.newest, UNKNOWN, threads
            )
        self._notes.share(inputs)
        return inputs, call_together(self._notes, self._place, self._stop)

    def _come(self, folder: Folder, threads: int) -> tuple[Inputs, Ranks]:
        """Meet all once that is fetched."""
        with nothing_collected():
            spare_peft()
            from finetune_trainer.engine.session import Session  # noqa: F401  # meanwhile
        # At first, so that the others notice if this one gets no further.
        ranks = come(self._notes, self._place, self._stop)
        fetched: Inputs = self._notes.inputs()
        return replace(fetched, scratch=self._scratch, threads=threads), ranks

    def _failed(self, error: Exception) -> Said:
        if is_of_another(error):
            logger.info("Another process is gone, so this one ends: %s.", error)
            return Said(result=ended(self._run, "failed", error=ResultError.of(explain(error))), own=False)
        found = error if isinstance(error, JobError) else explain(error)
        # Aloud it is said by the parent.
        logger.info("%s: %s. %s", found.reason, found.message.rstrip("."), found.remedy)
        return Said(result=ended(self._run, "failed", error=shown(found)))
