"""Redis, two agents on real links, aggregators and an API as processes, each behind a proxy of its own."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import redis

from services.flows import history, keys, peer_store, traffic
from services.flows.traffic import ROW_COUNTERS, ByScope
from services.launcher.store import RULES
from tests.support import at_the_swap
from tests.support.cables import Cable, cable
from tests.support.netns import Counters, Namespace, namespaces, veth
from tests.support.redis_proxy import RedisProxy
from tests.support.redis_server import RedisServer
from tests.support.served import free_port
from tests.support.stepped_clock import SteppedClock
from tests.support.talk import Line, Talk
from tests.support.wait import wait_until

NAMES: Final = keys.Keys(0)
NODES: Final = ("node-a", "node-b")
AGGREGATOR, RIVAL, API = "aggregator", "rival", "api"
_USER: Final = {AGGREGATOR: "aggregator", RIVAL: "aggregator", API: "viewer", **dict.fromkeys(NODES, "agent")}
_SETTLED_S: Final = 30.0
_LOOKED: Final = ("standing-by", "session-begins", "session-continues")
"""What an aggregator says first of the shard."""
_SEEN: Final = ("tx_bytes", "tx_packets", "rx_bytes", "rx_packets")
_AT: Final = tuple(ROW_COUNTERS.index(name) for name in _SEEN)

_ROOT: Final = Path(__file__).parents[2]
"""Where agents find the module that strikes them."""

T = TypeVar("T")
Seen = tuple[int, int, int, int]
"""Bytes and packets that a pod sent, then those that reached it."""


@dataclass(slots=True)
class Service:
    """One service as a process that can be ended and started again."""

    name: str
    argv: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    stopped: bool = False
    starts: int = 0

    @property
    def runs(self) -> bool:
        """Whether it lives, stopped or not."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it; its log begins anew."""
        assert not self.runs
        self.starts += 1
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self.argv, stderr=log, stdout=log, cwd=_ROOT)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; quiet where it has ended."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.stopped = number is signal.SIGSTOP or (self.stopped and number is not signal.SIGCONT)

    def kill(self) -> None:
        """Kill it and wait until it is gone."""
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        self.stopped = False

    def events(self) -> list[dict[str, Any]]:
        """What it logged since it was started last."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def said(self, event: str) -> bool:
        """Whether it logged an event since it was started last."""
        return any(one.get("event") == event for one in self.events())


@dataclass(slots=True)
class Rig:
    """All of it; `did` tells what happened, for the report of a failure."""

    server: RedisServer
    options: tuple[str, ...]
    admin: Any
    lines: Sequence[Line]
    talk: Talk
    proxies: dict[str, RedisProxy]
    services: dict[str, Service]
    folder: Path
    port: int
    base: list[Counters]
    clock: SteppedClock | None = None
    """Redis's, where it is ours to step."""
    cables: dict[str, Cable] = field(default_factory=dict)
    """By service its way to Redis, where that is one of its own."""
    did: list[str] = field(default_factory=list)
    whole_history: bool = True
    """Not where the clock was stepped."""
    gaps: tuple[int, int] = (0, 0)
    """How often agents were started by the last check, and the packets in their gaps by then."""

    def note(self, what: str) -> None:
        """Remember what was done."""
        self.did.append(what)

    def start_agent(self, node: str) -> None:
        """Start an agent; its pod is silent until the agent sees it."""
        at = NODES.index(node)
        self.talk.pause(at)
        self.lines[at].counters()
        self.services[node].start()
        wait_until(lambda: self.services[node].said("attached"), f"the agent of {node} sees its pod", _SETTLED_S)
        self.talk.resume(at)

    def mend(self) -> None:
        """Start what has ended, let go on what is stopped."""
        for name, service in self.services.items():
            service.signal(signal.SIGCONT)
            if not service.runs and name != RIVAL:
                self.note(f"{name} is started again")
                self.start_agent(name) if name in NODES else service.start()

    def wait_for_owner(self) -> None:
        """Wait until a living aggregator has the totals in its memory: together with the store they would be lost.

        Of one that was killed at most one commit is still on its way. One that has just started is to know that there is
        an owner: where it finds nothing when it first looks, it begins a new session.
        """
        for name in (AGGREGATOR, RIVAL):
            service = self.services[name]
            if service.runs and not service.stopped:
                wait_until(lambda service=service: any(map(service.said, _LOOKED)), f"{name} has looked", _SETTLED_S)
        session = wait_until(lambda: self.without_failing(self.session), "there is a session", _SETTLED_S)
        assert session is not None

        def goes_on() -> bool:
            now = self.without_failing(self.session)
            return now is not None and (now.epoch != session.epoch or now.n >= session.n + 2)

        wait_until(goes_on, "an aggregator commits", _SETTLED_S)

    def wait_for_totals(self) -> None:
        """Wait until the aggregator has written its totals again: lost together with it they begin anew."""
        wait_until(lambda: self.without_failing(self.session), "the totals are there again", _SETTLED_S)

    def wait_for_agent(self, node: str, before: str = "") -> None:
        """Wait until the totals have a batch of another agent of the node than that of the boot id `before`."""
        wait_until(lambda: self.boot_of(node) not in {"", before}, f"the agent of {node} is known", _SETTLED_S)

    def boot_of(self, node: str) -> str:
        """The boot id of the agent that the totals know; empty where they know none."""
        now = self.without_failing(self.session)
        return now.nodes[node].boot if now is not None and node in now.nodes else ""

    def stored(self) -> dict[str, Seen]:
        """What the totals in Redis hold per node."""
        sums: dict[str, Counter[int]] = {node: Counter() for node in NODES}
        for name, value in self._hash(NAMES.totals).items():
            if name.startswith(b"row:"):
                row = traffic.decode_row(int(name[4:]), value)
                sums[row.identity.node].update(dict(enumerate(_seen(row.totals))))
        return {node: (sums[node][0], sums[node][1], sums[node][2], sums[node][3]) for node in NODES}

    def truth(self) -> dict[str, Seen]:
        """What the interfaces counted since the rig began, from the pods' view."""
        found = [line.counters() - base for line, base in zip(self.lines, self.base, strict=True)]
        return {
            node: (one.rx_bytes, one.rx_packets, one.tx_bytes, one.tx_packets)
            for node, one in zip(NODES, found, strict=True)
        }

    def session(self) -> traffic.Session | None:
        """The session in Redis, if there is one."""
        value = self._hash(NAMES.totals).get(b"session")
        return None if value is None else traffic.decode_session(value)

    def agents_started(self) -> int:
        """How often."""
        return sum(self.services[node].starts for node in NODES)

    def order(self, node: str, place: at_the_swap.Place, number: signal.Signals) -> Path:
        """Have a node's agent send itself a signal in its next swap; the file that is gone when it does."""
        path = order_path(self.folder, node)
        at_the_swap.order(path, place, number)
        return path

    def forget(self) -> None:
        """From now on a new session is the truth."""
        self.base = [line.counters() for line in self.lines]
        self.gaps = self.agents_started(), 0

    def settle(self, *, resume: bool = True) -> None:
        """Check that everything that passed is in the totals, once, wherever they are told."""
        self.talk.pause()
        truth = self.truth()

        def is_there() -> bool:
            stored = self.without_failing(self.stored)
            assert stored is None or not _exceeds(stored, truth), self._why(stored, truth)
            return stored == truth

        try:
            wait_until(is_there, "the totals are the truth", _SETTLED_S)
        except AssertionError as error:
            raise AssertionError(self._why(self.without_failing(self.stored), truth)) from error
        self._wait_for_later_batches()
        assert self.stored() == truth, self._why(self.stored(), truth)
        self._check_sums(truth)
        try:
            wait_until(lambda: self._served() == truth, "the API says the truth", _SETTLED_S)
        except AssertionError as error:
            raise AssertionError(f"the API says {self._served()}\n{self._why(self.stored(), truth)}") from error
        if resume:
            self.talk.resume()

    def overview(self) -> dict[str, Any]:
        """The API's overview; empty where there is none."""
        return self._get("/traffic/overview")

    def is_current(self) -> bool:
        """Whether the API says that what it serves is of now."""
        return bool(self._get("/readyz"))

    def _why(self, stored: object, truth: object) -> str:
        did = "\n  ".join(self.did)
        logs = {name: service.events()[-4:] for name, service in self.services.items() if service.starts}
        faults = {name: dict(proxy.did) for name, proxy in self.proxies.items()}
        said = "\n  ".join(f"{name}: {event}" for name, events in logs.items() for event in events)
        return f"stored {stored}\ntruth  {truth}\n{self.session()}\ndone:\n  {did}\nfaults: {faults}\nlogs:\n  {said}"

    def _wait_for_later_batches(self) -> None:
        """Batches are applied in order: with two more of an agent all that it sent before has been judged."""
        session = self.session()
        assert session is not None
        boots = {report.boot.encode() for report in session.nodes.values()}
        before = {boot: int(self._hash(NAMES.applied)[boot]) for boot in boots}
        wait_until(
            lambda: all(int(self._hash(NAMES.applied)[boot]) >= seq + 2 for boot, seq in before.items()),
            "later batches are applied",
            _SETTLED_S,
        )

    def _check_sums(self, truth: dict[str, Seen]) -> None:
        """The other places that tell what passed agree, but for gaps of which the cluster takes the surest part."""
        session = self.session()
        assert session is not None
        every = [sum(column) for column in zip(*truth.values(), strict=True)]
        cluster = _seen(session.cluster)
        assert cluster[0] + cluster[2] + session.overlap_bytes == every[0] + every[2], (cluster, session, every)
        rows = [int(name[4:]) for name in self._hash(NAMES.totals) if name.startswith(b"row:")]
        peers = [peer for row in rows for peer in peer_store.decode_peers(self._hash(NAMES.peers(row)))]
        assert [sum(peer.counts[at] for peer in peers) for at in _AT] == every
        buckets = [history.decode(value) for value in self._hash(NAMES.history).values()]
        pairs = [pair for bucket in buckets for scopes in bucket.values() for pair in scopes.values()]
        told = [sum(pair[at] for pair in pairs) for at in (0, 1)]
        if self.whole_history:
            assert told == [every[0], every[2]]
        else:
            assert all(one <= two for one, two in zip(told, (every[0], every[2]), strict=True))
        gaps = self.agents_started(), session.loss.get("agent-gap", 0)
        assert gaps == self.gaps or gaps[0] > self.gaps[0], f"{gaps}, {self.gaps}: a gap, and no agent died"
        self.gaps = gaps

    def _served(self) -> dict[str, Seen]:
        found = {node: [0, 0, 0] for node in NODES}
        for pod in self._get("/traffic/total").values():
            for scope in pod["scopes"].values():
                for at, name in enumerate(("transmitBytes", "receivedBytes", "packets")):
                    found[pod["node"]][at] += scope[name]
        stored = self.stored()
        # The API adds up the packets of both directions.
        return {node: (one[0], stored[node][1], one[1], one[2] - stored[node][1]) for node, one in found.items()}

    def _get(self, path: str) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 200:
                found: dict[str, Any] = json.loads(body)
                return found
        return {}

    def _hash(self, name: str) -> dict[bytes, bytes]:
        return dict(self.admin.hgetall(name))

    @staticmethod
    def without_failing(read: Callable[[], T]) -> T | None:
        """What is read of Redis; None where it fails."""
        try:
            return read()
        except redis.RedisError:
            return None


