"""Names in Redis."""

from __future__ import annotations

import re

from services.flows.keys import Keys, shard_of


def test_all_keys_of_a_shard_share_one_hash_tag() -> None:
    names = Keys(3)
    every = [
        names.flows,
        names.applied,
        names.totals,
        names.ticks,
        names.history,
        names.lease,
        names.fence,
        names.peers(7),
    ]
    assert len(set(every)) == len(every)
    assert {re.findall(r"\{(.*?)\}", name)[0] for name in every} == {"3"}


def test_a_node_stays_in_its_shard() -> None:
    assert shard_of("node-a", 1) == 0
    assert shard_of("node-a", 4) == shard_of("node-a", 4)
    assert len({shard_of(f"node-{at}", 4) for at in range(100)}) == 4
