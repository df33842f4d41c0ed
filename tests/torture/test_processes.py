"""Real agents, aggregator, API and Redis, broken at seeded moments: each byte is in the totals once."""

from __future__ import annotations

import random

import pytest

from tests.support.torture_deeds import DEEDS, everything
from tests.support.torture_shared import Shared


@pytest.mark.parametrize("deed", DEEDS)
def test_nothing_is_lost_and_nothing_counts_twice(shared: Shared, deed: str, seed: int) -> None:
    with shared.use() as one:
        DEEDS[deed](one, random.Random(f"{deed} {seed}"))
        one.mend()
        one.settle()


def test_one_upon_the_other(shared: Shared, seed: int) -> None:
    with shared.use() as one:
        everything(one, random.Random(seed))
        one.mend()
        one.settle()