def order_path(folder: Path, node: str) -> Path:
    """Where the agent of a node looks for orders."""
    return folder / f"{node}.order"


def _seen(scopes: ByScope) -> list[int]:
    return [sum(counts[at] for counts in scopes.values()) for at in _AT]


def _exceeds(stored: dict[str, Seen], truth: dict[str, Seen]) -> bool:
    return any(one > two for node in NODES for one, two in zip(stored[node], truth[node], strict=True))


@contextlib.contextmanager
def rig(folder: Path, seed: int, flush_s: float = 0.1, *, apart: bool = False) -> Iterator[Rig]:
    """A rig at work: agents see their pods, first batches are in the totals, the pods talk.

    With `apart` Redis has a clock of its own, and agents and aggregator reach it through networks of their own.
    """
    server = RedisServer(folder)
    passwords = _access(folder)
    options = ("--aclfile", str(folder / "users.acl"), "--maxmemory-policy", "noeviction")
    with contextlib.ExitStack() as stack:
        found = stack.enter_context(namespaces("a", "ap", "b", "bp"))
        lines = [_line(found[at], found[at + 1], at) for at in (0, 2)]
        talk = stack.enter_context(Talk(lines, seed))
        clock = stack.enter_context(contextlib.closing(SteppedClock(folder))) if apart else None
        server.environment = clock.environment if clock else {}
        server.start(*options)
        stack.callback(server.kill)
        admin = stack.enter_context(redis.Redis(unix_socket_path=str(server.socket)))
        spaces = {node: line.node for node, line in zip(NODES, lines, strict=True)}
        cables = {}
        if apart:
            hub, spaces[AGGREGATOR] = stack.enter_context(namespaces("hub", "alone"))
            cables = {name: cable(hub, space, at) for at, (name, space) in enumerate(spaces.items())}
        bound = {name: one.listening for name, one in cables.items()}
        proxies = {
            name: stack.enter_context(RedisProxy(folder / f"{name}.sock", server.socket, seed, bound.get(name)))
            for name in _USER
        }
        port = free_port()
        inside = {name: space.command() for name, space in spaces.items()}
        services = _services(folder, proxies, passwords, lines, inside, (port, flush_s))
        for service in services.values():
            stack.callback(service.kill)
        base = [line.counters() for line in lines]
        one = Rig(server, options, admin, lines, talk, proxies, services, folder, port, base, clock, cables)
        for name in (AGGREGATOR, API, *NODES):
            services[name].start()
        for node in NODES:
            wait_until(lambda node=node: services[node].said("attached"), f"{node} sees its pod", _SETTLED_S)
        wait_until(lambda: _reported(one), "both agents are known", _SETTLED_S)
        wait_until(one.overview, "the API answers", _SETTLED_S)
        one.gaps = one.agents_started(), 0
        talk.resume()
        yield one


