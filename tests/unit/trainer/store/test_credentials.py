"""What to do where credentials are missing depends on whether the job names a Secret."""

from __future__ import annotations

import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import Storage
from finetune_trainer.credentials import CREDENTIALS
from finetune_trainer.store.locations import locate


@pytest.mark.parametrize("uri", ["s3://models/run", "gs://models/run", "az://models/run"])
def test_a_secret_that_is_named_is_not_asked_for(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for credential in CREDENTIALS:
        monkeypatch.delenv(credential.name, raising=False)
    remedies = {}
    for secret in (None, "keys"):
        given = {"endpoint": "https://store.example", "secretRef": secret and {"name": secret}}
        with pytest.raises(JobError) as caught:
            locate(uri, Storage.model_validate(given), patience=1)
        assert caught.value.reason is FailureReason.STORAGE_DENIED
        assert "the environment has no" in caught.value.message
        remedies[secret] = caught.value.remedy
    assert remedies[None].startswith("Name a Secret with these keys in spec.storage.secretRef; in a local run")
    assert remedies["keys"] == (
        "In a local run, export them in the shell: the Secret keys is read in a cluster only, and has to hold them there."
    )
