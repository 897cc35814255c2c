"""`python -m finetune_trainer.estimate`: a spec in JSON comes in, an Estimate goes out."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

from finetune_api.estimate import Estimate
from finetune_api.failures import JobError
from finetune_api.job import FineTuneJobSpec
from finetune_api.result import ResultError
from finetune_trainer.estimate.headers import described_of
from finetune_trainer.libraries import prepare_libraries
from finetune_trainer.trust import trust_authorities


def main() -> None:
    spec = FineTuneJobSpec.model_validate(json.load(sys.stdin))
    prepare_libraries()
    with tempfile.TemporaryDirectory(prefix="finetune-") as name, redirect_stdout(sys.stderr):
        workspace = Path(name)
        try:
            trust_authorities(workspace)
            described = described_of(spec, workspace)
            # Only now, as it imports torch, which takes seconds: what is missing was said before.
            from finetune_trainer.estimate.of_job import estimate

            found = estimate(spec, described)
        except JobError as error:
            found = Estimate(model="", parameters=0, trained=0, where="", least=0, error=ResultError.of(error))
    json.dump(found.wire(), sys.stdout)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # nothing is left to do, and libraries take seconds to end
