"""Inputs that fuzzing kept, and those that broke something once, do nothing wrong."""

from __future__ import annotations

import pytest

from tests.fuzz import seeds
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


def test_kept_batches_are_of_the_layout_of_today() -> None:
    old = [one for one in kept("wire") if not seeds.is_batch(one)]
    assert len(old) < len(kept("wire")) / 2, "python -m tests.fuzz.seeds makes the inputs anew"
