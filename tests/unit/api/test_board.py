"""What clients are sent: applying deltas leads to what a snapshot says."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from services.api import board as boards
from services.api.board import Base, Board
from services.api.mirror import Mirror
from services.flows.live_message import COLUMNS
from services.flows.scope import SCOPES, Scope
from services.flows.traffic import Row, Session, Tick
from tests.support.clocks import HandClock
from tests.support.frames import unframed
from tests.support.shard import SECOND, change, pod, report, talked

WORDS = {"ns", "node", "zone", "region", "owner_kind", "owner", "coverage"}
START = 1_700_000_000 * SECOND


class Client:
    """Keeps rows as a page does; the messages are JSON."""

    def __init__(self) -> None:
        self.base: Base | None = None
        self.rows: dict[int, dict[str, Any]] = {}
        self.message: dict[str, Any] = {}
        self.kinds: list[str] = []

    def read(self, board: Board) -> bool:
        """Take what the board has for us, and acknowledge it."""
        news = board.news(self.base)
        if news is None:
            return False
        before, (self.base, frames) = self.message, news
        self.message = json.loads(unframed(frames))
        self.kinds.append(self.message["t"])
        if self.message["t"] == "snapshot":
            self.rows = {}
        else:
            assert self.message["base"] == before["seq"]
        for number in self.message.get("gone", ()):
            self.rows.pop(number, None)
        self._take(self.message["pods" if self.message["t"] == "snapshot" else "add"], lambda at, it: it["id"][at])
        self._take(self.message["rows"], lambda at, _: self.message["i"][at])
        return True

    def _take(self, columns: dict[str, list[Any]], number: Any) -> None:
        for at in range(len(next(iter(columns.values())))):
            row = self.rows.setdefault(number(at, columns), {})
            row.update({name: self._text(name, values[at]) for name, values in columns.items()})

    def _text(self, name: str, value: Any) -> Any:
        words = self.message["words"]
        if name == "labels":
            return [words[place] for place in value]
        return words[value] if name in WORDS else value


class World:
    """A mirror that ticks."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.mirror = Mirror.of(self.clock, Session(7, 0, START), [Row(1, pod("web"), {})], START)
        self.board = Board(7)

    def tick(self, *changes: Any, nodes: tuple[str, ...] = ("node-a",), **more: Any) -> None:
        """One second and one tick."""
        self.clock.pass_s(1)
        n = self.mirror.n + 1
        self.mirror.apply(Tick(7, n, START + n * SECOND, changes, nodes=tuple(map(report, nodes)), **more))
        self.board.update(self.mirror, "")


@pytest.fixture
def world() -> World:
    return World()


def test_a_client_begins_with_a_snapshot(world: World) -> None:
    world.tick(change(1, talked(Scope.INTERNET, tx_bytes=10, rx_bytes=5, tx_syns=2)))
    client = Client()
    assert client.read(world.board)
    row = client.rows[1]
    assert (row["ns"], row["name"], row["tx"], row["rx"]) == ("shop", "web", 10, 5)
    assert (row["internet_tx"], row["internet_rx"], row["local"], row["syn"], row["total"]) == (10, 5, 0, 2, 15)
    assert client.message["reporting"] == [1, 1]
    assert client.message["timeline"][-1][1:] == [0, 0, 0, 15, 0]


def test_before_the_first_update_there_is_nothing(world: World) -> None:
    assert not Client().read(world.board)


def test_who_has_everything_is_sent_nothing(world: World) -> None:
    world.tick()
    client = Client()
    client.read(world.board)
    world.board.update(world.mirror, "")
    assert not client.read(world.board)


def test_only_what_changed_is_sent(world: World) -> None:
    world.tick(change(2, talked(tx_bytes=1)), identities={2: pod("db")})
    client = Client()
    client.read(world.board)
    world.tick(change(2, talked(tx_bytes=10)))
    client.read(world.board)
    assert (client.message["t"], client.message["i"], client.message["add"]["id"]) == ("delta", [2], [])


def test_a_slow_client_gets_one_merged_message(world: World) -> None:
    world.tick()
    client = Client()
    client.read(world.board)
    for size in (10, 20, 30):
        world.tick(change(1, talked(tx_bytes=size)))
    client.read(world.board)
    assert (client.message["base"], client.message["seq"]) == (1, 4)
    assert (client.rows[1]["tx"], client.rows[1]["total"]) == (30, 60)
    assert not client.read(world.board)


def test_clients_with_the_same_base_share_one_message(world: World) -> None:
    world.tick()
    _, frames = world.board.news(None) or pytest.fail("nothing to send")
    assert (world.board.news(None) or pytest.fail("nothing to send"))[1] is frames


def test_messages_of_clients_that_lag_are_not_kept_for_ever(world: World) -> None:
    bases: list[Base | None] = [None]
    for _ in range(40):
        world.tick(change(1, talked(tx_bytes=1)))
        bases.append(Base(world.board.revision, world.mirror.n))
    for base in bases:
        world.board.news(base)
    assert len(world.board._messages) <= boards._MESSAGES_KEPT


