"""`finetune-operator run`: the command line of the operator, which works until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from finetune_operator.logs import set_up
from finetune_operator.operate import Operator
from finetune_operator.worlds.kube.client import Client, NoCluster
from finetune_operator.worlds.kube.hearing import progress_options, read_progress_url
from finetune_operator.worlds.kube.platform import Platform, read_env, read_trusted_ca

T = TypeVar("T")

ALL = "all"


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    set_up(options.log_format)
    try:
        client = Client.from_environment()
    except NoCluster as error:
        sys.exit(f"finetune-operator: {error}")
    asyncio.run(operate(client, options))


async def operate(client: Client, options: argparse.Namespace) -> None:
    platform = Platform(
        fixed_ids=options.fixed_ids,
        env=tuple(options.trainer_env),
        trusted_ca=options.trainer_trusted_ca,
        allowed_pod_keys=tuple(options.allow_pod_keys),
    )
    operator = Operator(
        client,
        namespace=None if options.namespace == ALL else options.namespace,
        trainer_image=options.trainer_image,
        platform=platform,
        progress=progress_options(
            options.progress_url, options.progress_listen, options.progress_secret, options.address
        ),
        lease=options.lease,
    )
    await operator.run(options.listen)


def read_lease(text: str) -> tuple[str, str]:
    """Namespace and name. Raises ValueError for anything else."""
    namespace, _, name = text.partition("/")
    if not namespace or not name or "/" in name:
        raise ValueError(f"{text!r} is no Lease; write NAMESPACE/NAME")
    return namespace, name


def parser() -> argparse.ArgumentParser:
    """Of the command line. Raises SystemExit for what is none."""
    command_line = argparse.ArgumentParser(prog="finetune-operator", description="Fine-tune models on Kubernetes.")
    commands = command_line.add_subparsers(required=True, metavar="COMMAND")
    run_command = commands.add_parser("run", help="operate the FineTuneJobs of a cluster until stopped")
    image = os.environ.get("FINETUNE_TRAINER_IMAGE")
    run_command.add_argument(
        "--trainer-image",
        default=image,
        required=image is None,
        help="trainer image of jobs that name none (default: $FINETUNE_TRAINER_IMAGE)",
    )
    run_command.add_argument("--namespace", default=ALL, help="the one namespace to watch (default: all)")
    run_command.add_argument(
        "--allow-pod-keys",
        action="append",
        default=[],
        metavar="KEY|DOMAIN",
        help="label or annotation of another system, such as istio.io, that spec.pod may carry; may be given again",
    )
    run_command.add_argument(
        "--trainer-env",
        action="append",
        default=[],
        type=_explained(read_env),
        metavar="NAME=VALUE",
        help="an environment variable of every training pod, such as HTTPS_PROXY; may be given many times",
    )
    run_command.add_argument(
        "--trainer-trusted-ca",
        type=_explained(read_trusted_ca),
        metavar="NAME/KEY",
        help="the ConfigMap, in each namespace with jobs, whose key holds certificate authorities that training pods trust",
    )
    run_command.add_argument(
        "--fixed-ids",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether training pods ask for a fixed user, group and fsGroup; OpenShift chooses them itself (default: yes)",
    )
    run_command.add_argument("--log-format", choices=("text", "json"), default="text", help="default: text")
    run_command.add_argument(
        "--listen",
        default=":8080",
        metavar="[HOST]:PORT",
        help="where /healthz, /readyz and /metrics are (default: :8080)",
    )
    run_command.add_argument(
        "--lease",
        type=_explained(read_lease),
        metavar="NAMESPACE/NAME",
        help="the Lease that one of several replicas holds, the one that acts; without it this operator acts, "
        "and no other one may",
    )
    run_command.add_argument(
        "--address",
        default="",
        metavar="HOST",
        help="where other replicas reach this one, such as the address of its pod",
    )
    run_command.add_argument(
        "--progress-url",
        type=_explained(read_progress_url),
        metavar="https://HOST[:PORT]/progress",
        help="where training pods reach --progress-listen to tell how far they are; without it nobody hears them",
    )
    run_command.add_argument(
        "--progress-listen", default=":8443", metavar="[HOST]:PORT", help="where trainers are heard (default: :8443)"
    )
    run_command.add_argument(
        "--progress-secret",
        default="default/finetune-operator-progress",
        metavar="NAMESPACE/NAME",
        help="the Secret for its certificate, which the operator fills if it is empty",
    )
    return command_line


def _explained(read: Callable[[str], T]) -> Callable[[str], T]:
    """`read` as argparse calls it, which says nothing of a ValueError but that there was one."""

    def read_argument(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read_argument


if __name__ == "__main__":
    main()
