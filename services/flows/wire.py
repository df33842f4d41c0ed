"""The bytes of a batch on the stream between agents and aggregator: one codec for both ends.

A batch is one msgpack map. The flows of a window travel by column, each column as the
narrowest little-endian unsigned integers that hold it; addresses stand once in a table of 16
bytes each, and rows refer to them by position.
"""

from __future__ import annotations

import functools
from typing import Any, Final, TypeVar

import msgpack
import numpy as np
import numpy.typing as npt

from services.flows import address, keys
from services.flows.columns import narrow, wide
from services.flows.delta import (
    COUNTERS,
    FLOW,
    NOTHING,
    Attachment,
    Batch,
    Coverage,
    InterfaceCounters,
    Kind,
    Rows,
    Side,
    Window,
)
from services.flows.table import group_columns, transposed

VERSION: Final = 5
_PLAIN: Final = ("attachment", "kind", "protocol", "server", "port", *COUNTERS)
_WORD: Final = {name: offset // 8 for name, (kind, offset, *_) in (FLOW.fields or {}).items() if kind.itemsize == 8}
"""Which word of a row each column is that takes a whole one."""
_ATTACHMENT: Final = (int, str, int, str, int, bytes, str)
_COVERAGE: Final = {one.value: one for one in Coverage}
_FOUR_COUNTS: Final = (int,) * 4
_MAX_ROWS: Final = 1_000_000
_T = TypeVar("_T")


class WireError(ValueError):
    """Bytes that are no batch of this version; the message names the field."""


def encode(batch: Batch) -> bytes:
    """The bytes of `batch`."""
    packed: bytes = msgpack.packb(
        {
            "v": VERSION,
            "node": batch.node,
            "boot": batch.boot,
            "machine": batch.machine,
            "seq": batch.seq,
            "offset": batch.offset_us,
            "error": batch.error_us,
            "windows": [_window_out(window) for window in batch.windows],
            "gauges": dict(batch.gauges),
        }
    )
    return packed


def decode(data: bytes) -> Batch:
    """The batch behind `data`; raises WireError where it is cut, malformed or of another version."""
    if len(data) > keys.BATCH_BYTES:
        raise WireError(f"batch of {len(data)} bytes is larger than {keys.BATCH_BYTES}")
    try:
        raw = msgpack.unpackb(data, strict_map_key=True)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise WireError(f"batch is not msgpack: {error}") from error
    if not isinstance(raw, dict):
        raise WireError("batch is not a map")
    if raw.get("v") != VERSION:
        raise WireError(f"batch has version {raw.get('v')!r}, this podloxx reads version {VERSION}")
    windows = tuple(_window_in(entry) for entry in _get(raw, "windows", list))
    if not windows:
        raise WireError("batch has no window")
    return Batch(
        node=_get(raw, "node", str),
        boot=_get(raw, "boot", str),
        seq=_count(raw, "seq"),
        offset_us=_get(raw, "offset", int),
        error_us=_count(raw, "error"),
        windows=windows,
        gauges=_numbers(raw, "gauges"),
        machine=_get(raw, "machine", str),
    )


def _window_out(window: Window) -> dict[str, Any]:
    table, columns = _columns_out(window.flows)
    return {
        "start": window.start_us,
        "end": window.end_us,
        "loss": dict(window.loss),
        "attachments": [_attachment_out(entry) for entry in window.attachments],
        "rows": len(window.flows),
        "addresses": table,
        "columns": columns,
    }


def _window_in(raw: object) -> Window:
    if not isinstance(raw, dict):
        raise WireError("window is not a map")
    attachments = tuple(_attachment_in(entry) for entry in _get(raw, "attachments", list))
    flows = _columns_in(_count(raw, "rows"), _get(raw, "addresses", bytes), _get(raw, "columns", dict))
    known = np.array([entry.id for entry in attachments], np.uint32)
    if not _among(flows["attachment"], np.sort(known)):
        raise WireError("a row names an attachment that its window does not list")
    start, end = _get(raw, "start", int), _get(raw, "end", int)
    if end < start:
        raise WireError(f"window ends ({end}) before it starts ({start})")
    loss = {name: int(value) for name, value in _numbers(raw, "loss").items()}
    return Window(start, end, attachments, flows, loss)


def _attachment_out(entry: Attachment) -> list[Any]:
    return [
        entry.id,
        entry.interface,
        entry.index,
        entry.source,
        entry.attached_us,
        entry.detached_us,
        b"".join(address.to_bytes(one) for one in entry.addresses),
        _counters_out(entry.counters),
        _counters_out(entry.first_counters),
        entry.coverage.value,
        _counters_out(entry.passed),
        entry.pod_uid,
        _counters_out(entry.hidden),
    ]


def _attachment_in(raw: object) -> Attachment:
    if not isinstance(raw, list) or len(raw) != 13:
        raise WireError("attachment is not a list of 13")
    number, interface, index, source, attached, detached, packed, counters, first, coverage, passed, uid, hidden = raw
    if tuple(map(type, (*raw[:5], packed, uid))) != _ATTACHMENT or not isinstance(detached, int | None):
        raise WireError("attachment has a field of the wrong type")
    if not 0 <= number < 1 << 32 or len(packed) % 16:
        raise WireError("attachment has an id or addresses out of bounds")
    seen = _COVERAGE.get(coverage) if isinstance(coverage, str) else None
    if seen is None:
        raise WireError(f"attachment has unknown coverage {coverage!r}")
    return Attachment(
        id=number,
        interface=interface,
        index=index,
        source=source,
        attached_us=attached,
        detached_us=detached,
        addresses=_addresses(packed),
        counters=_counters_in(counters),
        first_counters=_counters_in(first),
        coverage=seen,
        passed=_counters_in(passed) or NOTHING,
        pod_uid=uid,
        hidden=_counters_in(hidden),
    )


@functools.lru_cache(maxsize=65536)
def _addresses(packed: bytes) -> tuple[address.Address, ...]:
    """The addresses in 16 bytes each; agents tell the same ones each second."""
    return tuple(address.from_bytes(packed[at : at + 16]) for at in range(0, len(packed), 16))


def _counters_out(counters: InterfaceCounters | None) -> list[int] | None:
    if counters is None:
        return None
    return [counters.tx_bytes, counters.tx_packets, counters.rx_bytes, counters.rx_packets]


def _counters_in(raw: object) -> InterfaceCounters | None:
    if raw is None:
        return None
    if not isinstance(raw, list) or tuple(map(type, raw)) != _FOUR_COUNTS or min(raw) < 0:
        raise WireError("interface counters are not four counts")
    return InterfaceCounters(*raw)


def _columns_out(rows: Rows) -> tuple[bytes, dict[str, list[Any]]]:
    count = len(rows)
    words = transposed(np.ascontiguousarray(rows).view(np.uint64).reshape(-1, FLOW.itemsize // 8))
    hi, lo = (np.concatenate([words[_WORD[f"local_{end}"]], words[_WORD[f"peer_{end}"]]]) for end in ("hi", "lo"))
    first, inverse = group_columns([lo, hi])
    big_endian = np.stack([hi[first], lo[first]], axis=1).astype(">u8").tobytes()
    columns = {name: narrow(words[_WORD[name]] if name in _WORD else rows[name]) for name in _PLAIN}
    columns["local"] = narrow(inverse[:count])
    columns["peer"] = narrow(inverse[count:])
    return big_endian, columns


def _columns_in(count: int, table: bytes, columns: dict[str, Any]) -> Rows:
    if count > _MAX_ROWS or len(table) % 16:
        raise WireError("window has too many rows or a cut address table")
    rows = np.zeros(count, FLOW)
    for name in _PLAIN:
        values = _wide(columns, name, count)
        fits = rows.dtype[name]
        if values.itemsize > fits.itemsize and int(values.max(initial=0)) > np.iinfo(fits).max:
            raise WireError(f"column {name} does not fit its type")
        rows[name] = values
    if count and (rows["kind"].max() > max(Kind) or rows["server"].max() > max(Side)):
        raise WireError("a row has an unknown kind or server side")
    words = np.frombuffer(table, ">u8").reshape(-1, 2).astype(np.uint64)
    for name in ("local", "peer"):
        at = _wide(columns, name, count)
        if count and int(at.max()) >= len(words):
            raise WireError(f"column {name} points past the address table")
        if count:
            rows[f"{name}_hi"], rows[f"{name}_lo"] = words[at].T
    return rows


def _among(numbers: npt.NDArray[Any], known: npt.NDArray[np.uint32]) -> bool:
    """Whether all numbers are among those that are known, which are in order."""
    if not len(known):
        return not len(numbers)
    return bool((known.take(np.searchsorted(known, numbers), mode="clip") == numbers).all())


def _wide(columns: dict[str, Any], name: str, count: int) -> npt.NDArray[Any]:
    try:
        return wide(columns.get(name), count)
    except ValueError as error:
        raise WireError(f"column {name} {error}") from error


def _get(raw: dict[str, Any], name: str, kind: type[_T]) -> _T:
    value = raw.get(name)
    if type(value) is not kind:
        raise WireError(f"field {name} is missing or not of type {kind.__name__}")
    return value


def _count(raw: dict[str, Any], name: str) -> int:
    value = _get(raw, name, int)
    if value < 0:
        raise WireError(f"field {name} is negative")
    return value


def _numbers(raw: dict[str, Any], name: str) -> dict[str, float]:
    value = _get(raw, name, dict)
    if not all(isinstance(k, str) and type(v) in (int, float) and v >= 0 for k, v in value.items()):
        raise WireError(f"field {name} is not a map of counts")
    return value
