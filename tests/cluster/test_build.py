"""What builds the API server, and what tests do where nobody built it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = str(ROOT / "scripts/build-programs")

GO = """#!/bin/bash
# Stands in for Go: "builds" files of a few bytes, or fails at one of the modules.
case "$1 $2" in
"env GOVERSION") echo {version} ;;
"-C "*)
    [ "${{2##*/}}" != "{fails}" ] || exit 7
    while [ "$1" != -o ]; do shift; done
    folder=$2; shift 2
    for package; do touch "$folder/$(basename "${{package/%\\/v3/}}")"; done ;;
esac
"""
TOOLS = """#!/bin/sh
# Stands in for a C compiler and pkg-config.
exit {code}
"""
GROUPS = {
    "apiserver": ["etcd", "kube-apiserver", "kubectl"],
    "cluster": ["coredns", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubelet"],
    "engine": ["cli-plugins", "docker", "docker-proxy", "dockerd", "runc"],
    "actionlint": ["actionlint"],
}
MODULES = ["actionlint", "buildx", "compose", "coredns", "etcd", "kubernetes", "moby", "runc"]

Build = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def build(folder: Path) -> Build:
    """Runs the script with a Go of our own and an empty cache, `folder`/podloxx."""

    def run(
        *arguments: str, version: str = "go1.26.1", fails: str = "", seccomp: bool = True
    ) -> subprocess.CompletedProcess[str]:
        for name, text in (
            ("go", GO.format(version=version, fails=fails)),
            ("gcc", TOOLS.format(code=0)),
            ("pkg-config", TOOLS.format(code=0 if seccomp else 1)),
        ):
            program = folder / name
            program.write_text(text)
            program.chmod(0o755)
        environ = {"PATH": f"{folder}:/usr/bin:/bin", "XDG_CACHE_HOME": str(folder)}
        argv = ["bash", SCRIPT, *arguments]
        return subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=30, check=False)

    return run


def test_it_builds_each_group_once(folder: Path, build: Build) -> None:
    places = dict(zip(GROUPS, map(Path, build("--where", *GROUPS).stdout.split()), strict=True))
    first = build(*GROUPS)
    assert first.returncode == 0, first.stderr
    for group, programs in GROUPS.items():
        assert places[group].parent == folder / "podloxx/programs" / group
        assert sorted(path.name for path in places[group].iterdir()) == programs
        assert list(places[group].parent.iterdir()) == [places[group]]
    plugins = places["engine"] / "cli-plugins"
    assert sorted(path.name for path in plugins.iterdir()) == ["docker-buildx", "docker-compose"]
    assert "already built" not in first.stdout
    again = build(*GROUPS, fails="etcd")
    assert again.stdout.splitlines() == [f"{group}: already built, in {where}" for group, where in places.items()]


@pytest.mark.parametrize("module", MODULES)
def test_a_build_that_fails_leaves_nothing(folder: Path, build: Build, module: str) -> None:
    assert build(*GROUPS, fails=module).returncode == 7
    assert [path for path in (folder / "podloxx/programs").glob("*/*") if "building" in path.name] == []
    assert build(*GROUPS).returncode == 0


def test_a_go_that_is_too_old_is_named(folder: Path, build: Build) -> None:
    done = build("apiserver", version="go1.19.8")
    assert done.returncode == 1
    expected = f"apiserver: building it takes Go 1.26 or newer, and {folder}/go is Go 1.19: https://go.dev/dl\n"
    assert (done.stdout, done.stderr) == ("", expected)


def test_what_a_c_library_is_missing_for_is_named(build: Build) -> None:
    done = build("engine", seccomp=False)
    assert done.returncode == 1
    assert "engine: building runc takes a C compiler, pkg-config and libseccomp: apt-get install " in done.stderr


def test_a_changed_module_builds_just_its_groups_anew(folder: Path) -> None:
    shutil.copytree(ROOT / "tests/programs", folder / "tests/programs")
    (folder / "scripts").mkdir()
    shutil.copy(SCRIPT, folder / "scripts")
    argv = ["bash", str(folder / "scripts/build-programs"), "--where", *GROUPS]

    def keys() -> list[str]:
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout.split()

    before = keys()
    with (folder / "tests/programs/coredns/go.sum").open("a") as sums:
        sums.write("\n")
    assert [group for group, old, new in zip(GROUPS, before, keys(), strict=True) if old != new] == ["cluster"]


def test_a_group_that_is_not_there_is_named(build: Build) -> None:
    done = build("--where", "nothing")
    assert (done.returncode, done.stdout) == (2, "")
    assert 'there is no group "nothing"' in done.stderr


@pytest.mark.parametrize(("ci", "outcome"), [("", "1 skipped"), ("true", "1 error")])
def test_where_nobody_built_it_tests_are_skipped_and_in_ci_failed(folder: Path, ci: str, outcome: str) -> None:
    name = "tests/cluster/test_api_server.py::test_a_pod_has_the_status_that_it_was_given"
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-ra", name]
    environ = {**os.environ, "CI": ci, "XDG_CACHE_HOME": str(folder)}  # noqa: TID251
    done = subprocess.run(argv, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=50, check=False)
    assert outcome in done.stdout, done.stdout
    assert "without the API server: `make apiserver` builds it" in done.stdout
