"""The rig of docker-compose.test.yml: what its containers are given, how they are asked, and how it goes."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import secrets
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import services
from services.launcher.store import RULES
from tests.support import kube_objects
from tests.support.certificates import Authority, signing_key
from tests.support.kube_client import KubeClient, Object, Refused
from tests.support.netns import Namespace
from tests.support.truth import lacking
from tests.support.wait import wait_until

T = TypeVar("T")

ROOT: Final = Path(__file__).parents[2]
API, API_SERVER, API_SERVER_PORT = "10.89.0.6", "10.89.0.4", 6443
PODS: Final = ("web", "dns", "bulk", "far", "client")
"""The talkers of the compose file; what else stands there is the cluster's and podloxx's own."""
OWN: Final = ("redis", "aggregator", "api", "apiserver")
NODES: Final[Mapping[str, tuple[str, str]]] = {
    # Its number is the third part of its pods' addresses.
    "rig-1": ("z1", "r"),
    "rig-2": ("z1", "r"),
    "rig-3": ("z2", "r"),
}
_COMMAND_S: Final = 120.0
_TWO_REPORTS_S: Final = 2.5
_SEND: Final = """import socket, sys
address, port, count, size = sys.argv[1], *map(int, sys.argv[2:])
with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as out:
    for _ in range(count):
        out.sendto(bytes(size), (address, port))
"""
GREETINGS: Final = 2000
"""Bytes: a dozen packets with which IPv6 begins."""


def docker(*arguments: str) -> str:
    """What the engine's command line prints."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=_COMMAND_S, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments[:6])}: {done.stderr or done.stdout}"
    return done.stdout


