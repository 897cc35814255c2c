"""The `finetune` command: run, estimate, validate and render manifests without a cluster."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from finetune_api import KIND
from finetune_api.job import FineTuneJob
from finetune_api.manifest import Document, ManifestError, dump, load, resolve_paths, set_values
from finetune_api.problems import InvalidManifest, validate as validate_manifest
from finetune_operator.cli.inputs import missing_inputs
from finetune_operator.cli.validate import NO_JOB, Verdicts, is_ours, name_of

RUN_EXIT_CODES = """\b
Exit codes:
  0    done, or finished already
  1    the job failed; the reason and what to do are printed
  2    the manifest or an option is wrong; nothing was started
  3    the model is trained and does not reach what spec.acceptance asks for
  130  stopped by Ctrl-C; the same command goes on
"""
ESTIMATE_EXIT_CODES = """\b
Exit codes:
  0    done
  1    the job does not fit in what its resources allow, or its model cannot be read
  2    the manifest or an option is wrong
"""
FAILED = 1
EXIT_CODES = """\b
Exit codes:
  0    all is well
  2    the manifest or an option is wrong
"""

Manifest = click.Path(exists=True, dir_okay=False, allow_dash=False, path_type=Path)
Manifests = click.Path(exists=True, allow_dash=True, path_type=Path)


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
    job = _of_this_machine(file, name, settings, inputs=("model", "dataset"))
    if trainer is None:
        _need_torch("finetune run trains on this machine")
    from finetune_operator.cli.run import command_line, run as run_job  # not needed to validate

    sys.exit(run_job(job.metadata.name, _written(job), Console(), command_line(), trainer))


@main.command(epilog=ESTIMATE_EXIT_CODES)
@click.argument("file", type=Manifest)
@click.option("--set", "settings", multiple=True, metavar="PATH=VALUE", help="Change a field: --set method.type=lora.")
@click.option("--name", help="Which job, when FILE holds several.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.pass_obj
def estimate(
    estimator: Sequence[str] | None, file: Path, settings: tuple[str, ...], name: str | None, output: str
) -> None:
    """Say how much memory the job in FILE takes, and on which GPUs it fits.

    Of the model its settings are read and what its weights are called, not the weights; of the data nothing. Plain paths in FILE
    count from its folder. Credentials come from the environment, such as AWS_ACCESS_KEY_ID or HF_TOKEN.
    """
    job = _of_this_machine(file, name, settings, inputs=("model",))
    if estimator is None:
        _need_torch("finetune estimate looks at the model as the trainer does")
    from finetune_operator.cli.estimate import ESTIMATOR, NoEstimate, estimate as estimate_job, lines

    try:
        found = estimate_job(_written(job), estimator or ESTIMATOR)
    except NoEstimate as reason:
        click.echo(str(reason), err=True)
        sys.exit(FAILED)
    text = json.dumps(found.wire(), indent=2) if output == "json" else "\n".join(lines(job.metadata.name, found))
    click.echo(text)
    if found.fits is False:
        sys.exit(FAILED)


@main.command(epilog=EXIT_CODES)
@click.argument("paths", metavar="FILE…", type=Manifests, nargs=-1, required=True)
@click.option("--local", is_flag=True, help="Check them for `finetune run`: plain paths, results in files.")
@click.option("-R", "--recursive", is_flag=True, help="Look into the folders of a folder too.")
def validate(paths: tuple[Path, ...], local: bool, recursive: bool) -> None:
    """Check manifests as strictly as the API server does, and say everything that is wrong with them.

    FILE is a file with any number of manifests, a folder of files, or - for standard input, as for kubectl. The verdict is that
    of a cluster, without asking one: what only a cluster knows, such as its quota and its policies, is not checked. With --local
    it is that of `finetune run`.
    """
    verdicts = Verdicts(local=local)
    for good, said in verdicts.of(paths, recursive=recursive):
        click.echo(said, err=not good)
    if verdicts.bad:
        sys.exit(_Refused.exit_code)


@main.command(epilog=EXIT_CODES)
@click.argument("file", type=Manifest)
@click.option("--set", "settings", multiple=True, metavar="PATH=VALUE", help="Change a field: --set training.epochs=1.")
@click.option("--name", help="Which job, when FILE holds several.")
@click.option("--namespace", default="default", show_default=True, help="Where the job would be applied.")
@click.option("--trainer-image", help="The operator's default trainer image, for a job that names none.")
@click.option("--allow-pod-keys", multiple=True, metavar="KEY|DOMAIN", help="As of the operator; may be given again.")
def render(
    file: Path,
    settings: tuple[str, ...],
    name: str | None,
    namespace: str,
    trainer_image: str | None,
    allow_pod_keys: tuple[str, ...],
) -> None:
    """Print the Kubernetes Job that the operator would create for the job in FILE."""
    from finetune_operator.cli.render import NothingToCreate, render as render_job

    job = _valid(_set(_one_job(file, name), settings), cluster=True)
    try:
        click.echo(dump(render_job(job, namespace, trainer_image, allow_pod_keys)), nl=False)
    except NothingToCreate as reason:
        raise _Refused(str(reason)) from reason


def _of_this_machine(file: Path, name: str | None, settings: tuple[str, ...], inputs: tuple[str, ...]) -> FineTuneJob:
    """The job in `file`, changed by `settings`, of whose `inputs` those that are paths are there."""
    written = _set(_one_job(file, name), settings)
    # What was set by an option is not in the file, so it does not count from there.
    resolved = _resolved(_set(_resolved(_one_job(file, name), file.parent), settings), Path.cwd())
    job = _valid(resolved)
    if missing := missing_inputs(written, resolved, job, inputs):
        raise _Refused(str(InvalidManifest(missing)))
    return job


def _written(job: FineTuneJob) -> dict[str, Any]:
    return job.spec.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _need_torch(why: str) -> None:
    if importlib.util.find_spec("torch") is None:
        raise _Refused(f"{why} and needs torch: pip install '.[cli,trainer]' in a clone of its repository")


def _documents(file: Path) -> list[Document]:
    try:
        return load(file)
    except ManifestError as error:
        raise _Refused(str(error)) from error


def _jobs(file: Path, documents: list[Document]) -> list[Document]:
    jobs = [document for document in documents if is_ours(document)]
    if not jobs:
        raise _Refused(f"{file}: {NO_JOB}")
    return jobs


def _one_job(file: Path, name: str | None) -> Document:
    jobs = _jobs(file, _documents(file))
    names = [name_of(job) for job in jobs]
    if name is None and len(set(names)) > 1:
        raise _Refused(f"the file holds {len(jobs)} jobs; choose one with --name: {', '.join(dict.fromkeys(names))}")
    wanted = [job for job in jobs if name in (None, name_of(job))]
    if not wanted:
        raise _Refused(f"there is no {KIND} named {name}; there is {', '.join(dict.fromkeys(names))}")
    if len(wanted) > 1:
        raise _Refused(
            f"the file holds {len(wanted)} jobs named {name_of(wanted[0])}; rename one, or put each into a file of its own"
        )
    return wanted[0]


def _valid(document: Document, *, cluster: bool = False) -> FineTuneJob:
    try:
        return validate_manifest(document, cluster=cluster)
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


class _Refused(click.ClickException):
    """A wrong manifest: said in full, exit code 2."""

    exit_code = 2

    def show(self, file: object = None) -> None:
        click.echo(self.message, err=True)


if __name__ == "__main__":
    main()
