"""A node of a cluster of the tests: containerd, CNI plugins, kubelet and kube-proxy in namespaces of their own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from tests.support import cgroups, kube_network
from tests.support.certificates import Authority
from tests.support.kube_images import PAUSE
from tests.support.kube_site import Site
from tests.support.wait import wait_until

DNS: Final = "10.96.0.10"
REGION: Final = "r1"
_READY_S: Final = 20.0
_IMPORT_S: Final = 120.0
_PLUGINS: Final = "/usr/lib/cni"
# What kubelet wants of the kernel it finds already there: it would set it for the whole machine.
_KERNEL: Final = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
# A node's own /run, /var/lib and /var/log: two nodes would meet there, and nothing is to be left.
_PRIVATE: Final = """
set -e
mount -t tmpfs tmpfs /run
mount --bind "$0/lib" /var/lib
mount --bind "$0/logs" /var/log
cd "$0/kernel"
find . -type f | while read -r key; do mount --bind "$key" "/proc/sys/$key"; done
exec "$@"
"""
_CONTAINERD: Final = """
version = 2
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""


class Node:
    """Node `number` of a site."""

    def __init__(self, site: Site, number: int, programs: Path, authority: Authority) -> None:
        self._site, self.number, self._programs, self._authority = site, number, programs, authority
        self.name = f"node{number}"
        self.zone = f"z{number}"
        self.label = f"n{number}"
        self.folder = site.folder / self.label
        self.socket = self.folder / "containerd.sock"
        self._containerd: subprocess.Popen[bytes] | None = None

    def start_containers(self) -> None:
        """Start containerd, which makes the namespace of the node's mounts."""
        for inner in ("lib", "logs", "cni", "kernel"):
            (self.folder / inner).mkdir(parents=True)
        for key, value in _KERNEL.items():
            path = self.folder / "kernel" / key
            path.parent.mkdir(exist_ok=True)
            path.write_text(value)
        (self.folder / "cni/10-pods.conflist").write_text(json.dumps(self._cni()))
        config = self.folder / "containerd.toml"
        config.write_text(_CONTAINERD.format(folder=self.folder, pause=PAUSE, plugins=_PLUGINS))
        private = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", _PRIVATE, str(self.folder)]
        space = self._site.space(self.label)
        argv = space.command(*private, "containerd", "--config", str(config))
        self._containerd = self._site.start(f"containerd{self.number}", *argv)

    def ctr(self, *arguments: str | Path) -> str:
        """What containerd's own command line says."""
        argv = ["ctr", "--address", str(self.socket), "--namespace", "k8s.io", *map(str, arguments)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_IMPORT_S, check=False)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
        return done.stdout

    def load(self, images: Iterable[Path]) -> None:
        """Import archives of images once containerd is there."""
        wait_until(self._containerd_is_ready, f"containerd of {self.name} is ready", _READY_S)
        for image in images:
            self.ctr("images", "import", image)

    def start_kubelet(self, kubeconfig: Path, proxy_kubeconfig: Path) -> None:
        """Start kubelet and kube-proxy; `kubeconfig` is of this node's own user."""
        kubelet, proxy = self.folder / "kubelet.json", self.folder / "proxy.json"
        kubelet.write_text(json.dumps(self._kubelet_config()))
        proxy.write_text(json.dumps(self._proxy_config(proxy_kubeconfig)))
        addresses = ",".join(kube_network.node_ips(self.number))
        self._inside(
            "kubelet",
            *(f"--config={kubelet}", f"--kubeconfig={kubeconfig}", f"--hostname-override={self.name}"),
            f"--node-ip={addresses}",
        )
        self._inside("kube-proxy", f"--config={proxy}")

    def object(self) -> dict[str, Any]:
        """The node as whoever administers the cluster registers it: with its place and its pods' addresses."""
        place = {"topology.kubernetes.io/region": REGION, "topology.kubernetes.io/zone": self.zone}
        ranges = list(kube_network.pod_ranges(self.number))
        labels = {"kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux", **place}
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": labels},
            "spec": {"podCIDR": ranges[0], "podCIDRs": ranges},
        }

    def _inside(self, program: str, *arguments: str) -> None:
        assert self._containerd is not None
        space = self._site.space(self.label)
        argv = ["nsenter", f"--net={space.path}", f"--mount=/proc/{self._containerd.pid}/ns/mnt", "--"]
        self._site.start(f"{program}{self.number}", *argv, self._programs / program, *arguments)

    def _containerd_is_ready(self) -> bool:
        self._site.check()
        argv = ["ctr", "--address", str(self.socket), "--connect-timeout", "1s", "version"]
        return subprocess.run(argv, capture_output=True, timeout=_READY_S, check=False).returncode == 0

    def _cni(self) -> dict[str, Any]:
        """Pods on a bridge on one node, each with a route of its own on the other: both are common."""
        ranges = [[{"subnet": subnet}] for subnet in kube_network.pod_ranges(self.number)]
        ipam: dict[str, Any] = {"type": "host-local", "dataDir": "/var/lib/cni", "ranges": ranges}
        ipam["routes"] = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
        bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": ipam}
        plugin = bridge if self.number % 2 else {"type": "ptp", "ipam": ipam}
        ports = {"type": "portmap", "capabilities": {"portMappings": True}}
        return {"cniVersion": "0.4.0", "name": "pods", "plugins": [plugin, ports]}

    def _kubelet_config(self) -> dict[str, Any]:
        site, name = self._site, self.name
        names = ",".join(f"IP:{address}" for address in kube_network.node_ips(self.number))
        certificate, key = self._authority.issue(f"serving-{name}", names=f"{names},DNS:{name}")
        resolv = self.folder / "resolv.conf"
        resolv.touch()
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,
            "failSwapOn": False,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{site.name}/{self.label}",
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "clusterDNS": [DNS],
            "clusterDomain": "cluster.local",
            "resolvConf": str(resolv),
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self._authority.certificate)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(certificate),
            "tlsPrivateKeyFile": str(key),
            "makeIPTablesUtilChains": False,
            # A machine whose disk is nearly full runs tests all the same.
            "evictionHard": {"nodefs.available": "0%", "imagefs.available": "0%", "memory.available": "50Mi"},
            "localStorageCapacityIsolation": False,
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        }

    def _proxy_config(self, kubeconfig: Path) -> dict[str, Any]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(kubeconfig)},
            "mode": "iptables",
            "detectLocalMode": "NodeCIDR",
            "hostnameOverride": self.name,
            # The table of connections is the whole machine's.
            "conntrack": {"maxPerCore": 0, "min": 0},
        }


def make_groups(site: Site) -> None:
    """The control groups of a cluster."""
    cgroups.make(site.name, "system", *(f"n{number}" for number in kube_network.NODES))
