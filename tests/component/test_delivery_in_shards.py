"""The tests of delivery pass as they are over three shards in a Redis Cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(300)
def test_what_holds_for_one_shard_holds_for_each_of_several() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}  # noqa: TID251
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/component/test_aggregator.py"],
        env={**environment, "PODLOXX_TEST_SHARDS": "3"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "4 passed" in done.stdout
