from __future__ import annotations

import pytest

from services.launcher.images.engine import CommandError, Engine, call, found
from services.runtime.errors import PodloxxError, UsageError
from tests.unit.launcher.images.conftest import Recorder

AWAY = 'case $1 in info) echo "Cannot connect to the Docker daemon at unix:///x" >&2; exit 1;; esac'
OLD = "case $1 in buildx) exit 1;; esac"


def test_docker_goes_before_podman(recorded: Recorder) -> None:
    recorded("docker")
    recorded("podman")
    assert found() == Engine("docker")


def test_podman_is_taken_where_docker_does_not_answer(recorded: Recorder) -> None:
    recorded("docker", AWAY)
    recorded("podman")
    assert found() == Engine("podman")


def test_a_client_that_ends_well_without_an_engine_is_no_engine(recorded: Recorder) -> None:
    recorded("docker", 'echo "ERROR: Cannot connect to the Docker daemon" >&2')
    with pytest.raises(PodloxxError, match=r"engine does not answer .*Cannot connect.*start it, or set DOCKER_HOST"):
        found()


def test_without_any_engine_one_is_to_be_installed(recorded: Recorder) -> None:
    recorded("true")
    with pytest.raises(PodloxxError, match="install Docker or Podman"):
        found()


def test_a_named_engine_is_the_only_one_asked(recorded: Recorder) -> None:
    recorded("docker")
    with pytest.raises(UsageError, match="--engine podman: podman is not installed"):
        found("podman")


def test_docker_without_buildkit_says_what_is_missing(recorded: Recorder) -> None:
    recorded("docker", OLD)
    with pytest.raises(PodloxxError, match="without BuildKit: install its plugin buildx"):
        found()


def test_what_a_failed_program_said_is_told() -> None:
    with pytest.raises(CommandError, match=r"building it failed: `sh -c .*` ended with 3\n  why"):
        call(["sh", "-c", "echo why >&2; exit 3"], "building it")


def test_a_failed_program_that_said_it_elsewhere_is_told_too() -> None:
    with pytest.raises(CommandError, match="ended with 1\n  here"):
        call(["sh", "-c", "echo here; exit 1"], "building it")


def test_a_program_that_cannot_be_run_is_named() -> None:
    with pytest.raises(CommandError, match="cannot run nowhere: No such file"):
        call(["nowhere"], "building it")
