"""Each key has a number of its own, and is found among thousands."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.aggregator.index import Index
from services.flows.table import Words

Key = tuple[int, int]
keys = st.tuples(st.integers(0, 9), st.sampled_from([0, 1, 2**63, 2**64 - 1]))


def columns(listed: list[Key]) -> Words:
    """Keys as the index takes them."""
    return np.array(listed, np.uint64).reshape(-1, 2).T.copy()


@given(st.lists(st.tuples(st.booleans(), st.lists(keys, max_size=20)), max_size=20))
def test_it_is_a_dictionary(script: list[tuple[bool, list[Key]]]) -> None:
    index, known = Index(2), dict[Key, int]()
    for removes, listed in script:
        if removes:
            gone = sorted({known.pop(key) for key in listed if key in known})
            index.remove(np.array(gone, np.int64))
        else:
            known.update(zip(listed, index.add(columns(listed)).tolist(), strict=True))
        assert len(index) == len(set(known.values())) == len(known)
        assert index.find(columns(listed)).tolist() == [known.get(key, -1) for key in listed]
    for key, number in known.items():
        assert tuple(index.words(np.array([number]))[:, 0].tolist()) == key
    assert index.numbers(0, 0, 0).tolist() == sorted(known.values())


def test_it_grows_and_gives_numbers_again() -> None:
    index = Index(2)
    many = columns([(at, 7) for at in range(10_000)])
    assert sorted(index.add(many).tolist()) == list(range(10_000))
    for _ in range(20):
        index.remove(np.arange(5000, 10_000))
        assert len(index) == 5000
        assert sorted(index.add(many).tolist()) == list(range(10_000))
    assert index.capacity < 50_000
    assert index.numbers(0, 2**64 - 1, 4999).tolist() == index.find(many[:, 4999:5000]).tolist()
