"""`python -m services.aggregator`: runs the aggregator until it is told to stop."""

from __future__ import annotations

import sys

from services.aggregator.app import run
from services.runtime.settings import AggregatorSettings
from services.runtime.supervise import main

if __name__ == "__main__":
    sys.exit(main("aggregator", AggregatorSettings, run, sys.argv[1:]))
