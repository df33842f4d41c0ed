"""The control plane of a cluster of the tests: etcd, API server, controllers and scheduler in a namespace of their own."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.support.certificates import Authority, signing_key
from tests.support.kube_network import CONTROL, SERVICES, host_ips
from tests.support.kube_site import Site

PORT: Final = 6443
_NAMES: Final = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")


class ControlPlane:
    """Programs of `apiserver` (etcd, kube-apiserver) and `cluster` (the others) in the site's namespace `control`."""

    def __init__(self, site: Site, apiserver: Path, cluster: Path) -> None:
        self._site, self._apiserver, self._cluster = site, apiserver, cluster
        self._folder = site.folder / "control"
        self._folder.mkdir()
        self.authority = Authority(self._folder)
        self.host = host_ips(site)[0]
        self.kubeconfig = self.user("admin", "system:masters", host=self.host)
        self._api_flags: list[str] = []

    def start_api(self) -> None:
        """Start etcd and the API server."""
        store = f"unix://{self._folder}/etcd.sock"
        self._start(self._apiserver / "etcd", *self._etcd(store))
        self._api_flags = self._api(store)
        self._start(self._apiserver / "kube-apiserver", *self._api_flags)

    @contextlib.contextmanager
    def api_killed(self) -> Iterator[None]:
        """No API server, and nothing of the connections through it, while inside; started anew after."""
        running = self._site.programs["kube-apiserver"]
        running.kill()
        running.wait()
        try:
            yield
        finally:
            self._start(self._apiserver / "kube-apiserver", *self._api_flags)

    def start_controllers(self) -> None:
        """Start what makes pods of Deployments and gives them nodes, once the API server is there."""
        certificate, key = self.authority.certificate, self.authority.key
        for name, more in (
            ("kube-scheduler", ()),
            (
                "kube-controller-manager",
                (
                    *(f"--root-ca-file={certificate}", "--use-service-account-credentials"),
                    f"--service-account-private-key-file={self._folder}/service-accounts.key",
                    *(f"--cluster-signing-cert-file={certificate}", f"--cluster-signing-key-file={key}"),
                ),
            ),
        ):
            mine = self.user(f"system:{name}")
            access = (f"--{kind}kubeconfig={mine}" for kind in ("", "authentication-", "authorization-"))
            self._start(self._cluster / name, *access, "--leader-elect=false", *more)

    def tls(self) -> ssl.SSLContext:
        """What the administrator proves who it is with."""
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        context.load_cert_chain(*(str(self._folder / f"admin.{suffix}") for suffix in ("crt", "key")))
        return context

    def user(self, name: str, *groups: str, host: str = CONTROL[0]) -> Path:
        """A kubeconfig of a user with a client certificate that reaches the API server at `host`."""
        certificate, key = self.authority.issue(name, *groups)
        content: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": self._site.name,
                    "cluster": {
                        "server": f"https://{host}:{PORT}",
                        "certificate-authority": str(self.authority.certificate),
                    },
                }
            ],
            "users": [{"name": name, "user": {"client-certificate": str(certificate), "client-key": str(key)}}],
            "contexts": [{"name": name, "context": {"cluster": self._site.name, "user": name}}],
            "current-context": name,
        }
        path = self._folder / f"{name.replace(':', '-')}.kubeconfig"
        path.write_text(json.dumps(content))
        path.chmod(0o600)
        return path

    def _start(self, program: Path, *arguments: str) -> None:
        self._site.start(program.name, *self._site.space("control").command(str(program), *arguments))

    def _etcd(self, store: str) -> list[str]:
        # A single member listens on sockets; what it advertises has to be host and port, and nobody asks there.
        advertised = "http://127.0.0.1:2380"
        return [
            *("--name=control", f"--data-dir={self._folder}/etcd", "--unsafe-no-fsync", "--log-level=warn"),
            *(f"--listen-client-urls={store}", f"--advertise-client-urls={advertised}"),
            *(f"--listen-peer-urls=unix://{self._folder}/peer.sock", f"--initial-advertise-peer-urls={advertised}"),
            f"--initial-cluster=control={advertised}",
        ]

    def _api(self, store: str) -> list[str]:
        private, public = signing_key(self._folder, "service-accounts")
        addresses = (self.host, *CONTROL, "127.0.0.1", "10.96.0.1", "fd96::1")
        names = ",".join([f"IP:{address}" for address in addresses] + [f"DNS:{name}" for name in _NAMES])
        certificate, key = self.authority.issue("kube-apiserver", names=names)
        mine, mine_key = self.authority.issue("apiserver-to-kubelet", "system:masters")
        return [
            *(f"--etcd-servers={store}", f"--client-ca-file={self.authority.certificate}"),
            *("--bind-address=0.0.0.0", f"--advertise-address={CONTROL[0]}", f"--secure-port={PORT}"),
            *(f"--tls-cert-file={certificate}", f"--tls-private-key-file={key}"),
            f"--service-cluster-ip-range={','.join(SERVICES)}",
            *("--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged"),
            "--service-account-issuer=https://kubernetes.default.svc",
            *(f"--service-account-key-file={public}", f"--service-account-signing-key-file={private}"),
            *(f"--kubelet-client-certificate={mine}", f"--kubelet-client-key={mine_key}"),
            f"--kubelet-certificate-authority={self.authority.certificate}",
            "--kubelet-preferred-address-types=InternalIP",
        ]