def test_agents_that_fall_silent_are_news_without_any_tick(world: World) -> None:
    world.tick(change(1, talked(tx_bytes=10)))
    client = Client()
    client.read(world.board)
    world.clock.pass_s(6)
    world.board.update(world.mirror, "")
    assert client.read(world.board)
    assert (client.message["base"], client.message["seq"], client.message["reporting"]) == (1, 1, [0, 1])
    assert (client.rows[1]["tx"], client.rows[1]["total"]) == (None, 10)
    assert client.message["tot"] == [None] * (len(COLUMNS) - 1) + [10]


def test_a_problem_is_news(world: World) -> None:
    world.tick()
    client = Client()
    client.read(world.board)
    world.board.update(world.mirror, "Redis does not answer")
    assert client.read(world.board)
    assert client.message["problem"] == "Redis does not answer"


def test_a_row_whose_name_another_takes_goes_and_comes_back(world: World) -> None:
    world.tick(change(1, talked(tx_bytes=10)))
    client = Client()
    client.read(world.board)
    world.tick(identities={2: pod("web", uid="another")})
    client.read(world.board)
    assert set(client.rows) == {2}
    assert client.message["tot"][-1] == 10, "the earlier pod's bytes stay in the sum"
    world.tick(identities={2: pod("renamed", uid="another")})
    client.read(world.board)
    assert set(client.rows) == {1, 2}
    assert (client.rows[1]["name"], client.rows[1]["total"], client.rows[2]["name"]) == ("web", 10, "renamed")


def test_a_client_resumes_where_it_was(world: World) -> None:
    world.tick()
    world.tick(identities={2: pod("db")})
    client = Client()
    client.read(world.board)
    world.tick(change(2, talked(tx_bytes=5)))
    client.base = world.board.base_of(7, 2)
    client.read(world.board)
    assert client.message["t"] == "delta"
    assert client.rows[2]["total"] == 5


def test_who_resumes_may_have_seen_only_the_first_message_of_a_tick(world: World) -> None:
    world.tick()
    world.tick(change(1, talked(tx_bytes=10)))
    client = Client()
    client.read(world.board)
    world.clock.pass_s(6)
    world.board.update(world.mirror, "")
    client.base = world.board.base_of(7, 2)
    assert client.read(world.board)
    assert client.rows[1]["tx"] is None


@pytest.mark.parametrize(("epoch", "seq"), [(8, 2), (7, 0), (7, 1), (7, 99)])
def test_from_elsewhere_a_client_begins_anew(world: World, epoch: int, seq: int) -> None:
    world.tick()
    world.tick()
    assert world.board.base_of(epoch, seq) is None


def test_what_one_may_resume_from_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "_REMEMBERED", 3)
    for _ in range(5):
        world.tick()
    assert [world.board.base_of(7, seq) is not None for seq in range(1, 6)] == [False, False, True, True, True]


def test_who_missed_too_many_that_went_begins_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "_GONE_KEPT", 2)
    world.tick(identities={number: pod(f"p{number}") for number in range(2, 8)})
    client = Client()
    client.read(world.board)
    for number in range(2, 6):
        world.tick(removed=(number,))
    assert client.read(world.board)
    assert client.kinds == ["snapshot", "snapshot"]
    assert set(client.rows) == {1, 6, 7}


def test_a_mirror_that_was_read_anew_is_followed(world: World) -> None:
    world.tick(change(1, talked(tx_bytes=10)), identities={2: pod("db")})
    client = Client()
    client.read(world.board)
    again = Mirror.of(world.clock, Session(7, 5, START), [Row(1, pod("web"), talked(tx_bytes=70))], START)
    world.board.update(again, "")
    client.read(world.board)
    assert (client.kinds, set(client.rows), client.rows[1]["total"]) == (["snapshot", "delta"], {1}, 70)


def test_deltas_lead_where_a_snapshot_does(world: World) -> None:
    chance = random.Random(1)
    clients = [Client() for _ in range(4)]
    alive = {1: "web"}
    for step in range(300):
        identities, removed = {}, []
        if chance.random() < 0.3:
            number = len(alive) + step
            alive[number] = chance.choice(["web", "api", "db", f"pod-{step}"])
            identities = {number: pod(alive[number], uid=f"uid-{number}")}
        if len(alive) > 3 and chance.random() < 0.2:
            removed = [chance.choice(sorted(set(alive) - set(identities)))]
            del alive[removed[0]]
        if alive and chance.random() < 0.1:
            number = chance.choice(sorted(alive))
            identities[number] = pod(f"renamed-{step}", uid=f"uid-{number}")
        changed = [
            change(number, talked(chance.choice(SCOPES), tx_bytes=chance.randrange(1000)))
            for number in sorted(alive)
            if chance.random() < 0.5
        ]
        world.tick(*changed, identities=identities, removed=removed, nodes=chance.choice([(), ("node-a",)]))
        if chance.random() < 0.1:
            world.clock.pass_s(4)
            world.board.update(world.mirror, "")
        for client in clients:
            if chance.random() < 0.4:
                client.read(world.board)
    fresh = Client()
    fresh.read(world.board)
    for client in clients:
        client.read(world.board)
        assert client.rows == fresh.rows
        assert client.kinds.count("snapshot") == 1
    shown = {row.number for row in world.mirror.shown().values()}
    assert fresh.rows.keys() == shown
