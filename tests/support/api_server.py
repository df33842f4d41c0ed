"""A real Kubernetes API server for a test: kube-apiserver over an etcd, on the loopback interface, and no nodes."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any, Final

from tests.support.certificates import Authority, signing_key
from tests.support.kube_client import KubeClient, Refused
from tests.support.wait import wait_until

SERVICE_RANGES: Final = ("10.96.0.0/16", "fd96::/112")
TOKEN_S: Final = 3600
_READY_S: Final = 40.0
"""It takes four seconds; a machine whose processors are all busy takes five times as long."""
_END_S: Final = 10.0


class ApiServer:
    """kube-apiserver and etcd of `programs`, with all that they write in `folder`.

    Nothing else of a cluster runs: no controller makes pods of a Deployment, collects what lost its owner or
    finalizes a namespace, and no kubelet runs a pod. What is to have a status is given one.

    Its processes end with the thread that started them, also when that was killed.
    """

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self._folder = programs, folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._store = f"unix://{folder}/etcd.sock"
        self._held = _held_port()
        self.port = int(self._held.getsockname()[1])
        self.url = f"https://127.0.0.1:{self.port}"
        self._authority = Authority(folder)
        self._keys = signing_key(folder, "service-accounts")
        names = "IP:127.0.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
        self._serving = self._authority.issue("kube-apiserver", names=names)
        self._users: dict[tuple[str, ...], tuple[Path, Path]] = {}
        self.admin = self.client("admin", "system:masters")

    def start(self) -> None:
        """Start both and wait until the API server is ready."""
        for name, arguments in (("etcd", self._etcd()), ("kube-apiserver", self._api())):
            self._processes[name] = self._started(name, arguments)
        try:
            wait_until(self._is_ready, "the API server is ready", timeout_s=_READY_S)
        except AssertionError as error:
            self.kill()
            raise AssertionError(f"{error}\n{self.log()}") from error

    def stop(self) -> None:
        """End both in order, the API server first."""
        for name in ("kube-apiserver", "etcd"):
            if process := self._processes.pop(name, None):
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=_END_S)
                process.kill()
                process.wait()

    def kill(self) -> None:
        """End both without any chance to say goodbye."""
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._processes.clear()

    def restart(self) -> None:
        """Stop what runs and start it again, on the same port with the same data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop it for good."""
        self.stop()
        self._held.close()

    def signal(self, number: signal.Signals) -> None:
        """Send the API server a signal: SIGSTOP makes one that accepts connections and never answers."""
        self._processes["kube-apiserver"].send_signal(number)

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each program that runs."""
        return {name: process.pid for name, process in self._processes.items()}

    def client(self, user: str, *groups: str) -> KubeClient:
        """Requests of a user with a client certificate."""
        context = ssl.create_default_context(cafile=str(self._authority.certificate))
        context.load_cert_chain(*self._certificate(user, *groups))
        return KubeClient(self.port, context)

    def client_of(self, token: str) -> KubeClient:
        """Requests of whoever has this token."""
        return KubeClient(self.port, ssl.create_default_context(cafile=str(self._authority.certificate)), token)

    def token(self, namespace: str, service_account: str) -> str:
        """A token of a service account that exists, for an hour."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": TOKEN_S},
        }
        return str(self.admin.request("POST", path, request)["status"]["token"])

    def kubeconfig(self, user: str = "admin", *groups: str) -> Path:
        """A file as kubectl takes it, of a user with a client certificate; `admin` is in `system:masters`."""
        certificate, key = self._certificate(user, *(groups or ("system:masters",) * (user == "admin")))
        return self._written(user, {"client-certificate": str(certificate), "client-key": str(key)})

    def token_kubeconfig(self, namespace: str, service_account: str) -> Path:
        """The same for a service account."""
        token = self.token(namespace, service_account)
        return self._written(f"{namespace}-{service_account}", {"token": token})

    def log(self, lines: int = 20) -> str:
        """The end of what each program wrote."""
        tails = []
        for path in sorted(self._folder.glob("*.log")):
            tails += [f"--- {path.name}", *path.read_text(errors="replace").splitlines()[-lines:]]
        return "\n".join(tails)

    def _certificate(self, user: str, *groups: str) -> tuple[Path, Path]:
        if (user, *groups) not in self._users:
            self._users[user, *groups] = self._authority.issue(user, *groups)
        return self._users[user, *groups]

    def _written(self, user: str, credentials: dict[str, str]) -> Path:
        cluster = {"server": self.url, "certificate-authority": str(self._authority.certificate)}
        content: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": user, "user": credentials}],
            "contexts": [{"name": user, "context": {"cluster": "tests", "user": user}}],
            "current-context": user,
        }
        path = self._folder / f"{user.replace(':', '-')}.kubeconfig"
        path.write_text(json.dumps(content))
        path.chmod(0o600)
        return path

    def _started(self, name: str, arguments: list[str]) -> subprocess.Popen[bytes]:
        program = self._programs / name
        with (self._folder / f"{name}.log").open("ab") as log:
            # setpriv becomes the program, so the process id is the program's own.
            argv = ["setpriv", "--pdeathsig", "KILL", str(program), *arguments]
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder)

    def _etcd(self) -> list[str]:
        # A single member listens on sockets; what it advertises has to be host and port, and nobody asks there.
        advertised = "http://127.0.0.1:2380"
        return [
            *("--name=tests", f"--data-dir={self._folder}/etcd", "--unsafe-no-fsync", "--log-level=warn"),
            *(f"--listen-client-urls={self._store}", f"--advertise-client-urls={advertised}"),
            *(f"--listen-peer-urls=unix://{self._folder}/peer.sock", f"--initial-advertise-peer-urls={advertised}"),
            f"--initial-cluster=tests={advertised}",
        ]

    def _api(self) -> list[str]:
        certificate, key = self._serving
        private, public = self._keys
        return [
            *(f"--etcd-servers={self._store}", f"--client-ca-file={self._authority.certificate}"),
            *("--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--secure-port={self.port}"),
            # The port is held by a socket that never listens, so that nobody else gets it.
            "--permit-port-sharing",
            *(f"--tls-cert-file={certificate}", f"--tls-private-key-file={key}"),
            # The loopback address is none that the Service `kubernetes` may have as an endpoint.
            *("--endpoint-reconciler-type=none", f"--service-cluster-ip-range={','.join(SERVICE_RANGES)}"),
            *("--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged"),
            # It demands service accounts that a controller would make.
            "--disable-admission-plugins=ServiceAccount",
            "--service-account-issuer=https://kubernetes.default.svc",
            *(f"--service-account-key-file={public}", f"--service-account-signing-key-file={private}"),
        ]

    def _is_ready(self) -> bool:
        ended = {name: process.returncode for name, process in self._processes.items() if process.poll() is not None}
        if ended:
            self.kill()
            raise AssertionError(f"ended at once: {ended}\n{self.log()}")
        with contextlib.suppress(OSError, Refused, http.client.HTTPException):
            return self.admin.plain("/readyz") == "ok"
        return False


def _held_port() -> socket.socket:
    """A socket that holds a free port of 127.0.0.1 for somebody else of this user to listen on."""
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("127.0.0.1", 0))
    return held
