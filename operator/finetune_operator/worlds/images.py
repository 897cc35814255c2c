"""Names of container images: which repository one is of, and what one that was pulled really was."""

from __future__ import annotations

from finetune_api.status import RunStatus

_DEFAULT_REGISTRY = "docker.io"


def pinned_image(run: RunStatus) -> str | None:
    """The image to start this run with: by its digest where that is known, whatever its tag says by now."""
    if run.image is None or not run.image_digest:
        return run.image
    return f"{_repository(run.image)}@{run.image_digest}"


def digest_of(image: str, image_id: str) -> str | None:
    """The digest in what a node says about an image that it has pulled, such as `registry.example/trainer@sha256:…`.

    None where the node names another repository, such as a mirror's, or none at all, as for an image loaded by hand: nobody could
    pull that digest by this name.
    """
    name, _, digest = image_id.removeprefix("docker-pullable://").partition("@")
    known = digest.startswith("sha256:") and _full(_repository(name)) == _full(_repository(image))
    return digest if known else None


def is_of_the_same(image: str | None, other: str | None) -> bool:
    """Whether both are of one repository, whatever their tags and digests."""
    return image is not None and other is not None and _full(_repository(image)) == _full(_repository(other))


def _repository(image: str) -> str:
    """Without tag and digest; a registry's port is part of it."""
    name = image.partition("@")[0]
    path, slash, last = name.rpartition("/")
    return f"{path}{slash}{last.partition(':')[0]}"


def _full(repository: str) -> str:
    """With the registry that a short name leaves out."""
    first, slash, _ = repository.partition("/")
    if not slash:
        return f"{_DEFAULT_REGISTRY}/library/{repository}"
    if "." in first or ":" in first or first == "localhost":
        return repository.replace("index.docker.io/", f"{_DEFAULT_REGISTRY}/", 1)
    return f"{_DEFAULT_REGISTRY}/{repository}"
