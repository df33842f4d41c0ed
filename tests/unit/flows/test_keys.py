"""Names in Redis."""

from __future__ import annotations

import re

from services.flows.keys import Keys


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
