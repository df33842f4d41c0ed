"""`python -m services.capture`: runs the agent until it is told to stop, or with `--check` says what would hinder it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Final

from services.capture.app import run
from services.capture.check import check
from services.runtime import findings, log
from services.runtime.errors import PodloxxError
from services.runtime.settings import CaptureSettings, load
from services.runtime.supervise import main

_CHECK: Final = "--check"
_JSON: Final = "--json"


def _check(argv: Sequence[str]) -> int:
    """Print the findings; 1 where one of them is a problem."""
    rest = [word for word in argv if word not in {_CHECK, _JSON}]
    try:
        settings = load(CaptureSettings, rest, os.environ)  # noqa: TID251
        # What is looked for is said by the findings.
        log.configure("capture", "error", "auto")
        with_store = settings.redis_url != CaptureSettings().redis_url
        found = asyncio.run(check(settings, with_store=with_store))
    except PodloxxError as error:
        print(f"capture: {error}", file=sys.stderr)
        return error.exit_code
    print(findings.as_json(found) if _JSON in argv else "\n".join(findings.as_lines(found)))
    return 0 if findings.is_fine(found) else 1


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(_check(words) if _CHECK in words else main("capture", CaptureSettings, run, words))
