"""`python -m tests.fuzz.instrumented TARGET …`: one target under libFuzzer, guided by what of the services it reaches."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["services"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()
