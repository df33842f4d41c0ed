"""What agent and aggregator take of memory while everything around them breaks again and again."""

from __future__ import annotations

import random
import signal
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Final

from services.flows.keys import FROZEN_BATCHES
from tests.support.chaos import anonymous_kb
from tests.support.redis_proxy import Way
from tests.support.torture_deeds import elapse
from tests.support.torture_rig import AGGREGATOR, API, NAMES, NODES, Rig, rig
from tests.support.wait import wait_until

_FLUSH_S: Final = 0.05
_TEN_MINUTES: Final = 600
"""Flushes in ten minutes, at one a second."""
_MOST_GROWTH_KB: Final = 1024
_WATCHED: Final = (AGGREGATOR, *NODES)
_EMPTIED: Final = "the store is emptied"
MOST_KB: Final = (77 << 10) + (80 << 10)
"""What docs/delivery.md says: what is not sent, and all else that a process takes in this small world."""


def test_memory_does_not_grow_while_everything_breaks(folder: Path, flushes: int) -> None:
    """Time is compressed: memory follows the flushes, of which there are twenty in a second."""
    rng = random.Random(5)
    with rig(folder, 5, _FLUSH_S) as one:
        _break_for(one, rng, 100)
        samples: dict[str, list[int]] = defaultdict(list)
        for _ in range(8):
            _break_for(one, rng, flushes // 8)
            _rest(one)
            for name in _WATCHED:
                samples[name].append(_anonymous_kb(one, name))
        one.settle()
    for name, seen in samples.items():
        assert max(seen) < MOST_KB, (name, seen)
        grown = statistics.median(seen[-3:]) - statistics.median(seen[:3])
        # Between the middles of both ends lie five eighths of all flushes.
        assert grown <= _MOST_GROWTH_KB * max(1, flushes * 5 / 8 / _TEN_MINUTES), (name, seen)


def _break_for(one: Rig, rng: random.Random, flushes: int) -> None:
    left_s = flushes * _FLUSH_S
    while left_s > 0:
        what, for_s = rng.choice((*Way, None, _EMPTIED)), rng.uniform(0.05, 0.4)
        left_s -= for_s
        if what == _EMPTIED:
            one.admin.flushall()
            elapse(for_s)
            continue
        if what is None:
            one.services[AGGREGATOR].signal(signal.SIGSTOP)
            elapse(for_s)
            one.services[AGGREGATOR].signal(signal.SIGCONT)
            continue
        names = rng.sample((AGGREGATOR, API, *NODES), rng.randint(1, 4))
        for name in names:
            one.proxies[name].set(what)
        elapse(for_s)
        for name in names:
            one.proxies[name].set(Way.PASS)


def _rest(one: Rig) -> None:
    """Wait until what waited is sent: what an outage holds is no growth."""
    wait_until(lambda: one.admin.xlen(NAMES.flows) < FROZEN_BATCHES, "the stream is short again")
    elapse(0.3)


def _anonymous_kb(one: Rig, name: str) -> int:
    process = one.services[name].process
    assert process is not None
    assert one.services[name].runs, (name, process.returncode, one.services[name].events()[-5:])
    return anonymous_kb(process.pid)
