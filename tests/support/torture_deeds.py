"""What torture does to a rig: each deed at moments that a seed chooses."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import redis

from services.launcher.store import RULES
from tests.support.at_the_swap import Place
from tests.support.redis_proxy import Moment, RedisProxy, Trap, Way
from tests.support.torture_rig import AGGREGATOR, API, NODES, RIVAL, Rig
from tests.support.wait import wait_until

Deed = Callable[[Rig, random.Random], None]
_LEASE_S: Final = 1.0
_TRAPPED_S: Final = 15.0
_COMMIT, _SEND = b"EVALSHA", b"XADD"
_TAKEN: Final = ("-xadd", "-xtrim", "-hset", "-hdel", "-del", "-hmget", "-get", "-evalsha", "-xread", "-@all")
"""Single rights that are taken away; not all users have all of them."""


def elapse(seconds: float) -> None:
    """Let time pass: the moment is what the seed chose."""
    threading.Event().wait(seconds)


def aggregator_dies(rig: Rig, rng: random.Random) -> None:
    """Killed at any moment, with a commit under way, or carried out and not answered."""
    for _ in range(2):
        _at_some_moment(rig, rng, AGGREGATOR, _COMMIT, "dies", partial(_strike, rig, AGGREGATOR, signal.SIGKILL))
        rig.services[AGGREGATOR].kill()
        elapse(rng.uniform(0, 0.5))
        rig.mend()


def aggregator_stops(rig: Rig, rng: random.Random) -> None:
    """Stopped at any moment, for less or more than its lease."""
    for _ in range(2):
        _at_some_moment(rig, rng, AGGREGATOR, _COMMIT, "stops", partial(_strike, rig, AGGREGATOR, signal.SIGSTOP))
        elapse(rng.choice((0.1, 1.5 * _LEASE_S)))
        rig.mend()


def agent_dies(rig: Rig, rng: random.Random) -> None:
    """Killed at any moment, or between its sending and Redis's reply."""
    for _ in range(2):
        node = rng.choice(NODES)
        _at_some_moment(rig, rng, node, _SEND, "dies", partial(_strike, rig, node, signal.SIGKILL))
        rig.services[node].kill()
        elapse(rng.uniform(0, 0.5))
        rig.mend()


def agent_struck_in_its_swap(rig: Rig, rng: random.Random) -> None:
    """Killed or stopped before it swaps the kernel's tables, after, or while it reads them."""
    for _ in range(3):
        node, place = rng.choice(NODES), rng.choice([*Place])
        number = rng.choice((signal.SIGKILL, signal.SIGSTOP))
        rig.note(f"{node}: {number.name} {place}")
        struck = rig.order(node, place, number)
        wait_until(lambda struck=struck: not struck.exists(), f"{node} swaps", _TRAPPED_S)
        elapse(rng.uniform(0, 0.8))
        if number is signal.SIGKILL:
            rig.services[node].kill()
        rig.mend()


def agent_heard_late(rig: Rig, rng: random.Random) -> None:
    """Killed with a batch on its way that arrives long after, as a rule when its successor is known."""
    for _ in range(2):
        node = rng.choice(NODES)
        rig.note(f"{node} dies, and what it sent last is late")
        boot = rig.boot_of(node)
        act = partial(_strike, rig, node, signal.SIGKILL)
        trap = rig.proxies[node].trap(Trap(_SEND, Moment.LATE, act, skip=rng.randrange(3)))
        assert trap.closed.wait(_TRAPPED_S), f"no {_SEND.decode()} of {node}"
        rig.services[node].kill()
        elapse(rng.uniform(0, 0.5))
        rig.mend()
        if rng.random() < 0.7:
            rig.wait_for_agent(node, boot)
        rig.proxies[node].let_go()


def agent_stops(rig: Rig, rng: random.Random) -> None:
    """Stopped at any moment, or between its sending and Redis's reply."""
    for _ in range(3):
        node = rng.choice(NODES)
        _at_some_moment(rig, rng, node, _SEND, "stops", partial(_strike, rig, node, signal.SIGSTOP))
        elapse(rng.uniform(0, 0.8))
        rig.mend()


def api_dies(rig: Rig, rng: random.Random) -> None:
    """Killed and stopped while it reads."""
    for _ in range(2):
        number = rng.choice((signal.SIGKILL, signal.SIGSTOP))
        _at_some_moment(rig, rng, API, b"XREAD", number.name, partial(_strike, rig, API, number))
        elapse(rng.uniform(0, 0.5))
        if number is signal.SIGKILL:
            rig.services[API].kill()
        rig.mend()


