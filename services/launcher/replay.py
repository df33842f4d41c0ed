"""`podloxx-launch replay`: capture files through the same services, and their sums as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from services.flows import address, keys, peer_store
from services.flows.address import Address
from services.flows.delta import Kind, Malformed
from services.flows.protocols import ethertype_name, protocol_name
from services.flows.traffic import ROW_COUNTERS, Peer
from services.launcher import run as running
from services.launcher.child import effective, open_to_all
from services.launcher.children import Child
from services.launcher.run import Rig, Wanted
from services.launcher.store import viewer
from services.runtime import redis_client
from services.runtime.errors import PodloxxError, UsageError

_AT: Final = {name: at for at, name in enumerate(ROW_COUNTERS)}
_COUNTED: Final = ("tx_packets", "tx_bytes", "rx_packets", "rx_bytes")
_FLOWS: Final = 1_000_000
"""Conversations of which the agent remembers who the client is: those of a large file."""
_BATCH_ROWS: Final = 50_000
"""Flows of one window at most. A batch that holds more could be larger than the wire takes."""
_SHORT_S: Final = 2.0
_LOOK_EVERY_S: Final = 0.5
_ROWS_AT_ONCE: Final = 500


async def replay(wanted: Wanted, files: Sequence[Path], speed: float, *, as_json: bool) -> None:
    """Feed the files; with `as_json` print their sums and end, else show them.

    `files` are regular and readable for this process.
    """
    local = _local_addresses(str(wanted.aggregator.get("directory_file", "")))
    port = 0 if as_json else running.free_port(wanted.listen, wanted.port)
    # They are too large to be lent as copies: who reads them is the launcher's user then.
    private = not all(map(open_to_all, files))
    async with running.rig(wanted, lambda _: None, frozenset({"agent"} if private else ())) as one:
        about = {**wanted.aggregator, "peers_per_pod": 0} if as_json else wanted.aggregator
        await one.service("aggregator", about)
        settings = _capture(one, files, speed, local)
        capture = await one.service("capture", settings, capabilities=_to_read() if private else frozenset())
        if as_json:
            await _print_sums(one, capture, wanted.for_s)
            return
        await one.service("api", {**wanted.api, "listen": wanted.listen, "port": port})
        # What is wrong with a file of common size is said before a page is promised.
        await _read_whole(one, capture, _SHORT_S)
        await one.wait_ready(wanted, running.base_url(wanted, port), agents=0, but=capture)
        await running.show(one, wanted, port, but=capture)


def _capture(one: Rig, files: Sequence[Path], speed: float, local: Iterable[Address]) -> dict[str, str | float]:
    listed = one.session.folder / "local-addresses"
    listed.write_text("".join(f"{text}\n" for text in local))
    listed.chmod(0o644)
    paths = []
    for number, path in enumerate(files):
        shown = path.absolute()
        if os.pathsep in str(shown):
            # The setting is a list as in PATH, and tcpdump likes to put the time of day into names.
            shown = one.session.folder / f"{number}-{path.name.replace(os.pathsep, '-')}"
            shown.symlink_to(path.absolute())
        one.children.lent[str(shown)] = str(path)
        paths.append(str(shown))
    return {
        "capture": "pcap",
        "node": "replay",
        "pcap_files": os.pathsep.join(paths),
        "pcap_speed": speed,
        "pcap_local_file": str(listed),
        "flow_capacity": _FLOWS,
        "batch_rows": _BATCH_ROWS,
    }


def _to_read() -> frozenset[str]:
    """What lets the launcher's user read other users' private files, if the launcher may."""
    return frozenset(("dac_read_search", "dac_override")) & effective()


async def _read_whole(one: Rig, capture: Child, longest_s: float) -> bool:
    """Wait until the agent has read and confirmed everything, which is when it ends; False if it has not."""

    async def ended() -> int | None:
        left_s = longest_s
        while left_s > 0:
            try:
                return await asyncio.wait_for(capture.wait(), min(left_s, _LOOK_EVERY_S))
            except TimeoutError:
                left_s -= _LOOK_EVERY_S
            if one.ear.store_full:
                raise PodloxxError(one.ear.sentence)
        return None

    code = await one.children.unless_one_ends(ended(), but=capture, end_requested=one.end_requested)
    if code:
        raise capture.failure
    return code == 0


async def _print_sums(one: Rig, capture: Child, longest_s: float | None) -> None:
    if not await _read_whole(one, capture, float("inf") if longest_s is None else longest_s):
        why = "it was asked to" if one.end_requested.is_set() else "the time of --for is over"
        raise PodloxxError(f"replay ended, because {why}, before the files were read: there are no sums")
    print(orjson.dumps(summed(await _peers(one))).decode())


async def _peers(one: Rig) -> list[Peer]:
    """All that the aggregator has."""
    names = keys.Keys(0)
    peers: list[Peer] = []
    with redis_client.translating("reading the sums"):
        async with redis_client.connect(viewer(one.store)) as connected:
            redis: Any = connected
            stored: dict[bytes, bytes] = await redis.hgetall(names.totals)
            rows = [int(field[4:]) for field in stored if field.startswith(b"row:")]
            for at in range(0, len(rows), _ROWS_AT_ONCE):
                async with redis.pipeline(transaction=False) as asked:
                    for row in rows[at : at + _ROWS_AT_ONCE]:
                        asked.hgetall(names.peers(row))
                    for found in await asked.execute():
                        peers += peer_store.decode_peers(found)
    return peers


def summed(peers: Iterable[Peer]) -> dict[str, Any]:
    """The object that `replay --json` prints (docs/replay.md).

    Raises PodloxxError where flows were folded, which is no sum of peers.
    """
    groups: dict[Kind, dict[str, dict[str, int]]] = {Kind.NOT_IP: {}, Kind.MALFORMED: {}}
    listed: dict[tuple[object, ...], dict[str, Any]] = {}
    packets = size = 0
    for peer in peers:
        kind = Kind(peer.kind)
        counts = {name: peer.counts[_AT[name]] for name in _COUNTED}
        seen = counts["tx_packets"] + counts["rx_packets"], counts["tx_bytes"] + counts["rx_bytes"]
        packets, size = packets + seen[0], size + seen[1]
        if kind == Kind.IP:
            who = _who(peer)
            entry = listed.setdefault(tuple(who.values()), {**who, **dict.fromkeys(_COUNTED, 0)})
            for name, count in counts.items():
                entry[name] += count
            continue
        if kind == Kind.FOLDED:
            raise PodloxxError(f"{seen[0]} packets could not be kept apart: replay the files one by one")
        name = ethertype_name(peer.port) if kind == Kind.NOT_IP else Malformed(peer.port).label
        entry = groups[kind].setdefault(name, {"packets": 0, "bytes": 0})
        entry["packets"] += seen[0]
        entry["bytes"] += seen[1]
    return {
        "packets": packets,
        "bytes": size,
        "not_ip": dict(sorted(groups[Kind.NOT_IP].items())),
        "malformed": dict(sorted(groups[Kind.MALFORMED].items())),
        "peers": [_ordered(listed[key]) for key in sorted(listed, key=str)],
    }


def _who(peer: Peer) -> dict[str, Any]:
    return {
        # One without an address yet, which is all zeros and so not told apart from none at all.
        "local": peer.local or "::",
        "peer": peer.address,
        "protocol": protocol_name(peer.protocol),
        "port": peer.port,
        "scope": peer.scope.value,
        "rule": peer.rule,
    }


def _ordered(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: entry[name] for name in ("local", "peer", "protocol", "port", *_COUNTED, "scope", "rule")}


def _local_addresses(path: str) -> list[Address]:
    """The addresses that a static file knows. What is wrong with it the aggregator says, which reads it whole."""
    if not path:
        return []
    try:
        texts = list(json.loads(Path(path).read_bytes())["addresses"])
    except OSError as error:
        raise UsageError(f"cannot read the address file {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError):
        return []
    found = []
    for text in texts:
        with contextlib.suppress(ValueError):
            found.append(address.parse(text))
    return found
