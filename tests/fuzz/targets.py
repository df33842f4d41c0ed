"""What is fuzzed: functions of any bytes, which raise where something that holds always does not."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import msgpack
import numpy as np
import orjson
import yaml

from services.aggregator import letter, snapshot
from services.aggregator.cluster_ledger import ClusterLedger
from services.aggregator.directory.ingress import Ingress
from services.aggregator.directory.ranges import UserRanges
from services.aggregator.plausible import implausible
from services.aggregator.totals import Totals
from services.api import metrics, nodes, views
from services.api.mirror import Mirror
from services.capture import pcap_file
from services.capture.flow_table import FlowTable
from services.capture.frames import LinkType, parse
from services.capture.raw_flow import Direction
from services.flows import traffic, wire
from services.flows.delta import Kind, Malformed
from services.flows.live_request import MessageError, Said, said
from services.launcher import cli, cluster_options, deploy, manifests
from services.launcher.context import Context
from services.runtime.errors import UsageError
from services.runtime.settings import PREFIX, SERVICES, load
from tests.support.clocks import HandClock
from tests.support.worlds import directory

_LINKS: Final = tuple(LinkType)
_CLOSE_REASON_BYTES: Final = 123
_METRIC: Final = re.compile(r"# .*|[a-z0-9_]+(\{.*\})? (-?[0-9.e+-]+|inf)", re.DOTALL)
_NOW_US: Final = 1_700_000_000_000_000


def frames(data: bytes) -> None:
    """A link type and a frame: parsing never raises, and what it tells fits where it is kept."""
    if not data:
        return
    link, frame = _LINKS[data[0] % len(_LINKS)], data[1:]
    found = parse(frame, link)
    assert parse(memoryview(frame), link) == found
    # A capture may have cut the last header, which is 60 bytes at most.
    assert 0 <= found.header_bytes <= len(frame) + 60
    if found.kind is Kind.IP:
        assert max(found.source, found.destination) < 1 << 128
        assert max(found.source_port, found.destination_port) <= 0xFFFF
    elif found.kind is Kind.MALFORMED:
        assert Malformed(found.code)
    table = FlowTable(4)
    table.add(1, Direction.TX, found, len(frame))
    rows = table.take()
    assert (int(rows["bytes"].sum()), int(rows["packets"].sum())) == (len(frame), 1)


def wire_batch(data: bytes) -> None:
    """Bytes of a batch: refused by a WireError, as implausible, or booked and stored without an error."""
    try:
        batch = wire.decode(data)
    except (wire.WireError, OverflowError):
        # The consumer takes both for malformed.
        return
    assert wire.decode(wire.encode(batch)) == batch
    if implausible(batch):
        return
    totals = Totals(directory(), 10)
    for _ in range(2):
        totals.apply(batch)
        totals.settle(_NOW_US)
    session = snapshot.session_of(totals, 1, 1, 0)
    parts, last = snapshot.whole(totals, session, _NOW_US)
    for one in parts:
        msgpack.packb([one.totals, one.peers], use_bin_type=False)
    msgpack.packb(last, use_bin_type=False)
    # What the API makes of it.
    rows = [traffic.decode_row(number, stored) for number, stored in totals.rows.stored()]
    mirror = Mirror.of(HandClock(), traffic.decode_session(traffic.encode_session(session)), rows, _NOW_US)
    for answer in (views.overview(mirror, ""), views.total(mirror, {}), nodes.nodes(mirror, {})):
        orjson.dumps(answer)
    for accept in ("", "application/openmetrics-text"):
        text, _ = metrics.exposition(mirror, clients=0, ready=True, accept=accept)
        assert all(_METRIC.fullmatch(line) for line in text[:-1].split("\n")), text


def letters(data: bytes) -> None:
    """Bytes of a shard's letter: refused by a LetterError, or taken by the ledger twice and stored without an error."""
    ledger = ClusterLedger(directory(), 0, 3)
    try:
        opened = [letter.decode(ledger.names, data) for _ in range(2)]
    except letter.LetterError:
        return
    for one in opened:
        ledger.apply(one.moved(1))
        ledger.settle(_NOW_US)
    session = snapshot.session_of(ledger, 1, 1, 0)
    _, whole = snapshot.whole(ledger, session, _NOW_US)
    for made in (whole, snapshot.changed(ledger, session, _NOW_US)):
        msgpack.packb(made, use_bin_type=False)


