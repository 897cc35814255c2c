"""`finetune-operator run`: connect, watch, reconcile, until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Collection, Sequence
from typing import NoReturn, TypeVar

from finetune_operator.controller import Controller
from finetune_operator.handlers import first, stop_at_signals, watch_jobs
from finetune_operator.logs import set_up
from finetune_operator.metrics import Metrics, Standing
from finetune_operator.serve import serving
from finetune_operator.worlds.kube.client import TROUBLE, Client, NoCluster
from finetune_operator.worlds.kube.hearing import ProgressOptions, hear, progress_options, read_progress_url
from finetune_operator.worlds.kube.kind import served
from finetune_operator.worlds.kube.leadership import Alone, Leadership
from finetune_operator.worlds.kube.platform import DEFAULTS, Platform, read_env, read_trusted_ca
from finetune_operator.worlds.kube.progress_server import PATH
from finetune_operator.worlds.kube.relay import Relay
from finetune_operator.worlds.kube.world import KubeWorld

T = TypeVar("T")

log = logging.getLogger(__name__)

SWEEP_SECONDS = 600.0
FOLLOW_SECONDS = 60.0
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
    lease: tuple[str, str] | None = None,
) -> None:
    """Operate one cluster, or one namespace of it, until a signal to end arrives or a part of the operator breaks.

    With a Lease, by its namespace and name, only as long as this operator holds it; until then it watches.
    """
    stop, acts = asyncio.Event(), asyncio.Event()
    leadership = Leadership(client, *lease, end_at_once) if lease else Alone()
    world: KubeWorld
    controller: Controller
    metrics = Metrics(
        depth=lambda: len(controller.queue),
        watch_ages=lambda: world.watch_ages(),
        standings=lambda: map(Standing._make, world.standings()),
        leads=lambda: leadership.leads,
    )
    client.asked = metrics.asked
    world = KubeWorld(
        client, namespace=namespace, default_image=trainer_image, platform=platform, written=metrics.written
    )
    world.ensure_leading = leadership.ensure
    controller = Controller(world, clock=client.clock.now, observed=metrics.reconciled, leads=acts)
    relay = Relay(world, leadership, progress.hosts[0], PATH) if progress else None

    async def sweep() -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                await world.drop_ghosts()
            except TROUBLE as error:
                log.warning("FineTuneJobs could not be listed: %s", error or type(error).__name__)

    async def hear_trainers() -> None:
        if progress is None or relay is None:
            return
        await world.synced()  # before that, every pod would be a stranger
        try:
            await hear(world, client, progress, relay, leadership, metrics.posted)
        except Exception:
            log.exception("Trainers are not heard any more. Their jobs go on.")

    async def all_is_there() -> None:
        await world.synced()  # before that, children would seem to be missing
        await served(client, namespace)

    async def begin_to_act() -> None:
        while not leadership.elected.is_set():
            world.follow()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FOLLOW_SECONDS):
                    await leadership.elected.wait()
        if lease:
            world.lead()
        if relay:
            relay.lead()
        acts.set()
        await stop.wait()

    async def step_down() -> None:
        await stop.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await controller.queue.drain()
        for part in acting:
            part.cancel()
        await asyncio.gather(*acting, return_exceptions=True)
        await leadership.resign()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await world.all_told()  # of what is written already, whoever leads by now

    def unready(seconds: float) -> Collection[str]:
        return [*world.unready(seconds), *filter(None, [leadership.away()])]

    acting: list[asyncio.Task[None]] = []
    async with client, serving(listen, metrics, world.dead_watches, unready) as port:
        log.info("Serving /healthz, /readyz and /metrics on port %d.", port)
        parts = [asyncio.create_task(part()) for part in (*world.watches, world.pulse, sweep)]
        hearing, stepping_down = asyncio.create_task(hear_trainers()), asyncio.create_task(step_down())
        stop_at_signals(stop)  # until kopf takes over
        try:
            await first(all_is_there(), stop.wait(), *parts)
            if not stop.is_set():
                acting += [asyncio.create_task(part()) for part in (leadership.run, begin_to_act, controller.run)]
                parts += acting
                await asyncio.sleep(0)  # its workers exist before kopf counts the tasks that are not its own
                for part in parts:
                    part.add_done_callback(lambda _: stop.set())
                log.info("Watching FineTuneJobs in %s.", f"namespace {namespace}" if namespace else "all namespaces")
                if progress is None:
                    log.info("How far trainings are is not shown: --progress-url is not given.")
                await watch_jobs(world, client, namespace=namespace, stop=stop)
        finally:
            broken = [part for part in parts if part.done() and not part.cancelled()]
            stop.set()
            await stepping_down
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
            progress=progress_options(
                options.progress_url, options.progress_listen, options.progress_secret, options.address
            ),
            lease=options.lease,
        )
    )


def end_at_once(why: str) -> NoReturn:
    """Another operator leads, or soon will: nothing that is under way here may be written any more."""
    log.error("This operator does not lead any longer, and so it ends: %s.", why)
    logging.shutdown()
    os._exit(1)


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
        help="the Lease, which has to be there, that one of several replicas holds, the one that acts; without it this operator acts, "
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
