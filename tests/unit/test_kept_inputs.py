"""Inputs that fuzzing kept, and those that broke something once, do nothing wrong."""

from __future__ import annotations

import pytest

from tests.fuzz.corpora import kept
from tests.fuzz.targets import TARGETS

FOUND = {
    "settings": [b"--ingress-selector=app=\x8b\n--pull-policy=Never"],
}
"""What broke something when it was found."""


@pytest.mark.parametrize("target", TARGETS)
def test_kept_inputs_break_nothing(target: str) -> None:
    inputs = [*kept(target), *FOUND.get(target, [])]
    assert len(inputs) >= 4
    for one in inputs:
        TARGETS[target](one)
