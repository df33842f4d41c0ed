"""`python -m services.api`: serves the totals until it is told to stop."""

from __future__ import annotations

import sys

from services.api.app import run
from services.runtime.settings import ApiSettings
from services.runtime.supervise import main

if __name__ == "__main__":
    sys.exit(main("api", ApiSettings, run, sys.argv[1:]))
