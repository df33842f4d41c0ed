"""Publishes pcap files, in their own time, and ends when all of it is in the totals."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from services.capture.fold import Folder
from services.capture.publisher import Publisher
from services.capture.sources.pcap import PcapSource
from services.flows import address
from services.flows.address import Address
from services.flows.delta import Window
from services.runtime.errors import UsageError
from services.runtime.health import Heartbeat
from services.runtime.settings import CaptureSettings
from services.runtime.supervise import Stop

_POLL_S: Final = 0.02
"""How often the confirmed number is read while the end of the files waits for it."""


async def replay(settings: CaptureSettings, publisher: Publisher, heartbeat: Heartbeat, stop: Stop) -> None:
    """Read the files of `settings` and return once their last batch is confirmed."""
    local = _local_addresses(settings.pcap_local_file)
    source = PcapSource(
        [Path(name) for name in settings.pcap_files.split(os.pathsep) if name],
        speed=settings.pcap_speed,
        capacity=min(settings.flow_capacity, settings.batch_rows),
        sleep=stop.sleep,
    )
    folder = Folder(settings.flow_capacity, local)
    async for start_us, end_us, drained in source.windows(int(settings.flush_interval_s * 1e6)):
        rows = folder.fold(drained.rows, oriented=False)
        publisher.add(Window(start_us, end_us, source.attachments, rows, drained.loss))
        heartbeat.beat()
        await publisher.flush({})
        # Faster than the aggregator means waiting for it, not merging windows.
        while publisher.waiting and not await stop.sleep(_POLL_S):
            await publisher.flush({})
        if stop.requested:
            return
    while publisher.unconfirmed and not await stop.sleep(_POLL_S):
        heartbeat.beat()
        await publisher.flush({})


def _local_addresses(path: str) -> frozenset[Address]:
    """The addresses that are to be `local`, one a line."""
    if not path:
        return frozenset()
    try:
        lines = Path(path).read_text().split()
        return frozenset(map(address.parse, lines))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the list of local addresses {path}: {error}") from error
