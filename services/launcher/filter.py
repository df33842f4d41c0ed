"""What a filter of pods says: the page's, word for word (frontend/src/lib/filter.ts); both are held against the same cases."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

FIELDS: Final = ("ns", "node", "label", "owner", "ip", "port", "scope")
_RANGE: Final = re.compile(r"[^/]+/\d{1,3}")
_NAMED: Final = re.compile(r"-?([a-z]+):")
_DIGITS: Final = re.compile(r"[a-f]+")
Ports = Mapping[str, Sequence[int]]
"""By `namespace/pod`: those that it serves and those that it calls."""
Test = Callable[[str], bool]


class Searched(Protocol):
    """What a filter asks of a pod."""

    @property
    def key(self) -> str:
        """`namespace/pod`."""

    @property
    def text(self) -> str:
        """What a bare word is looked for in, in small letters."""

    def values(self, field: str) -> list[str]:
        """What it has for a field but `port`."""


_S = TypeVar("_S", bound=Searched)


@dataclass(frozen=True, slots=True)
class Term:
    """One word of a filter; `field` is empty for a bare one."""

    field: str
    value: str
    negated: bool


def parsed(text: str) -> list[Term]:
    """The words of a filter. A field that is not known is part of a bare word: IPv6 addresses have colons."""
    terms = []
    for word in text.lower().split():
        rest = word.removeprefix("-")
        name, colon, value = rest.partition(":")
        known = bool(colon) and name in FIELDS
        terms.append(Term(name if known else "", value if known else rest, word.startswith("-")))
    return [term for term in terms if term.value]


def unknown_fields(text: str) -> list[str]:
    """What a filter names like a field, though there is none of that name. Digits of addresses are none either."""
    named = [match[1] for word in text.lower().split() if (match := _NAMED.match(word))]
    return list(dict.fromkeys(name for name in named if name not in FIELDS and not _DIGITS.fullmatch(name)))


def matcher(terms: Sequence[Term], pods: Sequence[_S], ports: Ports) -> Callable[[_S], bool]:
    """A test of pods, of which `pods` are all there are.

    Terms of one field are alternatives, fields and bare words all have to fit, and what is negated must not.
    """

    def values(pod: _S, field: str) -> list[str]:
        if field == "port":
            return [str(port) for port in ports.get(pod.key, ())]
        return [value.lower() for value in pod.values(field)]

    def known(field: str) -> Iterable[str]:
        return {value for pod in pods for value in values(pod, field)}

    tests = {term: _test(term, known) for term in terms}

    def has(pod: _S, term: Term) -> bool:
        return term.value in pod.text if not term.field else any(map(tests[term], values(pod, term.field)))

    without = [term for term in terms if term.negated]
    words = [term for term in terms if not term.negated and not term.field]
    asked = [[term for term in terms if not term.negated and term.field == field] for field in FIELDS]

    def fits(pod: _S) -> bool:
        return (
            all(has(pod, term) for term in words)
            and all(any(has(pod, term) for term in group) for group in asked if group)
            and not any(has(pod, term) for term in without)
        )

    return fits


def _test(term: Term, known: Callable[[str], Iterable[str]]) -> Test:
    if term.field == "ip" and (network := _network(term.value)) is not None:
        return lambda text: ipaddress.ip_address(text) in network
    parts = [re.escape(part) for part in term.value.split("*")]
    whole = re.compile(".*".join(parts), re.DOTALL)
    if term.field in {"", "port"} or len(parts) > 1 or any(map(whole.fullmatch, known(term.field))):
        return lambda text: whole.fullmatch(text) is not None
    # What nothing has is the beginning of something.
    return lambda text: text.startswith(term.value)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    if _RANGE.fullmatch(text) is None:
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
