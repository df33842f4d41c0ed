"""`python -m services.capture`: runs the agent until it is told to stop."""

from __future__ import annotations

import sys

from services.capture.app import run
from services.runtime.settings import CaptureSettings
from services.runtime.supervise import main

if __name__ == "__main__":
    sys.exit(main("capture", CaptureSettings, run, sys.argv[1:]))