@dataclass(slots=True)
class Rig:
    """The rig while it is up; `folder` has what is mounted into its containers."""

    folder: Path
    programs: Path
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    took: dict[str, float] = field(default_factory=dict)
    unwatched: dict[str, int] = field(default_factory=dict)
    """By pod the bytes that passed between reading its interface's counters and attaching: neighbours' greetings."""
    _last: tuple[dict[str, int], float] = ({}, 0.0)
    _clients: list[KubeClient] = field(default_factory=list)

    @property
    def machine(self) -> Namespace:
        """The network that the engine's bridges are in: that of a private engine, else this machine's."""
        return Namespace(os.environ.get("PLX_ENGINE_NET", "/proc/self/ns/net"))  # noqa: TID251

    def up(self) -> None:
        """Bring everything up, and wait until traffic is served with the names of the cluster's pods."""
        with self._timed("certificates"):
            self._written()
            # What a run that was killed left in an engine that lives on.
            self.compose("down", "--volumes", "--remove-orphans", "--timeout=0")
        with self._timed("API server"):
            self.compose("up", "--detach", "--quiet-pull", "etcd", "apiserver")
            wait_until(self._api_server_is_ready, "the API server is ready", timeout_s=60)
            self._service_account()
        with self._timed("containers"):
            self.compose("up", "--detach", "--quiet-pull")
            self._populated()
        with self._timed("first report"):
            wait_until(self._reports, "the agent reports", timeout_s=30)
            self._introduced()
            self.unwatched = wait_until(
                self._still, "all that was said at the beginning is in the totals", timeout_s=30
            )
            assert max(self.unwatched.values()) <= GREETINGS, self.unwatched

    def down(self) -> None:
        """Take everything down."""
        with self._timed("down"):
            self.compose("down", "--volumes", "--remove-orphans", "--timeout=5")

    def compose(self, *arguments: str) -> str:
        """What Compose prints, of the rig's project."""
        set_here = {
            "PODLOXX_VERSION": services.__version__,
            "RIG_PROGRAMS": str(self.programs),
            "RIG_RUN": str(self.folder),
        }
        argv = ["docker", "compose", "--file", str(ROOT / "docker-compose.test.yml"), "--progress=quiet", *arguments]
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
            check=False,
            env={**os.environ, **set_here},  # noqa: TID251
        )
        assert done.returncode == 0, f"docker compose {' '.join(arguments)}: {done.stderr}{self.log(set_here)}"
        return done.stdout

    def log(self, environment: Mapping[str, str] | None = None) -> str:
        """The last lines of each container."""
        if environment is None:
            return self.compose("logs", "--tail=20")
        argv = ["docker", "compose", "--file", str(ROOT / "docker-compose.test.yml"), "logs", "--tail=20"]
        merged = {**os.environ, **environment}  # noqa: TID251
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_COMMAND_S, check=False, env=merged)
        return f"\n{done.stdout}"

    def run(self, service: str, *command: str) -> str:
        """What a command prints in a service's container."""
        return docker("exec", container(service), *command)

    def send(self, service: str, address: str, port: int, *, count: int, size: int) -> None:
        """Have a service's container send datagrams of `size` bytes."""
        self.run(service, "python3", "-c", _SEND, address, str(port), str(count), str(size))

    def get(self, path: str) -> Any:
        """The JSON behind a path of the API."""

        def request() -> tuple[int, bytes]:
            connection = http.client.HTTPConnection(API, 1337, timeout=10)
            with contextlib.closing(connection):
                connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
                answer = connection.getresponse()
                return answer.status, answer.read()

        status, body = self.machine.call(request)
        assert status == 200, (status, body)
        return json.loads(body)

    def as_admin(self, asked: Callable[[KubeClient], T]) -> T:
        """The result of requests to the API server by somebody who may do everything."""
        return self.machine.call(lambda: asked(self._clients[0]))

    def create(self, *objects: Object) -> None:
        """Create objects with their status."""
        self.as_admin(lambda admin: [admin.create(one) for one in objects])

    def pod(self, service: str, name: str = "", namespace: str = "shop") -> Object:
        """The pod that a service's container plays, with its container's addresses."""
        addresses = addresses_of(container(service))
        node = f"rig-{addresses[0].split('.')[2]}" if namespace == "shop" else "rig-1"
        return kube_objects.pod(namespace, name or service, node=node, ips=addresses, labels={"app": service})

    def _written(self) -> None:
        pki = self.folder / "pki"
        pki.mkdir()
        authority = Authority(pki)
        signing_key(pki, "service-accounts")
        authority.issue("kube-apiserver", names=f"IP:{API_SERVER},IP:127.0.0.1")
        context = ssl.create_default_context(cafile=str(authority.certificate))
        context.load_cert_chain(*authority.issue("admin", "system:masters"))
        self._clients.append(KubeClient(API_SERVER_PORT, context, host=API_SERVER))
        lines = ["user default off -@all"]
        for user, rules in RULES.items():
            password = secrets.token_urlsafe(16)
            (self.folder / f"{user}.password").write_text(password)
            lines.append(f"user {user} on #{hashlib.sha256(password.encode()).hexdigest()} {rules}")
        (self.folder / "redis.acl").write_text("\n".join([*lines, ""]))
        (self.folder / "token").write_text(self.token)

    def _api_server_is_ready(self) -> bool:
        with contextlib.suppress(OSError, Refused, http.client.HTTPException):
            return self.as_admin(lambda admin: admin.plain("/readyz")) == "ok"
        return False

    def _service_account(self) -> None:
        """A token as a kubelet mounts it, of an account that may do what the aggregator needs."""
        watch = ("get", "list", "watch")
        rules = [("", resource, watch) for resource in ("pods", "nodes", "services")]
        rules += [("discovery.k8s.io", "endpointslices", watch), ("networking.k8s.io", "servicecidrs", watch)]
        self.create(
            kube_objects.namespace("podloxx"),
            kube_objects.namespace("shop"),
            kube_objects.service_account("podloxx", "aggregator"),
            kube_objects.cluster_role("podloxx-aggregator", *rules),
            kube_objects.cluster_role_binding("podloxx-aggregator", "podloxx/aggregator"),
        )
        wanted = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        path = "/api/v1/namespaces/podloxx/serviceaccounts/aggregator/token"
        made = self.as_admin(lambda admin: admin.request("POST", path, wanted))
        folder = self.folder / "service-account"
        folder.mkdir()
        (folder / "token").write_text(made["status"]["token"])
        (folder / "namespace").write_text("podloxx")
        (folder / "ca.crt").write_bytes((self.folder / "pki/ca.crt").read_bytes())

    def _populated(self) -> None:
        """Nodes and pods as if a kubelet had started the containers."""
        for number, (name, (zone, region)) in enumerate(NODES.items(), 1):
            ranges = [f"10.90.{number}.0/24", f"fd90::{number}:0/112"]
            self.create(
                kube_objects.node(name, addresses=[f"192.168.0.{number}"], pod_cidrs=ranges, zone=zone, region=region)
            )
        self.create(*(self.pod(service) for service in PODS))
        self.create(*(self.pod(service, namespace="podloxx") for service in OWN))

    def _introduced(self) -> None:
        """Let each talker send something: on a bridge nothing but a pod's own packets tells its address."""
        for service in PODS:
            asked = "{{range .NetworkSettings.Networks}}{{.Gateway}} {{end}}"
            gateway, *_ = docker("inspect", "--format", asked, container(service)).split()
            self.send(service, gateway, 9, count=1, size=1)

    def _reports(self) -> bool:
        with contextlib.suppress(OSError, AssertionError, http.client.HTTPException):
            return bool(self.get("/traffic/overview")["nodesReporting"] == 1)
        return False

    def talkers(self, pods: Mapping[str, Any]) -> dict[str, Any]:
        """The rows of the pods that talk, of those of all."""
        return {name: pods[name] for name in (f"shop/{one}" for one in PODS) if name in pods}

    def _still(self) -> dict[str, int]:
        """What is not in the totals, once that has been the same for longer than two reports take; empty until then."""
        now, at = lacking(self.machine, self.talkers(self.get("/traffic/total"))), time.monotonic()
        if now != self._last[0] or len(now) < len(PODS):
            self._last = now, at
        return now if at - self._last[1] > _TWO_REPORTS_S else {}

    @contextlib.contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.took[what] = time.monotonic() - began


def container(service: str) -> str:
    """The name of a service's container."""
    return f"podloxx-rig-{service}-1"


def addresses_of(name: str) -> list[str]:
    """A container's addresses, IPv4 first."""
    found = json.loads(docker("inspect", "--format", "{{json .NetworkSettings.Networks}}", name)).values()
    return [one[family] for family in ("IPAddress", "GlobalIPv6Address") for one in found if one[family]]
