"""Options of the torture tests, and the rigs that they share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.torture_shared import Shared

_OPTIONS: dict[str, tuple[Any, str]] = {
    "--torture-seeds": (1, "how many seeds each deed is done with"),
    "--torture-seed": (-1, "the one seed to repeat"),
    "--torture-flushes": (80, "for how many flushes memory is watched"),
    "--chaos-seconds": (60, "for how long chaos goes on"),
    "--torture-fresh": (0, "1: a rig of its own for each deed, instead of one for each seed"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--torture-seeds 20` runs seeds 0 to 19, `--torture-seed 7` runs that one alone."""
    group = parser.getgroup("torture")
    for name, (default, meaning) in _OPTIONS.items():
        group.addoption(name, type=int, default=default, help=meaning)
    group.addoption("--chaos-page", default="", help="the page of the documentation to write its figures into")


def _chosen(config: pytest.Config, name: str) -> int:
    # The options are known where these tests were asked for by their folder.
    return int(config.getoption(name, default=_OPTIONS[name][0]))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give tests that ask for a `seed` each of them."""
    if "seed" not in metafunc.fixturenames:
        return
    alone = _chosen(metafunc.config, "--torture-seed")
    seeds = range(_chosen(metafunc.config, "--torture-seeds")) if alone < 0 else (alone,)
    metafunc.parametrize("seed", seeds, scope="module")


@pytest.fixture
def flushes(request: pytest.FixtureRequest) -> int:
    """For how many flushes memory is watched."""
    return _chosen(request.config, "--torture-flushes")


@pytest.fixture
def chaos_s(request: pytest.FixtureRequest) -> int:
    """For how long chaos goes on."""
    return _chosen(request.config, "--chaos-seconds")


@pytest.fixture
def chaos_seed(request: pytest.FixtureRequest) -> int:
    """The seed of chaos."""
    return max(1, _chosen(request.config, "--torture-seed"))


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest, seed: int) -> Iterator[Shared]:
    """The seed's rig."""
    one = Shared(seed, fresh=bool(_chosen(request.config, "--torture-fresh")))
    yield one
    one.close()
