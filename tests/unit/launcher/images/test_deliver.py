from __future__ import annotations

from pathlib import Path

import pytest

import services
from services.launcher import cli
from services.launcher.images.names import SERVICES, checked, image
from services.runtime.errors import UsageError
from tests.unit.launcher.images.conftest import Recorder

NAMES = [f"podloxx/{service}:{services.__version__}" for service in ("capture", "aggregator", "api", "redis")]
# `docker save` and `image inspect`, as far as they are asked here.
HAS_ALL = 'case $1 in save) while [ "$1" != --output ]; do shift; done; echo tar >"$2";; esac'


def test_names_are_prefix_service_and_version() -> None:
    assert [image("podloxx", service) for service in SERVICES] == NAMES


@pytest.mark.parametrize("prefix", ["podloxx", "registry.example:5000/team/podloxx", "a/b-c/d_e/"])
def test_prefixes_of_registries_and_users_are_taken(prefix: str) -> None:
    assert checked(prefix) == prefix.rstrip("/")


@pytest.mark.parametrize("prefix", ["", "UPPER/x", "a b", "https://host/x", "a//b", "a:tag:b"])
def test_what_cannot_begin_a_name_is_refused(prefix: str) -> None:
    with pytest.raises(UsageError, match="--image-prefix"):
        checked(prefix)


@pytest.mark.parametrize(
    ("to", "named", "command"),
    [
        ("kind", [], "load image-archive FILE"),
        ("kind", ["--cluster=dev"], "load image-archive FILE --name dev"),
        ("k3d", [], "image import FILE"),
        ("k3d", ["--cluster=dev"], "image import FILE --cluster dev"),
        ("minikube", [], "image load FILE"),
        ("minikube", ["--cluster=dev"], "image load FILE --profile dev"),
        ("ctr", [], "--namespace k8s.io images import FILE"),
        ("ctr", ["--cluster=/run/c.sock"], "--address /run/c.sock --namespace k8s.io images import FILE"),
    ],
)
def test_each_kind_of_cluster_takes_the_archive_its_own_way(
    recorded: Recorder, folder: Path, to: str, named: list[str], command: str
) -> None:
    (folder / "all.tar").write_bytes(b"")
    calls = recorded(to)
    assert cli.main(["images", "load", f"--to={to}", *named, f"--file={folder}/all.tar"]) == 0
    assert calls() == [command.replace("FILE", f"{folder}/all.tar")]


def test_without_a_file_what_the_engine_has_is_taken(recorded: Recorder) -> None:
    docker = recorded("docker", HAS_ALL)
    kind = recorded("kind")
    assert cli.main(["images", "load", "--to=kind"]) == 0
    [saved] = [line for line in docker() if line.startswith("save ")]
    assert saved.split()[3:] == NAMES
    [loaded] = kind()
    assert loaded.startswith("load image-archive /")
    assert loaded.endswith("/images.tar")


def test_podman_is_told_to_save_several_images(recorded: Recorder) -> None:
    podman = recorded("podman", HAS_ALL)
    recorded("k3d")
    assert cli.main(["images", "load", "--to=k3d"]) == 0
    assert any(line.startswith("save --multi-image-archive --output ") for line in podman())


def test_every_image_is_pushed(recorded: Recorder) -> None:
    docker = recorded("docker")
    assert cli.main(["images", "push", "--image-prefix=registry.example/team/podloxx"]) == 0
    pushed = [line for line in docker() if line.startswith("push ")]
    assert pushed == [f"push registry.example/team/{name}" for name in NAMES]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["push"], "images push needs --image-prefix HOST/PATH"),
        (["load"], "images load needs --to: one of kind, k3d, minikube, ctr"),
        (["load", "--to=kind"], "--to kind: kind is not on the PATH: install kind"),
        (["load", "--to=minikube", "--save=x"], "--save is for images build, not for images load"),
        (["build", "--file=x"], "--file is for images load, not for images build"),
        (["build", "--source=/"], "images are built from a checkout of podloxx, and / has no Dockerfile"),
        (["push", "--image-prefix=Nobody"], "--image-prefix 'Nobody' cannot begin an image's name"),
    ],
)
def test_what_is_missing_is_said(
    recorded: Recorder, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    recorded("docker")
    assert cli.main(["images", *arguments]) in {1, 2}
    assert words in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named(recorded: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    recorded("ctr")
    assert cli.main(["images", "load", "--to=ctr", "--file=nowhere.tar"]) == 2
    assert "--file nowhere.tar: there is no such file; `images build --save nowhere.tar`" in capsys.readouterr().err


def test_images_that_were_not_built_are_named(recorded: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    recorded("docker", "case $1 in image) exit 1;; esac")
    assert cli.main(["images", "push", "--image-prefix=mine"]) == 2
    said = capsys.readouterr().err
    assert "docker has no image mine/capture" in said
    assert "`podloxx-launch images build --image-prefix mine` makes it" in said
