"""What is deployed to clusters agrees with the code: settings, versions, users, privileges."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import services
from services.launcher import store
from services.runtime.settings import PREFIX, SERVICES, load

ROOT = Path(__file__).parents[2]
FILES = ROOT / "k8s"
BASE = FILES / "base"
SERVICE_OF = {"agent": "capture", "aggregator": "aggregator", "api": "api"}
USER_OF = {"agent": "agent", "aggregator": "aggregator", "api": "viewer"}


def documents() -> Iterator[dict[str, Any]]:
    """Every object in the files, also those of overlays."""
    for path in [*BASE.glob("*.yaml"), *FILES.glob("overlays/*/*.yaml")]:
        for one in yaml.safe_load_all(path.read_text()):
            if isinstance(one, dict) and one["kind"] != "Kustomization":
                yield one


def pods() -> dict[str, dict[str, Any]]:
    """The pod's specification of each workload."""
    return {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]
        for one in documents()
        if one["kind"] in {"Deployment", "DaemonSet"}
    }


def environ(pod: dict[str, Any]) -> dict[str, str]:
    """Its container's variables; what the cluster fills in is `filled-in`."""
    return {one["name"]: one.get("value", "filled-in") for one in pod["containers"][0].get("env", [])}


@pytest.mark.parametrize("name", list(SERVICE_OF))
def test_every_variable_is_a_setting_of_its_service(name: str) -> None:
    given = environ(pods()[name])
    cls = SERVICES[SERVICE_OF[name]]
    assert set(given) <= {PREFIX + field.upper() for field in cls.__dataclass_fields__}
    # Raises where a value is not one that the setting can have.
    settings = load(cls, [], given)
    assert settings.redis_user == USER_OF[name]


@pytest.mark.parametrize("name", ["agent", "aggregator"])
def test_probes_look_at_the_file_that_the_service_touches(name: str) -> None:
    pod = pods()[name]
    for probe in ("startupProbe", "livenessProbe"):
        command = pod["containers"][0][probe]["exec"]["command"]
        assert command[:4] == ["python3", "-m", "services.runtime.health", environ(pod)["PODLOXX_HEARTBEAT_FILE"]]
        assert float(command[4]) > 0


@pytest.mark.parametrize("name", ["agent", "aggregator", "api"])
def test_each_service_gets_the_password_of_its_user_alone(name: str) -> None:
    secrets = [one["secret"] for one in pods()[name]["volumes"] if "secret" in one]
    items = [item["key"] for secret in secrets if secret["secretName"] == "redis" for item in secret["items"]]
    assert items == [f"{USER_OF[name]}.password"]


def test_only_the_aggregator_gets_a_token_of_the_api_server() -> None:
    assert {name for name, pod in pods().items() if pod["automountServiceAccountToken"]} == {"aggregator"}


@pytest.mark.parametrize("name", ["agent", "aggregator", "api", "redis"])
def test_every_container_has_least_privileges_and_bounds(name: str) -> None:
    pod = pods()[name]
    [container] = pod["containers"]
    context = container["securityContext"]
    assert not context["allowPrivilegeEscalation"]
    assert context["readOnlyRootFilesystem"]
    assert context["capabilities"]["drop"] == ["ALL"]
    assert context["capabilities"].get("add", []) == (["NET_RAW", "BPF", "PERFMON"] if name == "agent" else [])
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {"cpu", "memory"} == set(container["resources"]["requests"]) == set(container["resources"]["limits"])
    assert not any("hostPath" in volume for volume in pod["volumes"])
    assert not pod.get("hostPID")
    assert not pod.get("hostIPC")
    # A Service named podloxx would set PODLOXX_PORT.
    assert pod["enableServiceLinks"] is False
    assert pod.get("hostNetwork", False) is (name == "agent")


def test_every_image_is_the_packages_version_in_one_place() -> None:
    [listed] = [yaml.safe_load((FILES / "images/kustomization.yaml").read_text())["images"]]
    assert listed == [
        {"name": f"podloxx/{name}", "newTag": services.__version__}
        for name in ("capture", "aggregator", "api", "redis")
    ]
    used = {pod["containers"][0]["image"] for pod in pods().values()}
    assert used == {one["name"] for one in listed}
    assert "images" not in yaml.safe_load((BASE / "kustomization.yaml").read_text())


def test_every_object_says_whose_it_is_and_where() -> None:
    for one in documents():
        assert one["metadata"]["labels"]["app.kubernetes.io/name"] == "podloxx", one["metadata"]
        if one["kind"] in {"ClusterRole", "ClusterRoleBinding"}:
            assert one["metadata"]["name"].startswith("podloxx-podloxx-")
        elif one["kind"] != "Namespace":
            assert one["metadata"]["namespace"] == "podloxx"


def test_passwords_and_rights_are_written_for_the_users_of_redis(tmp_path: Path) -> None:
    shutil.copytree(FILES, tmp_path / "k8s", ignore=shutil.ignore_patterns("*.env*"))
    for _ in range(2):
        subprocess.run(["sh", str(tmp_path / "k8s/make-secrets")], check=True)
        path = tmp_path / "k8s/base/redis.env"
        assert path.stat().st_mode & 0o077 == 0
        found = dict(line.split("=", 1) for line in path.read_text().splitlines())
        for user, rules in store.RULES.items():
            password = found.pop(f"{user}.password")
            assert len(password) == 64
            assert (
                found.pop(f"{user}.acl") == f"user {user} on #{hashlib.sha256(password.encode()).hexdigest()} {rules}"
            )
        assert found == {}
    assert (tmp_path / "k8s/overlays/persistent/api.env").read_text().startswith("token=")


def test_redis_knows_every_user_and_starts_with_that_configuration() -> None:
    [config] = [one["data"]["redis.conf"] for one in documents() if one["kind"] == "ConfigMap"]
    included = [line.split("/")[-1] for line in config.splitlines() if line.startswith("include ")]
    secrets = [one["secret"] for one in pods()["redis"]["volumes"] if "secret" in one]
    mounted = [item["key"] for secret in secrets for item in secret["items"]]
    assert included == mounted == [f"{user}.acl" for user in store.RULES]


@pytest.mark.timeout(120)
def test_a_wheel_has_the_files_and_no_passwords(tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore", "hatch_build.py"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(FILES, copy / "k8s", ignore=shutil.ignore_patterns("*.env*"))
    # All that a launcher needs of the package, and a dashboard that counts as built.
    (copy / "services/api/static").mkdir(parents=True)
    (copy / "services/api/static/index.html").touch()
    shutil.copy(ROOT / "services/__init__.py", copy / "services")
    subprocess.run(["sh", str(copy / "k8s/make-secrets")], check=True)
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(argv, cwd=copy, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        found = {name.removeprefix("services/launcher/k8s/") for name in packed.namelist() if "/k8s/" in name}
    wanted = {str(path.relative_to(FILES)) for path in FILES.rglob("*") if path.is_file() and ".env" not in path.name}
    assert found == wanted
