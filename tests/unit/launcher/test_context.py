"""Which kubeconfig and context a command takes: as kubectl does, and a sentence where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.launcher import context as contexts
from services.runtime.errors import UsageError


def kubeconfig(path: Path, *names: str, current: str = "") -> Path:
    """A file with contexts of these names."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "one", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "one", "user": {"token": "none"}}],
        "contexts": [{"name": name, "context": {"cluster": "one", "user": "one"}} for name in names],
    }
    path.write_text(json.dumps(content | ({"current-context": current} if current else {})))
    return path


def chosen(file: str = "", context: str = "", **environ: str) -> contexts.Context:
    return contexts.chosen(file, context, "podloxx", environ)


def test_the_current_context_is_taken(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config", "lab", "work", current="work")
    assert chosen(str(path)).name == "work"
    assert chosen(str(path), "lab").name == "lab"
    assert chosen(str(path), "lab").kubectl == "kubectl --context lab -n podloxx"


def test_the_environment_names_files_as_it_does_for_kubectl(tmp_path: Path) -> None:
    one = kubeconfig(tmp_path / "one", "lab", current="lab")
    two = kubeconfig(tmp_path / "two", "work")
    assert chosen(KUBECONFIG=str(one)).name == "lab"
    assert chosen("", "work", KUBECONFIG=f"{one}:{two}").name == "work"
    # What was typed wins.
    assert chosen(str(kubeconfig(tmp_path / "three", "home", current="home")), KUBECONFIG=str(one)).name == "home"


@pytest.mark.parametrize(
    ("content", "context", "sentence"),
    [
        (None, "", r"there is no kubeconfig .*config \(--kubeconfig\): name one with --kubeconfig"),
        ("", "", "cannot use the kubeconfig"),
        ("[1, 2]", "", "cannot use the kubeconfig"),
        ("{", "", "cannot use the kubeconfig"),
    ],
)
def test_a_file_that_is_none_is_told(tmp_path: Path, content: str | None, context: str, sentence: str) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=sentence):
        chosen(str(path), context)


def test_contexts_that_are_not_there_are_told_with_those_that_are(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config", "lab", "work")
    with pytest.raises(UsageError, match=r"no current context.*--context"):
        chosen(str(path))
    with pytest.raises(UsageError, match="no context 'home': choose with --context among lab, work"):
        chosen(str(kubeconfig(tmp_path / "other", "lab", "work", current="lab")), "home")
