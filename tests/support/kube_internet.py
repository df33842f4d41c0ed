"""What answers in the pretended internet of a cluster of the tests: iperf3, HTTP and DNS."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from tests.support import kube_work
from tests.support.kube_network import INTERNET
from tests.support.kube_site import Site

NAME: Final = "www.internet.test"
_COREFILE: Final = f"""
.:53 {{
    errors
    hosts {{
        {INTERNET[0]} {NAME}
        {INTERNET[1]} {NAME}
    }}
}}
"""


def start(site: Site, coredns: Path) -> None:
    """Start all three, on every address that the pretended internet has."""
    space, folder = site.space("internet"), site.folder / "internet"
    (folder / "served").mkdir(parents=True)
    (folder / "served/file").write_bytes(bytes(kube_work.FILE_BYTES))
    (folder / "Corefile").write_text(_COREFILE)
    http = [sys.executable, "-m", "http.server", "--bind=::", f"--directory={folder}/served", str(kube_work.HTTP)]
    for name, argv in (
        ("internet-dns", [str(coredns), "-conf", str(folder / "Corefile")]),
        ("internet-iperf3", ["iperf3", "--server", f"--port={kube_work.IPERF}"]),
        ("internet-http", http),
    ):
        site.start(name, *space.command(*argv))
