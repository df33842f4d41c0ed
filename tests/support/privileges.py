"""Running code as somebody who may do just what is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_as(code: str, *capabilities: str, uid: int = 65534) -> subprocess.CompletedProcess[str]:
    """Run Python `code` as an unprivileged user with just these capabilities (`net_raw` …)."""
    wanted = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    argv = [
        *("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs"),
        *(f"--inh-caps={wanted}", f"--ambient-caps={wanted}", f"--bounding-set={wanted}"),
        *(sys.executable, "-c", code),
    ]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, cwd=ROOT, check=False)
