"""The columns of the WebSocket's messages, as clients of version 1 know them."""

from __future__ import annotations

from typing import get_type_hints

from services.flows import live_message
from services.flows.live_message import COLUMNS, Node, NodeColumns, Pod, PodColumns, RowColumns, Words
from services.flows.scope import SCOPES

WEB = Pod(
    id=1,
    ns="shop",
    name="web",
    node="node-a",
    zone="eu-1a",
    region="eu-1",
    owner_kind="Deployment",
    owner="web",
    labels=("app=web", "tier=front"),
    ips=("10.1.0.2", "fd00::2"),
    iface="veth1",
    coverage="full",
    scopes=5,
    started=1_699_999_000.0,
    ended=None,
)
CRON = WEB._replace(
    id=2, name="cron", node="", zone="", region="", labels=("app=web",), ips=(), started=None, ended=1_700_000_000.0
)
ROW = (100, 50, 120, 0, 0, 20, 10, 0, 3, 9000)
SILENT = (None, None, None, None, None, None, None, None, None, 400)


def texts(column: list[int], words: Words) -> list[str]:
    return [words.listed[place] for place in column]


def test_pods_by_column() -> None:
    words = Words()
    columns = live_message.pod_columns([WEB, CRON], words)
    assert words.listed[0] == ""
    assert texts(columns["ns"], words) == ["shop", "shop"]
    assert texts(columns["node"], words) == ["node-a", ""]
    assert texts(columns["zone"], words) == ["eu-1a", ""]
    assert texts(columns["region"], words) == ["eu-1", ""]
    assert texts(columns["owner_kind"], words) == ["Deployment", "Deployment"]
    assert texts(columns["owner"], words) == ["web", "web"]
    assert texts(columns["coverage"], words) == ["full", "full"]
    assert [texts(labels, words) for labels in columns["labels"]] == [["app=web", "tier=front"], ["app=web"]]
    plain = {name: column for name, column in columns.items() if name in {"id", "name", "ips", "iface", "scopes"}}
    assert plain == {
        "id": [1, 2],
        "name": ["web", "cron"],
        "ips": [("10.1.0.2", "fd00::2"), ()],
        "iface": ["veth1", "veth1"],
        "scopes": [5, 5],
    }
    assert (columns["started"], columns["ended"]) == ([1_699_999_000.0, None], [None, 1_700_000_000.0])


def test_a_text_that_many_share_is_sent_once() -> None:
    words = Words()
    live_message.pod_columns([WEB] * 1000, words)
    assert len(words.listed) == len(set(words.listed)) == 10


def test_rows_by_column() -> None:
    assert live_message.row_columns([ROW, SILENT]) == {
        "tx": [100, None],
        "rx": [50, None],
        "local": [120, None],
        "cross": [0, None],
        "private": [0, None],
        "internet_tx": [20, None],
        "internet_rx": [10, None],
        "other": [0, None],
        "syn": [3, None],
        "total": [9000, 400],
    }


def test_columns_are_there_without_rows() -> None:
    assert live_message.row_columns([]) == {name: [] for name in COLUMNS}
    assert live_message.pod_columns([], Words()) == {name: [] for name in Pod._fields}


def test_nodes_by_column() -> None:
    nodes = [
        Node("node-a", "eu-1a", "eu-1", live=True, reported=None, source="tcx", interfaces=12),
        Node("node-b", "", "", live=False, reported=1_700_000_000.0, source="", interfaces=0),
    ]
    assert live_message.node_columns(nodes) == {
        "name": ["node-a", "node-b"],
        "zone": ["eu-1a", ""],
        "region": ["eu-1", ""],
        "live": [True, False],
        "reported": [None, 1_700_000_000.0],
        "source": ["tcx", ""],
        "interfaces": [12, 0],
    }


def test_what_is_made_has_the_fields_that_are_declared() -> None:
    assert tuple(get_type_hints(PodColumns)) == Pod._fields
    assert tuple(get_type_hints(NodeColumns)) == Node._fields
    assert tuple(get_type_hints(RowColumns)) == COLUMNS


def test_scopes_have_bits_that_stay_exact_in_a_browser() -> None:
    assert tuple(scope.value for scope in SCOPES) == live_message.SCOPE_NAMES
    assert len(SCOPES) < 31
