from __future__ import annotations

import uuid

import pytest

from finetune_api.job import Storage
from finetune_trainer.store.folder import Folder, open_folder
from tests.cluster.s3 import S3Server


@pytest.fixture
def storage(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """How the real S3 server is reached; its credentials are in the environment, as in a pod."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    return Storage(endpoint=s3_server.endpoint, region=s3_server.region)


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    return s3_server.make_bucket(f"models-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def folder(storage: Storage, bucket: str) -> Folder:
    return open_folder(f"s3://{bucket}/team/run one", storage)
