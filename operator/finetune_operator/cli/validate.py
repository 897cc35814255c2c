"""`finetune validate`: the verdict of the API server, or that of `finetune run`, on everything in some files and folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path

from finetune_api import GROUP, KIND
from finetune_api.job import FineTuneJob
from finetune_api.manifest import STDIN, Document, ManifestError, load, resolve_paths
from finetune_api.problems import InvalidManifest, Problem, validate
from finetune_operator.cli.inputs import missing_inputs
from finetune_operator.decide.pod_keys import foreign_keys

SUFFIXES = (".yaml", ".yml", ".json")
"""What kubectl takes for manifests in a folder."""


@dataclass
class Verdicts:
    """What was found, in the order of the files."""

    local: bool
    bad: int = 0
    _names: dict[tuple[str | None, str], str] = field(default_factory=dict)

    def of(self, paths: Sequence[Path], *, recursive: bool) -> Iterator[tuple[bool, str]]:
        """Whether it is well, and what to say, for each manifest below `paths`; what is named twice is looked at once."""
        seen: set[Path] = set()
        for path in paths:
            found = list(_files(path, recursive=recursive))
            if not found:
                said = f"holds no file that ends with {', '.join(SUFFIXES)}; name another folder"
                yield self._count(False), f"{path}: {said}"
            new = [file for file in found if file.resolve() not in seen]
            seen.update(file.resolve() for file in new)
            jobs = 0
            for file in new:
                try:
                    documents = load(file)
                except ManifestError as error:
                    yield self._count(False), str(error)
                    jobs += 1  # as may be
                    continue
                for document in documents:
                    jobs += is_ours(document)
                    yield self._verdict(document, Path() if str(file) == STDIN else file.parent)
            if new and not jobs:
                yield self._count(False), f"{path}: {NO_JOB}"

    def _count(self, good: bool) -> bool:
        self.bad += not good
        return good

    def _verdict(self, document: Document, base: Path) -> tuple[bool, str]:
        place, name = document.place(()), name_of(document)
        if not is_ours(document):
            return True, f"{place}: {document['kind']} {name} is not checked"
        try:
            job = self._judge(document, base)
        except (InvalidManifest, ManifestError) as error:
            return self._count(False), f"{error}{self._would_run_here(document, base)}"
        if twin := self._twin(document):
            return self._count(False), str(twin)
        created = "" if document["metadata"].get("name") else " for kubectl create; apply needs a name"
        # Not the API server's verdict, but that of the operator, and only the platform knows it.
        foreign = [] if self.local else [where for where, _ in foreign_keys(job.spec, ())]
        only_if = f"; it starts only where the platform allows {', '.join(foreign)}" if foreign else ""
        return self._count(True), f"{place}: {name} is valid{created}{only_if}"

    def _judge(self, document: Document, base: Path) -> FineTuneJob:
        if not self.local:
            return validate(document, cluster=True)
        resolved = resolve_paths(document, base)
        job = validate(resolved)
        if missing := missing_inputs(document, resolved, job):
            raise InvalidManifest(missing)
        return job

    def _twin(self, document: Document) -> Problem | None:
        metadata = document["metadata"]
        if not metadata.get("name"):
            return None
        key = (metadata.get("namespace"), metadata["name"])
        place = document.place(("metadata", "name"))
        first = self._names.setdefault(key, place)
        if first is place:
            return None
        return Problem(
            "metadata.name",
            f'"{key[1]}" is the name of the job in {first} too',
            "another name for each job of a namespace",
            "Rename one of the two: the second would be taken for a change of the first.",
            place,
        )

    def _would_run_here(self, document: Document, base: Path) -> str:
        if self.local:
            return ""
        try:
            validate(resolve_paths(document, base))
        except (InvalidManifest, ManifestError):
            return ""
        return "\n    As a job of this machine (`finetune run`) it is valid: check it with --local."


NO_JOB = f"holds no {KIND}; name a file that does, or correct its kind"


def is_ours(document: Document) -> bool:
    """Whether it is a FineTuneJob or was meant as one: of our group, of a kind spelt much like it, or of none at all."""
    kind, version = document.get("kind"), document.get("apiVersion")
    if not isinstance(kind, str) or not isinstance(version, str):
        return True
    return version.partition("/")[0] == GROUP or SequenceMatcher(None, kind.lower(), KIND.lower()).ratio() > 0.8


def name_of(document: Document) -> str:
    metadata = document.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    name = metadata.get("name") or metadata.get("generateName")
    return name if isinstance(name, str) else "(without a name)"


def _files(path: Path, *, recursive: bool) -> Iterator[Path]:
    if str(path) == STDIN or not path.is_dir():
        yield path
        return
    for file in sorted(path.rglob("*") if recursive else path.iterdir()):
        if file.suffix in SUFFIXES and file.is_file():
            yield file
