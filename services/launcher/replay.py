"""`podloxx-launch replay`: capture files through the same services, and their sums as JSON."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from services.flows import keys, traffic
from services.flows.delta import Kind, Malformed
from services.flows.protocols import ethertype_name, protocol_name
from services.flows.traffic import ROW_COUNTERS, Peer
from services.launcher import run as running
from services.launcher.children import Child
from services.launcher.run import Rig, Wanted
from services.launcher.store import viewer
from services.runtime import redis_client
from services.runtime.errors import UsageError

_AT: Final = {name: at for at, name in enumerate(ROW_COUNTERS)}
_FLOWS: Final = 4_000_000
"""Flows kept apart while files are read: nothing of a file may be folded."""


async def replay(wanted: Wanted, files: Sequence[Path], speed: float, *, as_json: bool) -> None:
    """Feed the files; with `as_json` print their sums and end, else show them."""
    local = _local_addresses(str(wanted.aggregator.get("directory_file", "")))
    port = 0 if as_json else running.free_port(wanted.listen, wanted.port)
    async with running.rig(lambda _: None) as one:
        about = {**wanted.aggregator, "peers_per_pod": 0} if as_json else wanted.aggregator
        await one.service("aggregator", about)
        capture = await one.service("capture", _capture(one, files, speed, local))
        if as_json:
            await _read_whole(one, capture)
            if not one.end_requested.is_set():
                print(orjson.dumps(await _sums(one)).decode())
            return
        await one.service("api", {**wanted.api, "listen": wanted.listen, "port": port})
        # The agent of a file ends when the file does, and its totals stay.
        if speed == 0:
            await _read_whole(one, capture)
        await one.wait_ready(wanted, running.base_url(wanted, port), agents=0)
        await running.show(one, wanted, port, but=capture)


def _capture(one: Rig, files: Sequence[Path], speed: float, local: Iterable[str]) -> dict[str, str | float]:
    # The service runs as another user, who need not be able to read the user's files by name.
    listed = one.session.folder / "local-addresses"
    listed.write_text("".join(f"{text}\n" for text in local))
    listed.chmod(0o644)
    return {
        "capture": "pcap",
        "node": "replay",
        "pcap_files": os.pathsep.join(str(path.resolve()) for path in files),
        "pcap_speed": speed,
        "pcap_local_file": str(listed),
        "flow_capacity": _FLOWS,
        "batch_rows": 100_000,
    }


async def _read_whole(one: Rig, capture: Child) -> None:
    """Wait until the agent has read and confirmed everything, which is when it ends."""
    async with asyncio.TaskGroup() as tasks:
        code = await one.children.unless_one_ends(tasks.create_task(_ended(one, capture)), but=capture)
    if code and not one.end_requested.is_set():
        raise capture.failure


async def _ended(one: Rig, capture: Child) -> int:
    asked = asyncio.ensure_future(one.end_requested.wait())  # noqa: TID251
    ended = asyncio.ensure_future(capture.process.wait())  # noqa: TID251
    await asyncio.wait([asked, ended], return_when=asyncio.FIRST_COMPLETED)
    for one_of_them in (asked, ended):
        one_of_them.cancel()
    return capture.process.returncode or 0


async def _sums(one: Rig) -> dict[str, Any]:
    names = keys.Keys(0)
    async with redis_client.connect(viewer(one.store)) as connected:
        redis: Any = connected
        stored: dict[bytes, bytes] = await redis.hgetall(names.totals)
        peers: list[Peer] = []
        for field, value in stored.items():
            if field.startswith(b"row:"):
                number = traffic.decode_row(int(field[4:]), value).number
                found: dict[bytes, bytes] = await redis.hgetall(names.peers(number))
                peers += map(traffic.decode_peer, found.values())
    return summed(peers)


def summed(peers: Iterable[Peer]) -> dict[str, Any]:
    """The object that `replay --json` prints (docs/replay.md)."""
    not_ip: dict[str, dict[str, int]] = {}
    malformed: dict[str, dict[str, int]] = {}
    listed = []
    packets = count = 0
    for peer in peers:
        seen = peer.counts[_AT["tx_packets"]] + peer.counts[_AT["rx_packets"]]
        size = peer.counts[_AT["tx_bytes"]] + peer.counts[_AT["rx_bytes"]]
        packets, count = packets + seen, count + size
        if peer.kind == Kind.IP:
            listed.append(_peer(peer))
            continue
        group, name = (
            (not_ip, ethertype_name(peer.port)) if peer.kind == Kind.NOT_IP else (malformed, Malformed(peer.port).label)
        )
        entry = group.setdefault(name, {"packets": 0, "bytes": 0})
        entry["packets"] += seen
        entry["bytes"] += size
    listed.sort(key=lambda entry: (entry["local"], entry["peer"], entry["protocol"], entry["port"]))
    return {"packets": packets, "bytes": count, "not_ip": not_ip, "malformed": malformed, "peers": listed}


def _peer(peer: Peer) -> dict[str, Any]:
    return {
        "local": peer.local,
        "peer": peer.address,
        "protocol": protocol_name(peer.protocol),
        "port": peer.port,
        "tx_packets": peer.counts[_AT["tx_packets"]],
        "tx_bytes": peer.counts[_AT["tx_bytes"]],
        "rx_packets": peer.counts[_AT["rx_packets"]],
        "rx_bytes": peer.counts[_AT["rx_bytes"]],
        "scope": peer.scope.value,
        "rule": peer.rule,
    }


def _local_addresses(path: str) -> list[str]:
    if not path:
        return []
    try:
        content = json.loads(Path(path).read_bytes())
        return list(content["addresses"])
    except OSError as error:
        raise UsageError(f"cannot read the address file {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError):
        # The aggregator, which reads it whole, says what is wrong with it.
        return []


def readable(files: Sequence[str]) -> list[Path]:
    """The files as paths; raises UsageError for one that cannot be read."""
    for name in files:
        try:
            with Path(name).open("rb"):
                pass
        except OSError as error:
            raise UsageError(f"cannot read {name}: {error.strerror}") from error
    return [Path(name) for name in files]
