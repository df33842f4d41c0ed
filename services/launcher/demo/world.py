"""The demo's world as one thing: made, filled with running pods, and removed without a trace."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.launcher.demo import namespaces, pod_process, session, wiring
from services.launcher.demo.directory import static_directory
from services.launcher.demo.plan import encode, only_ipv4
from services.launcher.demo.pod_process import PodFiles
from services.launcher.demo.topology import (
    INTERFACE_PREFIX,
    INTERNET_ROLE,
    NodeSpec,
    Pod,
    Topology,
    miniature_cluster,
)
from services.launcher.demo.traffic import demo_plan
from services.launcher.session import write_whole
from services.runtime.errors import PodloxxError

JOB_ALIVE_S: Final = 12.0
JOB_AWAY_S: Final = 8.0


@dataclass(frozen=True, slots=True)
class Node:
    """A node to capture on: its interfaces of pods start with `interface_prefix`."""

    name: str
    netns_path: Path
    interface_prefix: str


@dataclass(frozen=True, slots=True)
class JobCycle:
    """How long the batch pod is there and away, in seconds."""

    alive_s: float = JOB_ALIVE_S
    away_s: float = JOB_AWAY_S


class World:
    """Namespaces, links and files of one session.

    The methods block and enter namespaces: call them one at a time and not on the event loop's
    thread (`running` does so). `runtime_dir` holds the session's state, plan and directory file.
    """

    def __init__(
        self,
        session_name: str,
        runtime_dir: Path,
        seed: int = 1,
        *,
        ipv6: bool | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.session = session.checked(session_name)
        self.topology: Topology = miniature_cluster()
        self._runtime_dir = runtime_dir
        self._ipv6 = namespaces.has_ipv6() if ipv6 is None else ipv6
        plan = demo_plan(self.topology, seed, now())
        self.plan = plan if self._ipv6 else only_ipv4(plan)
        self._generations: dict[str, int] = {}  # how often each pod has come
        self._ours = False  # the session's name is claimed by this very object

    @property
    def nodes(self) -> list[Node]:
        """The nodes to capture on."""
        return [Node(node.name, namespaces.path_of(self._node(node)), INTERFACE_PREFIX) for node in self.topology.nodes]

    @property
    def directory_file(self) -> Path:
        """The static address file, in the aggregator's format."""
        return session.directory_file(self._runtime_dir, self.session)

    @property
    def plan_file(self) -> Path:
        """What the pods do."""
        return session.plan_file(self._runtime_dir, self.session)

    def netns_of(self, role: str) -> Path:
        """The namespace in which the process of `role` (pod, node or internet) lives."""
        if role == INTERNET_ROLE:
            return namespaces.path_of(self._internet())
        if any(node.name == role for node in self.topology.nodes):
            return namespaces.path_of(session.node_namespace(self.session, role))
        return namespaces.path_of(session.pod_namespace(self.session, role))

    def fixed_roles(self) -> list[str]:
        """The roles whose processes live as long as the world."""
        return [
            INTERNET_ROLE,
            *(node.name for node in self.topology.nodes),
            *(pod.role for pod in self.topology.fixed_pods()),
        ]

    def create(self) -> None:
        """Make everything but the batch pod; what was made is removed again when it fails.

        PrivilegeError without root; PodloxxError when the session's name is taken, for a kernel
        without bridges or veths, for a missing program. Idempotent.
        """
        if self._ours:
            return
        missing = pod_process.missing_tools()
        if missing:
            raise PodloxxError(f"The demo needs {' and '.join(missing)} from util-linux: install that package.")
        self._refuse_taken_name()
        self._ours = True
        try:
            self._runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write_files()
            self._make_nodes()
            for pod in self.topology.fixed_pods():
                self.add_pod(pod)
        except BaseException:
            self.destroy()
            raise

    def destroy(self) -> None:
        """Remove every namespace, link and file of the session that `create` made. Idempotent."""
        if not self._ours:
            return  # another's session may have the same name
        session.remove_namespaces(self.session)
        session.forget(self._runtime_dir, self.session)
        self._ours = False

    def add_pod(self, pod: Pod) -> None:
        """Make the pod's namespace and its link to its node's bridge."""
        generation = self._generations.get(pod.role, 0) + 1
        self._generations[pod.role] = generation
        namespace = session.pod_namespace(self.session, pod.role)
        node = self.topology.node(pod.node)
        namespaces.create(namespace)
        wiring.prepare(namespace, forwards=False, ipv6=self._ipv6)
        wiring.plug_pod(namespace, self._node(node), pod, node, self.link_of(pod), ipv6=self._ipv6)

    def remove_pod(self, pod: Pod) -> None:
        """Delete the pod's link and namespace, as its node would."""
        wiring.unplug_pod(self._node(self.topology.node(pod.node)), self.link_of(pod))
        namespaces.remove(session.pod_namespace(self.session, pod.role))

    def link_of(self, pod: Pod) -> str:
        """The node's side of the pod's present (or last) link."""
        generation = self._generations.get(pod.role, 1)
        return wiring.pod_link_name(self.session, pod.role, generation)

    def _refuse_taken_name(self) -> None:
        taken = session.namespaces_of(self.session)
        if taken:
            raise PodloxxError(
                f"The demo session {self.session} is there already ({len(taken)} network "
                "namespaces): end it, or start this one under another name."
            )

    def _write_files(self) -> None:
        session.claim(self._runtime_dir, self.session)
        write_whole(self.directory_file, static_directory(self.topology))
        write_whole(self.plan_file, encode(self.plan))

    def _make_nodes(self) -> None:
        internet = self._internet()
        namespaces.create(internet)
        wiring.prepare(internet, forwards=False, ipv6=self._ipv6)
        wiring.wire_internet(internet, self.topology, ipv6=self._ipv6)
        for node in self.topology.nodes:
            name = self._node(node)
            namespaces.create(name)
            wiring.prepare(name, forwards=True, ipv6=self._ipv6)
            wiring.wire_node(name, node, self.topology, ipv6=self._ipv6)
            wiring.join_internet(name, node, internet, ipv6=self._ipv6)
        first, second = (self._node(node) for node in self.topology.nodes)
        wiring.join_nodes(first, second, self.topology, ipv6=self._ipv6)

    def _node(self, node: NodeSpec) -> str:
        return session.node_namespace(self.session, node.name)

    def _internet(self) -> str:
        return session.internet_namespace(self.session)


