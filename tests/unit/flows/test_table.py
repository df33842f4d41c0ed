"""Grouping, adding and folding of flow rows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.flows import table
from services.flows.delta import COUNTERS, FLOW, FLOW_KEY, Kind, Rows
from tests.unit.flows.strategies import flow_rows


def by_dict(rows: Rows) -> dict[bytes, list[int]]:
    """The sums per key, the slow way."""
    sums: dict[bytes, list[int]] = {}
    for row in rows:
        entry = sums.setdefault(row.tobytes()[: FLOW_KEY.itemsize], [0] * len(COUNTERS))
        for at, name in enumerate(COUNTERS):
            entry[at] += int(row[name])
    return sums


@given(st.lists(flow_rows(), max_size=4))
def test_combine_adds_equal_keys_and_nothing_else(tables: list[Rows]) -> None:
    combined = table.combine(tables)
    every = np.concatenate(tables) if tables else np.zeros(0, FLOW)
    assert by_dict(combined) == by_dict(every)
    assert len(combined) == len(by_dict(every))


@given(flow_rows(most=30), st.integers(0, 10))
def test_folding_keeps_the_sums_of_every_attachment(rows: Rows, limit: int) -> None:
    folded = table.fold_excess(rows, limit)
    for attachment in np.unique(rows["attachment"]):
        for name in COUNTERS:
            mine = rows[name][rows["attachment"] == attachment].sum()
            assert folded[name][folded["attachment"] == attachment].sum() == mine
    assert len(folded) <= max(limit, len(np.unique(rows["attachment"])) * 2)


def test_folding_keeps_the_largest() -> None:
    rows = np.zeros(5, FLOW)
    rows["attachment"], rows["peer_lo"] = 1, range(5)
    rows["tx_bytes"] = [5, 100, 7, 90, 1]
    folded = table.fold_excess(rows, 3)
    kept = folded[folded["kind"] == Kind.IP]
    assert sorted(kept["tx_bytes"]) == [90, 100]
    assert folded[folded["kind"] == Kind.FOLDED]["tx_bytes"].tolist() == [13]


def test_keys_whose_hashes_collide_stay_apart(monkeypatch: object) -> None:
    rows = np.zeros(4, FLOW)
    rows["peer_lo"] = [1, 2, 1, 3]
    rows["tx_bytes"] = [1, 10, 100, 1000]
    constant = lambda columns, _: np.zeros(len(columns[0]), np.uint64)  # noqa: E731
    monkeypatch.setattr(table, "hashes", constant)  # type: ignore[attr-defined]
    assert sorted(table.combine([rows])["tx_bytes"]) == [10, 101, 1000]


def test_sums_are_exact_beyond_what_a_double_holds() -> None:
    rows = np.zeros(2, FLOW)
    rows["tx_bytes"] = [2**60 + 1, 2]
    assert int(table.combine([rows])["tx_bytes"][0]) == 2**60 + 3
