"""What a look at the machine found, for people and for programs."""

from __future__ import annotations

import pytest

from services.runtime.findings import Finding, State, as_json, as_lines, from_json, is_fine

FOUND = [
    Finding("kernel", State.OK, "Linux 6.18"),
    Finding("port", State.WARNING, "1337 is taken", "choose another one"),
    Finding("store", State.PROBLEM, "no answer", "start it"),
]


def test_findings_come_back_as_they_were_written() -> None:
    assert from_json(as_json(FOUND)) == FOUND
    assert '"fine": false' in as_json(FOUND)
    assert '"fine": true' in as_json(FOUND[:2])


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"findings": [{}]}', '{"findings": [{"about": "a", "state": "fine"}]}']
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_json(text)


def test_only_problems_are_not_fine() -> None:
    assert is_fine([])
    assert is_fine(FOUND[:2])
    assert not is_fine(FOUND)


def test_people_see_what_to_do_below_what_is_wrong() -> None:
    assert as_lines(FOUND) == [
        "ok       kernel  Linux 6.18",
        "warning  port    1337 is taken",
        "                 → choose another one",
        "problem  store   no answer",
        "                 → start it",
    ]
    assert as_lines([]) == []
