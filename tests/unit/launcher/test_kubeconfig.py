"""One context of a kubeconfig, with everything that it names inside."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.launcher.kubeconfig import flattened
from services.runtime.errors import UsageError


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    """A kubeconfig with two contexts, whose files lie beside it."""
    for name in ("ca.crt", "me.crt", "me.key", "token"):
        (tmp_path / name).write_text(f"content of {name}\n")
    return {
        "current-context": "first",
        "contexts": [
            {"name": "first", "context": {"cluster": "one", "user": "certificate"}},
            {"name": "second", "context": {"cluster": "two", "user": "token"}},
            {"name": "nobody", "context": {"cluster": "two"}},
            {"name": "broken", "context": {"cluster": "three", "user": "token"}},
        ],
        "clusters": [
            {"name": "one", "cluster": {"server": "https://one", "certificate-authority": "ca.crt"}},
            {"name": "two", "cluster": {"server": "https://two"}},
        ],
        "users": [
            {"name": "certificate", "user": {"client-certificate": "me.crt", "client-key": str(tmp_path / "me.key")}},
            {"name": "token", "user": {"tokenFile": "token"}},
        ],
    }


def flat(folder: Path, content: object, context: str = "") -> Any:
    path = folder / "config"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return json.loads(flattened(str(path), context))


def encoded(name: str) -> str:
    return base64.b64encode(f"content of {name}\n".encode()).decode()


def test_files_stand_inside(tmp_path: Path, content: dict[str, Any]) -> None:
    found = flat(tmp_path, content)
    assert found["clusters"] == [
        {"name": "podloxx", "cluster": {"server": "https://one", "certificate-authority-data": encoded("ca.crt")}}
    ]
    assert found["users"][0]["user"] == {
        "client-certificate-data": encoded("me.crt"),
        "client-key-data": encoded("me.key"),
    }
    assert found["contexts"] == [{"name": "podloxx", "context": {"cluster": "podloxx", "user": "podloxx"}}]


def test_another_context(tmp_path: Path, content: dict[str, Any]) -> None:
    found = flat(tmp_path, content, "second")
    assert found["clusters"][0]["cluster"] == {"server": "https://two"}
    assert found["users"][0]["user"] == {"token": "content of token"}
    assert "users" not in flat(tmp_path, content, "nobody")


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ("third", "has no context 'third'; there are first, second, nobody, broken"),
        ("broken", "has no cluster 'three'; there are one, two"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, content: dict[str, Any], context: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        flat(tmp_path, content, context)


@pytest.mark.parametrize(
    "text", ["[", "3", "[]", "contexts: 3\ncurrent-context: a", "contexts: [{}]\ncurrent-context: a"]
)
def test_what_is_malformed_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="config is malformed"):
        flat(tmp_path, text)


def test_missing_files_and_contexts(tmp_path: Path, content: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*nowhere"):
        flattened(str(tmp_path / "nowhere"))
    del content["current-context"]
    with pytest.raises(UsageError, match="name one with --context"):
        flat(tmp_path, content)
    (tmp_path / "ca.crt").unlink()
    with pytest.raises(UsageError, match=r"cannot read .*ca\.crt"):
        flat(tmp_path, content, "first")
