"""`python -m tests.fuzz.instrumented TARGET …`: one target under libFuzzer, guided by what of the services it reaches."""

from __future__ import annotations

import sys
from typing import Any

import atheris

from tests.fuzz.mutators import MUTATORS

with atheris.instrument_imports(include=["services"]):
    from tests.fuzz.targets import TARGETS


def main(target: str, options: list[str]) -> None:
    """Run until libFuzzer ends the process."""
    given: dict[str, Any] = {}
    if mutator := MUTATORS.get(target):
        given["custom_mutator"] = lambda data, most, seed: mutator(bytes(data), most, seed, atheris.Mutate)
    atheris.Setup([sys.argv[0], *options], TARGETS[target], **given)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
