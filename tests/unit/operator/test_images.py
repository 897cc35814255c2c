"""Which image a run had, by what its node says."""

from __future__ import annotations

import pytest

from finetune_api.status import RunStatus
from finetune_operator.worlds.images import digest_of, pinned_image

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("image", "image_id"),
    [
        ("registry.example/ml/trainer:1", f"registry.example/ml/trainer@{DIGEST}"),
        ("registry.example:5000/trainer:1", f"registry.example:5000/trainer@{DIGEST}"),
        ("registry.example:5000/trainer", f"registry.example:5000/trainer@{DIGEST}"),
        ("registry.example/trainer:1", f"docker-pullable://registry.example/trainer@{DIGEST}"),
        ("registry.example/trainer:1", f"registry.example/trainer:1@{DIGEST}"),
        (f"registry.example/trainer@{DIGEST}", f"registry.example/trainer@{DIGEST}"),
        ("trainer:1", f"docker.io/library/trainer@{DIGEST}"),
        ("ml/trainer", f"docker.io/ml/trainer@{DIGEST}"),
        ("index.docker.io/ml/trainer:1", f"docker.io/ml/trainer@{DIGEST}"),
        ("localhost/trainer:1", f"localhost/trainer@{DIGEST}"),
    ],
)
def test_a_digest_of_the_same_repository_is_known(image: str, image_id: str) -> None:
    assert digest_of(image, image_id) == DIGEST


@pytest.mark.parametrize(
    ("image", "image_id"),
    [
        ("registry.example/trainer:1", ""),
        ("registry.example/trainer:1", DIGEST),  # loaded by hand
        ("registry.example/trainer:1", "registry.example/trainer:1"),
        ("registry.example/trainer:1", f"mirror.example/trainer@{DIGEST}"),
        ("registry.example/trainer:1", f"registry.example/other@{DIGEST}"),
        ("registry.example/trainer:1", "registry.example/trainer@md5:0"),
        ("localhost/trainer:1", f"docker.io/localhost/trainer@{DIGEST}"),
    ],
)
def test_what_nobody_could_pull_by_that_name_is_no_digest(image: str, image_id: str) -> None:
    assert digest_of(image, image_id) is None


@pytest.mark.parametrize(
    ("image", "pinned"),
    [
        ("registry.example:5000/trainer:1", f"registry.example:5000/trainer@{DIGEST}"),
        ("registry.example:5000/trainer", f"registry.example:5000/trainer@{DIGEST}"),
        ("trainer", f"trainer@{DIGEST}"),
    ],
)
def test_a_pinned_image_is_asked_for_by_its_digest(image: str, pinned: str) -> None:
    run = RunStatus(id="r", uri="s3://a/r", fingerprint="f", image=image, image_digest=DIGEST)
    assert pinned_image(run) == pinned
    assert pinned_image(run.model_copy(update={"image_digest": None})) == image
