"""How long a Lease has been silent, by one's own clock."""

from __future__ import annotations

from services.aggregator.session_lease import Silence


def test_silence_grows_while_nobody_renews() -> None:
    one = Silence()
    for at in (0.0, 10.0, 20.0):
        one.look("a", at)
    assert one.silent_s == 20.0


def test_a_renewal_ends_it() -> None:
    one = Silence()
    for renewed, at in (("a", 0.0), ("a", 10.0), ("b", 20.0), ("b", 25.0)):
        one.look(renewed, at)
    assert one.silent_s == 5.0


def test_what_the_launchers_clock_says_does_not_matter() -> None:
    one = Silence()
    for renewed, at in (("2030", 0.0), ("1970", 10.0), ("2030", 20.0)):
        one.look(renewed, at)
    assert one.silent_s == 0.0


def test_time_without_an_api_server_does_not_count() -> None:
    one = Silence()
    one.look("a", 0.0)
    one.look("a", 10.0)
    one.missed()
    # Nobody could renew: an hour later the launcher has as long as before.
    one.look("a", 3610.0)
    assert one.silent_s == 10.0
    one.look("a", 3620.0)
    assert one.silent_s == 20.0
