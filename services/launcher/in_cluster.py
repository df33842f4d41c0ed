"""`podloxx-launch start`, `install`, `open` and `clean`: sessions in a cluster, from the preflight to the last object."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from services.launcher import deploy, forwarded, lease, network_facts, nodes, preflight, run, teardown
from services.launcher.context import Context, connected
from services.launcher.ending import Ending
from services.launcher.manifests import Chosen, objects, without_passwords
from services.launcher.progress import Interrupted, Progress
from services.launcher.refusal import asking
from services.launcher.run import Wanted
from services.launcher.status_line import StatusLine
from services.launcher.teardown import Found
from services.runtime.kubernetes_api import KubernetesApi


@dataclass(frozen=True, slots=True)
class Plan:
    """What the user asked for of a cluster."""

    context: Context
    chosen: Chosen
    keep: bool = False
    dry_run: bool = False


Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Look:
    """How a session is shown: after so many agents have reported, with a word on CTRL+C; `started` is monotonic."""

    agents: int
    note: str
    started: float | None = None


async def start(plan: Plan, wanted: Wanted) -> None:
    """Bring a session into the cluster, show it until the user wants the end, and remove it. Raises PodloxxError."""
    look = Look(1, "CTRL+C ends it and leaves nothing behind", time.monotonic())
    # A wrong option is told before anything is created.
    port = run.free_port(wanted.listen, wanted.port)
    ending = Ending()
    async with connected(plan.context) as api:
        if not await _may(api, plan):
            return
        with ending.heard():
            line = StatusLine()
            progress = Progress(run.echo, line.show, ending.requested)
            async with _session(api, plan, ending, progress) as session:
                if session is None:
                    return
                async with _renewing(api, session, run.echo):
                    try:
                        up = await _brought(api, plan, session, progress)
                    finally:
                        line.end()
                    if up:
                        await _show(api, plan.context, wanted, port, ending, look)


async def install(plan: Plan) -> None:
    """Bring podloxx into the cluster to stay; what does not come up is removed. Raises PodloxxError."""
    ending = Ending()
    async with connected(plan.context) as api:
        if not await _may(api, plan):
            return
        with ending.heard():
            line = StatusLine()
            progress = Progress(run.echo, line.show, ending.requested)
            up = False
            async with _session(api, plan, ending, progress, stays=lambda: up) as session:
                try:
                    up = session is not None and await _brought(api, plan, session, progress)
                finally:
                    line.end()
    if up:
        where = f"--namespace {plan.chosen.namespace} --context {plan.context.name}"
        print(
            f"podloxx is installed in the namespace {plan.chosen.namespace}\n"
            f"look at it:  podloxx-launch open {where}\nremove it:   podloxx-launch clean {where}",
            flush=True,
        )


async def attach(context: Context, wanted: Wanted) -> None:
    """Show what runs in the cluster already, and leave it there. Raises PodloxxError."""
    port = run.free_port(wanted.listen, wanted.port)
    ending = Ending()
    async with connected(context) as api:
        announce(context, api)
        await preflight.version(api)
        preflight.refuse(await preflight.missing(api, context.namespace, preflight.VIEWER_RIGHTS), context.namespace)
        with ending.heard():
            note = "CTRL+C ends the view; podloxx goes on in the cluster"
            await _show(api, context, wanted, port, ending, Look(0, note))


async def clean(context: Context, namespace: str, *, everything: bool) -> None:
    """Remove sessions whose launcher is gone, or those that are named. Raises PodloxxError."""
    async with connected(context) as api:
        announce(context, api)
        with asking("it cannot be seen what is there", api.server):
            await teardown.clean(api, namespace, everything=everything, say=print)


def announce(context: Context, api: KubernetesApi) -> None:
    """Say which cluster it is about, before anything is done there."""
    print(f"context {context.name} ({api.server}), namespace {context.namespace}", flush=True)


async def _may(api: KubernetesApi, plan: Plan) -> bool:
    """Whether to go on after the preflight; raises PodloxxError where the cluster does not allow it."""
    if plan.dry_run:
        print(deploy.shown(list(without_passwords(objects(plan.chosen)))))
        return False
    announce(plan.context, api)
    await preflight.version(api)
    preflight.refuse(await preflight.missing(api, plan.chosen.namespace), plan.chosen.namespace)
    listed = await nodes.listed(api)
    nodes.told(listed, run.echo)
    found = await network_facts.known(api, listed)
    network_facts.told(listed, found, plan.chosen.agent.get("capture", "auto"), run.echo)
    return True


@asynccontextmanager
async def _session(
    api: KubernetesApi, plan: Plan, ending: Ending, progress: Progress, stays: Callable[[], bool] = lambda: False
) -> AsyncIterator[Found | None]:
    """A claimed session, which is removed at the end unless it `stays`; None where the end came first."""
    try:
        session = await deploy.claim(api, plan.chosen, progress)
    except Interrupted:
        yield None
        return
    ending.by_hand = teardown.by_hand(session)
    try:
        yield session
    finally:
        if plan.keep:
            print(f"kept: the namespace {session.namespace}; `podloxx-launch clean` removes it", flush=True)
        elif not stays():
            await _removed(api, session, ending)


async def _removed(api: KubernetesApi, session: Found, ending: Ending) -> None:
    """Remove a session and prove it; raises LeftoverError."""
    started, line = time.monotonic(), StatusLine()
    try:
        await teardown.remove(api, session, line.show, ending.at_once)
    finally:
        line.end()
    print(f"removed from the cluster: 0 objects left ({time.monotonic() - started:.1f} s)", flush=True)


@asynccontextmanager
async def _renewing(api: KubernetesApi, session: Found, say: Say) -> AsyncIterator[None]:
    """Renew the session's lease while inside; raises PodloxxError where the session is gone."""

    def told(problem: str) -> None:
        say(problem or "the lease is renewed again")

    async with asyncio.TaskGroup() as tasks:
        renewing = tasks.create_task(lease.keep(api, session.namespace, session.uid, told))
        try:
            yield
        finally:
            renewing.cancel()


async def _brought(api: KubernetesApi, plan: Plan, session: Found, progress: Progress) -> bool:
    """Whether all of a session came up; False where the end was requested before."""
    try:
        await deploy.deploy(api, plan.chosen, session, progress)
    except Interrupted:
        return False
    return True


async def _show(api: KubernetesApi, context: Context, wanted: Wanted, port: int, ending: Ending, look: Look) -> None:
    """Show what is in the cluster until the end is requested."""
    async with forwarded.rig(api, context.namespace, wanted, ending.requested, run.echo) as one:
        ending.on_hurry = one.children.kill
        await one.service("api", {**wanted.api, **one.way, "listen": wanted.listen, "port": port})
        await one.wait_ready(wanted, run.base_url(wanted, port), agents=look.agents)
        if look.started is not None and not ending.requested.is_set():
            print(f"first traffic after {time.monotonic() - look.started:.1f} s", flush=True)
        await run.show(one, wanted, port, note=look.note)