def _reported(one: Rig) -> bool:
    session = one.session()
    return session is not None and set(session.nodes) == set(NODES)


def _line(node: Namespace, pod: Namespace, at: int) -> Line:
    node_address, pod_address = f"10.9.{at}.1", f"10.9.{at}.2"
    # Pods that no directory knows are shown by their interface's name, of which the API shows the newest.
    name = f"veth{at}"
    veth(node, name, pod, f"{pod_address}/24")
    node.ip(f"addr add {node_address}/24 dev {name}")
    # Nobody is to ask whether his neighbour is still there after the talk was paused.
    node.ip(f"neigh replace {pod_address} lladdr {_hardware(pod, 'eth0')} dev {name} nud permanent")
    pod.ip(f"neigh replace {node_address} lladdr {_hardware(node, name)} dev eth0 nud permanent")
    return Line(node, pod, name, node_address, pod_address)


def _hardware(namespace: Namespace, interface: str) -> str:
    [link] = json.loads(namespace.run("ip", "-json", "link", "show", "dev", interface))
    return str(link["address"])


def _access(folder: Path) -> dict[str, Path]:
    lines = ["user default on nopass ~* &* +@all"]
    files = {}
    for user, rules in RULES.items():
        files[user] = folder / f"{user}.password"
        files[user].write_text(user)
        lines.append(f"user {user} on #{hashlib.sha256(user.encode()).hexdigest()} {rules}")
    (folder / "users.acl").write_text("\n".join([*lines, ""]))
    return files


def _services(
    folder: Path,
    proxies: dict[str, RedisProxy],
    passwords: dict[str, Path],
    lines: Sequence[Line],
    inside: Mapping[str, Sequence[str]],
    at: tuple[int, float],
) -> dict[str, Service]:
    port, flush_s = at

    def service(name: str, module: str, *more: str, order: Sequence[str] = ()) -> Service:
        user = _USER[name]
        argv = [
            *(*inside.get(name, ()), sys.executable, "-m", module, *order, f"--redis-url={proxies[name].url}"),
            *(f"--redis-user={user}", f"--redis-password-file={passwords[user]}", "--log-format=json", *more),
        ]
        return Service(name, argv, folder / f"{name}.log")

    services = {
        name: service(name, "services.aggregator", "--lease-ttl-s=1", "--tick-interval-s=0.05")
        for name in (AGGREGATOR, RIVAL)
    }
    services[API] = service(API, "services.api", f"--port={port}")
    for node, line in zip(NODES, lines, strict=True):
        flags = (f"--node={node}", f"--interface={line.interface}", f"--flush-interval-s={flush_s}")
        order = [str(order_path(folder, node))]
        services[node] = service(node, at_the_swap.__name__, *flags, order=order)
    return services