class _Hands:
    """The one thread that works on a world, so that its steps never overlap."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="demo-world")

    async def do(self, work: Callable[[], None]) -> None:
        """Run `work` to its end, also when cancelled meanwhile: half a world cannot be removed."""
        future = asyncio.wrap_future(self._pool.submit(work))
        cancelled: asyncio.CancelledError | None = None
        while not future.done():
            try:
                await asyncio.shield(future)
            except asyncio.CancelledError as error:
                cancelled = error
            except Exception:  # noqa: BLE001  # told below, or less urgent than the cancel
                break
        if cancelled is not None:
            future.exception()
            raise cancelled
        future.result()

    def close(self) -> None:
        self._pool.shutdown(wait=True)


@contextlib.asynccontextmanager
async def running(
    session_name: str,
    runtime_dir: Path,
    seed: int = 1,
    *,
    job: JobCycle = JobCycle(),
    report_dir: Path | None = None,
) -> AsyncIterator[World]:
    """A world with its pods talking, for the time of the block; afterwards nothing is left.

    The batch pod comes and goes by `job`. With `report_dir` each process appends its counters
    there to `<role>.jsonl`. Errors as of World.create; PodloxxError ends the block when a pod's
    process keeps dying.
    """
    world = World(session_name, runtime_dir, seed)
    hands = _Hands()
    try:
        await hands.do(world.create)
        async with _pods(world, hands, job, PodFiles(world.plan_file, report_dir)):
            yield world
    finally:
        try:
            await hands.do(world.destroy)
        finally:
            hands.close()


@contextlib.asynccontextmanager
async def _pods(world: World, hands: _Hands, job: JobCycle, files: PodFiles) -> AsyncIterator[None]:
    failure: Exception | None = None
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(pod_process.keep(role, world.netns_of(role), files)) for role in world.fixed_roles()
            ]
            tasks += [
                group.create_task(_come_and_go(world, pod, hands, job, files))
                for pod in world.topology.pods
                if pod.batch
            ]
            try:
                yield
            except Exception as error:  # noqa: BLE001  # the block's own: not to be wrapped in a group
                failure = error
            finally:
                for task in tasks:
                    task.cancel()
    except ExceptionGroup as group_error:
        raise group_error.exceptions[0] from group_error
    if failure is not None:
        raise failure


async def _come_and_go(world: World, pod: Pod, hands: _Hands, cycle: JobCycle, files: PodFiles) -> None:
    while True:
        try:
            await hands.do(functools.partial(world.add_pod, pod))
            async with asyncio.timeout(cycle.alive_s):
                await pod_process.keep(pod.role, world.netns_of(pod.role), files)
        except TimeoutError:
            pass  # its work is done
        finally:
            await hands.do(functools.partial(world.remove_pod, pod))
        await asyncio.sleep(cycle.away_s)
