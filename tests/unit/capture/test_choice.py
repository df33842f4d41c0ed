"""Which source is chosen."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from services.capture.sources import choice
from services.runtime.errors import PodloxxError, PrivilegeError


class Works:
    """A source that can be opened."""

    name = "works"

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity


def refused(code: int) -> Any:
    def open_source(_: int) -> Any:
        raise OSError(code, "refused")

    return open_source


def fails(_: int) -> Any:
    raise PrivilegeError("no sockets here")


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    known: dict[str, Any] = dict.fromkeys(("ebpf", "ring", "socket", "tcx"), Works)
    monkeypatch.setattr(choice, "SOURCES", known)
    return known


def test_the_best_that_works_is_used(sources: dict[str, Any]) -> None:
    first = choice.opened("auto", 7)
    assert isinstance(first, Works)
    assert first.capacity == 7
    sources["ebpf"] = refused(errno.EPERM)
    assert isinstance(choice.opened("auto", 7), Works)


def test_where_none_works_the_last_reason_is_told(sources: dict[str, Any]) -> None:
    sources.update(dict.fromkeys(sources, refused(errno.EINVAL)))
    with pytest.raises(PodloxxError, match="cannot capture with the source socket: the kernel refused it: refused"):
        choice.opened("auto", 7)


def test_who_names_a_source_gets_that_or_the_reason(sources: dict[str, Any]) -> None:
    assert isinstance(choice.opened("socket", 7), Works)
    sources["ebpf"] = refused(errno.EPERM)
    with pytest.raises(PrivilegeError, match="it needs CAP_BPF"):
        choice.opened("ebpf", 7)


def test_a_source_that_says_what_is_missing_is_believed(sources: dict[str, Any]) -> None:
    sources["ebpf"], sources["ring"] = refused(errno.EPERM), fails
    with pytest.raises(PrivilegeError, match="no sockets here"):
        choice.opened("auto", 7)


def test_what_allows_more_than_to_look_is_not_taken_unasked(sources: dict[str, Any]) -> None:
    works = sources["tcx"]
    sources.update(dict.fromkeys(("ebpf", "ring", "socket"), refused(errno.EPERM)))
    with pytest.raises(PrivilegeError):
        choice.opened("auto", 7)
    assert isinstance(choice.opened("tcx", 7), works)
