"""The `finetune` command: run, validate and render manifests without a cluster."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher
from io import TextIOWrapper
from pathlib import Path

import click
from rich.console import Console

from finetune_api import GROUP, KIND
from finetune_api.job import FineTuneJob
from finetune_api.manifest import Document, ManifestError, dump, load, resolve_paths, set_values
from finetune_api.problems import InvalidManifest, validate as validate_manifest
from finetune_operator.cli.paths import as_path

RUN_EXIT_CODES = """\b
Exit codes:
  0    done, or finished already
  1    the job failed; the reason and what to do are printed
  2    the manifest or an option is wrong; nothing was started
  130  stopped by Ctrl-C; the same command goes on
"""
EXIT_CODES = """\b
Exit codes:
  0    all is well
  2    the manifest or an option is wrong
"""

Manifest = click.Path(exists=True, dir_okay=False, allow_dash=False, path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="finetune-operator", prog_name="finetune")
def main() -> None:
    """Fine-tune models from one small manifest, here or in a cluster."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a character still gets the sentence


@main.command(epilog=RUN_EXIT_CODES)
@click.argument("file", type=Manifest)
@click.option("--set", "settings", multiple=True, metavar="PATH=VALUE", help="Change a field: --set training.epochs=1.")
@click.option("--output", metavar="DIR", help="Where the results go, instead of spec.output.uri; s3://… too.")
@click.option("--name", help="Which job, when FILE holds several.")
@click.pass_obj
def run(
    trainer: Sequence[str] | None, file: Path, settings: tuple[str, ...], output: str | None, name: str | None
) -> None:
    """Run the job in FILE on this machine.

    Ctrl-C saves and suspends, a second Ctrl-C stops at once. The same command goes on where it stopped; a finished run is not
    trained again. Plain paths in FILE count from its folder, those in --set and --output from where you are. Credentials come
    from the environment, such as AWS_ACCESS_KEY_ID or HF_TOKEN.
    """
    if output is not None:
        settings = (*settings, f"output.uri={json.dumps(output)}")
    written = _set(_one_job(file, name), settings)
    # What was set by an option is not in the file, so it does not count from there.
    resolved = _resolved(_set(_resolved(_one_job(file, name), file.parent), settings), Path.cwd())
    job = _valid(resolved)
    _say_missing_inputs(written, resolved)
    if trainer is None and importlib.util.find_spec("torch") is None:
        raise _Refused(
            "finetune run trains on this machine and needs torch: pip install 'finetune-operator[cli,trainer]'"
        )
    from finetune_operator.cli.run import command_line, run as run_job  # not needed to validate

    spec = job.spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    sys.exit(run_job(job.metadata.name, spec, Console(), command_line(), trainer))


@main.command(epilog=EXIT_CODES)
@click.argument("files", type=Manifest, nargs=-1, required=True)
def validate(files: tuple[Path, ...]) -> None:
    """Check manifests as strictly as the API server does, and say everything that is wrong with them."""
    refused: list[_Refused] = []

    @contextmanager
    def going_on() -> Iterator[None]:
        try:
            yield
        except _Refused as refusal:
            refusal.show()
            refused.append(refusal)

    for file in files:
        with going_on():
            documents = _documents(file)
            for document in documents:
                with going_on():
                    click.echo(f"{document.place(())}: {_verdict(document, file.parent)}")
            _jobs(file, documents)
    if refused:
        sys.exit(_Refused.exit_code)


@main.command(epilog=EXIT_CODES)
@click.argument("file", type=Manifest)
@click.option("--set", "settings", multiple=True, metavar="PATH=VALUE", help="Change a field: --set training.epochs=1.")
@click.option("--name", help="Which job, when FILE holds several.")
@click.option("--namespace", default="default", show_default=True, help="Where the job would be applied.")
@click.option("--trainer-image", help="The operator's default trainer image, for a job that names none.")
def render(file: Path, settings: tuple[str, ...], name: str | None, namespace: str, trainer_image: str | None) -> None:
    """Print the Kubernetes Job that the operator would create for the job in FILE."""
    from finetune_operator.cli.render import NothingToCreate, render as render_job

    job = _valid(_resolved(_set(_one_job(file, name), settings), file.parent))
    try:
        click.echo(dump(render_job(job, namespace, trainer_image)), nl=False)
    except NothingToCreate as reason:
        raise _Refused(str(reason)) from reason


def _documents(file: Path) -> list[Document]:
    try:
        return load(file)
    except ManifestError as error:
        raise _Refused(str(error)) from error


def _verdict(document: Document, base: Path) -> str:
    if not _is_ours(document):
        return f"{document['kind']} {_name(document)} is not checked"
    return f"{_valid(_resolved(document, base)).metadata.name} is valid"


def _is_ours(document: Document) -> bool:
    """Whether it is a FineTuneJob or was meant as one: of our group, of a kind spelt much like it, or of none at all."""
    kind, version = document.get("kind"), document.get("apiVersion")
    if not isinstance(kind, str) or not isinstance(version, str):
        return True
    return version.partition("/")[0] == GROUP or SequenceMatcher(None, kind.lower(), KIND.lower()).ratio() > 0.8


def _jobs(file: Path, documents: list[Document]) -> list[Document]:
    jobs = [document for document in documents if _is_ours(document)]
    if not jobs:
        raise _Refused(f"{file}: holds no {KIND}; name a file that does, or correct its kind")
    return jobs


def _name(document: Document) -> str:
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else "(without a name)"


def _one_job(file: Path, name: str | None) -> Document:
    jobs = _jobs(file, _documents(file))
    names = [_name(job) for job in jobs]
    if name is not None:
        if name not in names:
            raise _Refused(f"there is no {KIND} named {name}; there is {', '.join(names)}")
        return jobs[names.index(name)]
    if len(jobs) > 1:
        raise _Refused(f"the file holds {len(jobs)} jobs; choose one with --name: {', '.join(names)}")
    return jobs[0]


def _valid(document: Document) -> FineTuneJob:
    try:
        return validate_manifest(document)
    except InvalidManifest as error:
        raise _Refused(str(error)) from error


def _set(document: Document, settings: tuple[str, ...]) -> Document:
    try:
        return set_values(document, settings)
    except ManifestError as error:
        raise _Refused(str(error)) from error


def _resolved(document: Document, base: Path) -> Document:
    try:
        return resolve_paths(document, base)
    except ManifestError as error:
        raise _Refused(str(error)) from error


def _say_missing_inputs(written: Document, resolved: Document) -> None:
    """Refuse a model or dataset that is no longer, or never was, on this machine; most often it is meant to be the hub's."""
    for name in ("model", "dataset"):
        uri = resolved["spec"][name]["uri"]
        if not uri.startswith("file:") or Path(as_path(uri)).exists():
            continue
        meant = written["spec"][name]["uri"]
        is_hub_name = re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", meant)
        remedy = f"for a {name} of the hub write hf://{meant}" if is_hub_name else "correct the path"
        place = resolved.place(("spec", name, "uri"))
        raise _Refused(f"{place}: spec.{name}.uri: there is nothing at {as_path(uri)}; {remedy}")


class _Refused(click.ClickException):
    """A wrong manifest: said in full, exit code 2."""

    exit_code = 2

    def show(self, file: object = None) -> None:
        click.echo(self.message, err=True)


if __name__ == "__main__":
    main()