def store_restarts(rig: Rig, rng: random.Random) -> None:
    """Killed at any moment, once it has a batch, or once it has a commit."""
    for _ in range(2):
        rig.wait_for_owner()
        name, command = rng.choice(((AGGREGATOR, _COMMIT), (rng.choice(NODES), _SEND)))
        _at_some_moment(rig, rng, name, command, "Redis dies", rig.server.kill)
        rig.server.kill()
        elapse(rng.uniform(0, 0.5))
        rig.server.start(*rig.options)
        rig.wait_for_totals()


def store_emptied(rig: Rig, rng: random.Random) -> None:
    """FLUSHALL at any moment, once it has a batch, or once it has a commit."""
    for _ in range(3):
        rig.wait_for_owner()
        name, command = rng.choice(((AGGREGATOR, _COMMIT), (rng.choice(NODES), _SEND)))
        _at_some_moment(rig, rng, name, command, "FLUSHALL", partial(_on_its_own, rig, "FLUSHALL"))
        rig.wait_for_totals()


def store_full(rig: Rig, rng: random.Random) -> None:
    """Others' keys fill it up to its limit while agents send and the aggregator commits, is killed or is stopped."""
    with _full(rig, rng):
        elapse(rng.uniform(0, 0.5))
        number = rng.choice((signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT))
        rig.note(f"{AGGREGATOR}: {number.name} while Redis is full")
        _strike(rig, AGGREGATOR, number)
        elapse(rng.choice((0.2, 1.5 * _LEASE_S)))
        if number is signal.SIGKILL:
            rig.services[AGGREGATOR].kill()
        rig.mend()
        elapse(rng.uniform(0, 1))


def all_lost(rig: Rig, rng: random.Random) -> None:
    """Redis and the aggregator die: a new session from 0, which is shown as one; agents live on, or die as well."""
    elapse(rng.uniform(0, 0.5))
    rig.settle(resume=False)
    before, shown = rig.session(), rig.overview()["uptime"]
    assert before is not None
    rig.note("Redis and the aggregator die")
    for end in rng.sample((rig.server.kill, rig.services[AGGREGATOR].kill), 2):
        end()
    rig.forget()
    rig.talk.resume()
    elapse(rng.uniform(0, 0.5))
    rig.server.start(*rig.options)
    rig.mend()
    rig.wait_for_totals()
    after = rig.session()
    assert after is not None
    assert (after.epoch != before.epoch, after.started_us > before.started_us) == (True, True)
    wait_until(lambda: rig.overview().get("uptime", shown) != shown, "it is shown", _TRAPPED_S)
    for node in NODES:
        rig.wait_for_agent(node)
    if rng.random() < 0.5:
        agent_dies(rig, rng)


def password_changes(rig: Rig, rng: random.Random) -> None:
    """A user's password is another one for a while, and its connections end."""
    user = rng.choice(tuple(RULES))
    rig.note(f"the password of {user} is another one")
    rig.admin.execute_command("ACL", "SETUSER", user, "resetpass", ">another")
    _disconnect(rig, user)
    elapse(rng.uniform(0.2, 1.5))
    rig.admin.execute_command("ACL", "SETUSER", user, "resetpass", f">{user}")


def rights_change(rig: Rig, rng: random.Random) -> None:
    """A user loses one right or all for a while; the aggregator may be killed meanwhile."""
    for _ in range(2):
        user, taken = rng.choice(("agent", "aggregator", "aggregator")), rng.choice(_TAKEN)
        rig.note(f"{user} loses {taken}")
        rig.admin.execute_command("ACL", "SETUSER", user, taken)
        elapse(rng.uniform(0.1, 1.5))
        if rng.random() < 0.5:
            rig.note(f"{AGGREGATOR} dies meanwhile")
            rig.services[AGGREGATOR].kill()
        rig.admin.execute_command("ACL", "SETUSER", user, "resetkeys", "nocommands", *RULES[user].split())
        rig.mend()


def rivals(rig: Rig, rng: random.Random) -> None:
    """Two aggregators of one shard: stopped, killed, and the store emptied under both."""
    rig.services[RIVAL].start()
    wait_until(lambda: rig.services[RIVAL].said("standing-by"), "the rival stands by")
    for _ in range(3):
        name = rng.choice((AGGREGATOR, RIVAL))
        deed = rng.choice(("stop", "kill", "flush"))
        rig.note(f"{name}: {deed}")
        if deed == "stop":
            _strike(rig, name, signal.SIGSTOP)
            elapse(rng.uniform(0.8, 2.0) * _LEASE_S)
            _strike(rig, name, signal.SIGCONT)
        elif deed == "kill":
            rig.services[name].kill()
        else:
            rig.wait_for_owner()
            _on_its_own(rig, "FLUSHALL")
            # A session survives where its aggregator does.
            rig.wait_for_totals()
        elapse(rng.uniform(0, 0.3))
        for one in (AGGREGATOR, RIVAL):
            if not rig.services[one].runs:
                rig.services[one].start()