def pcap(data: bytes) -> None:
    """A capture file, plain or compressed: read to its end or refused in a sentence."""
    descriptor = os.memfd_create("capture")
    try:
        os.write(descriptor, data)
        with contextlib.suppress(UsageError):
            for packet in pcap_file.packets(Path(f"/proc/self/fd/{descriptor}")):
                assert packet.time_us >= 0
                assert len(packet.data) <= pcap_file._LARGEST
                parse(packet.data, packet.link_type)
    finally:
        os.close(descriptor)


def websocket(data: bytes) -> None:
    """A client's message: understood, or refused with a reason that fits into the frame that closes."""
    reason = ""
    try:
        wish = said(orjson.loads(data))
    except orjson.JSONDecodeError:
        return
    except MessageError as error:
        reason, wish = str(error) or "none was given", Said()
    assert len(reason.encode()) <= _CLOSE_REASON_BYTES
    assert wish.hz is None or 0 <= wish.hz <= 4
    assert wish.ack is None or wish.ack >= 0


_PARSER: Final = cli.parser()


def settings(data: bytes) -> None:
    """Options of `start`, one a line: refused in a sentence, or objects that services read as they were meant."""
    text = data.decode(errors="surrogateescape")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            arguments = _PARSER.parse_args(["start", *text.splitlines()])
        plan = cluster_options._plan(arguments, Context("", "lab", arguments.namespace), arguments.ttl)
    except (UsageError, SystemExit):  # the latter with --help
        return
    # The files are the same each time, and reading them would take all of it.
    with patch.multiple(yaml, safe_load=_document, safe_load_all=_documents):
        made = manifests.objects(plan.chosen)
    assert json.loads(deploy.shown(made))["items"] == made
    assert {one["metadata"].get("namespace", plan.chosen.namespace) for one in made} == {plan.chosen.namespace}
    for name, service in (("agent", "capture"), ("aggregator", "aggregator")):
        _read(service, _environ(made, name), plan.chosen.agent if name == "agent" else plan.chosen.aggregator)


@cache
def _as_json(text: str) -> str:
    return json.dumps(list(yaml.load_all(text, Loader=yaml.CSafeLoader)))


def _documents(text: str) -> list[Any]:
    found: list[Any] = json.loads(_as_json(text))
    return found


def _document(text: str) -> Any:
    return _documents(text)[0]


def _environ(made: list[Any], name: str) -> dict[str, str]:
    [pod] = [
        one["spec"]["template"]["spec"]
        for one in made
        if one["kind"] in {"Deployment", "DaemonSet"} and one["metadata"]["name"] == name
    ]
    variables = pod["containers"][0]["env"]
    assert len({one["name"] for one in variables}) == len(variables)
    return {one["name"]: one["value"] for one in variables if "value" in one}


def _read(service: str, environ: Mapping[str, str], given: Mapping[str, str]) -> None:
    try:
        read = load(SERVICES[service], [], environ)
    except UsageError:
        return
    for name, value in given.items():
        assert getattr(read, name) == value, f"{PREFIX}{name.upper()}"
    if service == "aggregator":
        with contextlib.suppress(UsageError):
            UserRanges(getattr(read, "cidr"), getattr(read, "private_cidr"))  # noqa: B009
        with contextlib.suppress(UsageError):
            Ingress(getattr(read, "ingress_selector"))  # noqa: B009


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    "frames": frames,
    "wire": wire_batch,
    "letter": letters,
    "pcap": pcap,
    "websocket": websocket,
    "settings": settings,
}
np.seterr(all="raise", under="ignore")
