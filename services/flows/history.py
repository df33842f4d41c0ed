"""The last 15 minutes as the store holds them: one bucket of 5 seconds at a time, and its codec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from services.flows.scope import SCOPES, Scope
from services.flows.traffic import VERSION, TrafficError, pack, unpack

Numbers = npt.NDArray[np.int64]
_NUMBER: Final = {scope: number for number, scope in enumerate(SCOPES)}


class Passed(NamedTuple):
    """Bytes of a row and scope in one bucket of the history; `ingress` as in `ROW_COUNTERS`."""

    tx_bytes: int = 0
    rx_bytes: int = 0
    tx_ingress_bytes: int = 0
    rx_ingress_bytes: int = 0


def encode(bucket: Mapping[int, Mapping[Scope, Passed]]) -> bytes:
    """One bucket of the history: row -> scope -> `Passed`, by column."""
    entries = [(row, _NUMBER[scope], *passed) for row, scopes in bucket.items() for scope, passed in scopes.items()]
    rows, scopes, *columns = np.array(entries, np.uint64).reshape(-1, 2 + len(Passed._fields)).T
    return encode_columns(rows, scopes, columns)


def encode_columns(rows: npt.NDArray[Any], scopes: npt.NDArray[Any], columns: Sequence[npt.NDArray[Any]]) -> bytes:
    """The same from columns: rows, scopes by their places in `SCOPES`, and one for each field of `Passed`."""
    listed = {name: column.tolist() for name, column in zip(Passed._fields, columns, strict=True) if column.any()}
    return pack({"v": VERSION, "rows": rows.tolist(), "scopes": scopes.tolist(), **listed})


def decode(data: bytes) -> dict[int, dict[Scope, Passed]]:
    """The bucket behind `data`; raises TrafficError."""
    rows, scopes, columns = decode_columns(data)
    bucket: dict[int, dict[Scope, Passed]] = {}
    listed = [column.tolist() for column in (rows, scopes, *columns)]
    for row, scope, *passed in zip(*listed, strict=True):
        bucket.setdefault(row, {})[SCOPES[scope]] = Passed(*passed)
    return bucket


def decode_columns(data: bytes) -> tuple[Numbers, Numbers, list[npt.NDArray[np.uint64]]]:
    """The columns behind `data`, as `encode_columns` takes them; raises TrafficError."""
    try:
        raw = unpack(data)
        rows, scopes = (np.array(raw[name], np.int64) for name in ("rows", "scopes"))
        columns = [np.array(raw.get(name, [0] * len(rows)), np.uint64) for name in Passed._fields]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise TrafficError(f"not a history bucket of version {VERSION}: {error!r}") from error
    if rows.ndim != 1 or any(column.shape != rows.shape for column in (scopes, *columns)):
        raise TrafficError("not a history bucket: its columns differ in length")
    if not np.isin(scopes, range(len(SCOPES))).all():
        raise TrafficError("not a history bucket: it has a scope that there is not")
    return rows, scopes, columns