def outage(rig: Rig, rng: random.Random) -> None:
    """The way to Redis is slow, cut, closed, half-open or a black hole, for some or all."""
    for _ in range(2):
        names = rng.sample((AGGREGATOR, API, *NODES), rng.randint(1, 4))
        ways = {name: rng.choice([way for way in Way if way is not Way.PASS]) for name in names}
        rig.note(f"outage: { ({name: way.value for name, way in ways.items()}) }")
        for name, way in ways.items():
            rig.proxies[name].set(way)
        elapse(rng.choice((0.3, 1.5 * _LEASE_S)))
        if rng.random() < 0.3:
            victim = rng.choice((AGGREGATOR, *NODES))
            rig.note(f"{victim} dies meanwhile")
            rig.services[victim].kill()
        for name in rng.sample(names, len(names)):
            rig.proxies[name].set(Way.PASS)
        rig.mend()


def cuts(rig: Rig, rng: random.Random) -> None:
    """Connections are cut again and again, and replies are lost."""
    for _ in range(20):
        proxy: RedisProxy = rig.proxies[rng.choice((AGGREGATOR, API, *NODES))]
        if rng.random() < 0.3:
            proxy.set(Way.MUTE)
            elapse(rng.uniform(0, 0.1))
            proxy.set(Way.PASS)
        else:
            proxy.cut()
        elapse(rng.uniform(0, 0.1))
    rig.note("connections were cut")


DEEDS: Final[Mapping[str, Deed]] = {
    deed.__name__.replace("_", "-"): deed
    for deed in (
        *(aggregator_dies, aggregator_stops, agent_dies, agent_struck_in_its_swap, agent_heard_late, agent_stops),
        *(api_dies, store_restarts, store_emptied, store_full, password_changes, rights_change, rivals, outage, cuts),
        all_lost,
    )
}


def everything(rig: Rig, rng: random.Random) -> None:
    """Three deeds, one upon the other, without waiting for what each did to heal."""
    # What is lost with a session is only known where all was well before.
    for name in rng.sample([name for name in DEEDS if DEEDS[name] is not all_lost], 3):
        DEEDS[name](rig, rng)


def _at_some_moment(
    rig: Rig, rng: random.Random, name: str, command: bytes, what: str, act: Callable[[], None]
) -> None:
    """Do it after a while, or at a request of `command` on its way to Redis, or before its reply is there."""
    moment: Moment | None = rng.choice((None, *Moment))
    elapse(rng.uniform(0, 0.3))
    if moment is None:
        rig.note(f"{name}: {what}")
        act()
        return
    rig.note(f"{name}: {what} {moment.value} {command.decode()}")
    trap = Trap(command, moment, act, skip=rng.randrange(3))
    closed = rig.proxies[name].trap(trap).closed
    assert closed.wait(_TRAPPED_S), f"no {command.decode()} of {name}"


def _strike(rig: Rig, name: str, number: signal.Signals) -> None:
    rig.services[name].signal(number)


def _on_its_own(rig: Rig, *command: str) -> None:
    """Run a command on a connection of its own: traps close in other threads."""
    client: Any
    with redis.Redis(unix_socket_path=str(rig.server.socket)) as client:
        client.execute_command(*command)


def _disconnect(rig: Rig, user: str) -> None:
    rig.admin.execute_command("CLIENT", "KILL", "USER", user)


@contextlib.contextmanager
def _full(rig: Rig, rng: random.Random) -> Iterator[None]:
    used = int(rig.admin.info("memory")["used_memory"])
    rig.note("Redis is full")
    rig.admin.config_set("maxmemory", used + rng.randrange(300_000))
    others: Sequence[str] = ()
    with contextlib.suppress(redis.exceptions.OutOfMemoryError):
        for at in range(1000):
            rig.admin.set(f"other:{at}", bytes(4096))
            others = (*others, f"other:{at}")
    try:
        yield
    finally:
        if others and rng.random() < 0.5:
            rig.admin.delete(*others)
        rig.admin.config_set("maxmemory", 0)
