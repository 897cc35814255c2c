"""`finetune-operator run`: connect, watch, reconcile, until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from finetune_operator.controller import Controller
from finetune_operator.handlers import first, stop_at_signals, watch_jobs
from finetune_operator.logs import set_up
from finetune_operator.metrics import Metrics, Standing
from finetune_operator.serve import serving
from finetune_operator.worlds.kube.client import TROUBLE, Client, NoCluster
from finetune_operator.worlds.kube.hearing import ProgressOptions, hear, progress_options, read_progress_url
from finetune_operator.worlds.kube.kind import served
from finetune_operator.worlds.kube.platform import DEFAULTS, Platform, read_env, read_trusted_ca
from finetune_operator.worlds.kube.world import KubeWorld

T = TypeVar("T")

log = logging.getLogger(__name__)

SWEEP_SECONDS = 600.0
DRAIN_SECONDS = 10.0
"""For the reconciles under way, when told to stop."""
ALL = "all"


async def run(
    client: Client,
    *,
    namespace: str | None,
    trainer_image: str,
    listen: str,
    platform: Platform = DEFAULTS,
    progress: ProgressOptions | None = None,
) -> None:
    """Operate one cluster, or one namespace of it, until a signal to end arrives or a part of the operator breaks."""
    stop = asyncio.Event()
    world: KubeWorld
    controller: Controller
    metrics = Metrics(
        depth=lambda: len(controller.queue),
        watch_ages=lambda: world.watch_ages(),
        standings=lambda: map(Standing._make, world.standings()),
    )
    client.asked = metrics.asked
    world = KubeWorld(
        client, namespace=namespace, default_image=trainer_image, platform=platform, written=metrics.written
    )
    controller = Controller(world, clock=client.clock.now, observed=metrics.reconciled)

    async def sweep() -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                await world.drop_ghosts()
            except TROUBLE as error:
                log.warning("FineTuneJobs could not be listed: %s", error or type(error).__name__)

    async def hear_trainers() -> None:
        if progress is None:
            return
        await world.synced()  # before that, every pod would be a stranger
        try:
            await hear(world, client, progress, metrics.posted)
        except Exception:
            log.exception("Trainers are not heard any more. Their jobs go on.")

    async def all_is_there() -> None:
        await world.synced()  # before that, children would seem to be missing
        await served(client, namespace)

    async with client, serving(listen, metrics, world.dead_watches, world.unready) as port:
        log.info("Serving /healthz, /readyz and /metrics on port %d.", port)
        parts = [asyncio.create_task(part()) for part in (*world.watches, world.pulse, sweep)]
        hearing = asyncio.create_task(hear_trainers())
        stop_at_signals(stop)  # until kopf takes over
        try:
            await first(all_is_there(), stop.wait(), *parts)
            if not stop.is_set():
                parts.append(asyncio.create_task(controller.run()))
                await asyncio.sleep(0)  # its workers exist before kopf counts the tasks that are not its own
                for part in parts:
                    part.add_done_callback(lambda _: stop.set())
                log.info("Watching FineTuneJobs in %s.", f"namespace {namespace}" if namespace else "all namespaces")
                if progress is None:
                    log.info("How far trainings are is not shown: --progress-url is not given.")
                await watch_jobs(world, client, namespace=namespace, stop=stop)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(controller.queue.drain(), DRAIN_SECONDS)
        finally:
            broken = [part for part in parts if part.done()]
            for part in (*parts, hearing):
                part.cancel()
            await asyncio.gather(*parts, hearing, return_exceptions=True)
        for part in broken:
            part.result()
    log.info("Stopped. Trainings go on without the operator.")


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    set_up(options.log_format)
    try:
        client = Client.from_environment()
    except NoCluster as error:
        sys.exit(f"finetune-operator: {error}")
    namespace = None if options.namespace == ALL else options.namespace
    platform = Platform(
        fixed_ids=options.fixed_ids,
        env=tuple(options.trainer_env),
        trusted_ca=options.trainer_trusted_ca,
        allowed_pod_keys=tuple(options.allow_pod_keys),
    )
    asyncio.run(
        run(
            client,
            namespace=namespace,
            trainer_image=options.trainer_image,
            listen=options.listen,
            platform=platform,
            progress=progress_options(options.progress_url, options.progress_listen, options.progress_secret),
        )
    )


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
