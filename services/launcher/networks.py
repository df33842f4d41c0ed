"""Which network a cluster's nodes have, from what the API server tells, and whether the host's sides of pods' links show all.

Pure. One table of rules; the first rule that fits a node is its network. Where facts come from:

- names of DaemonSets: the manifests that each project or cloud publishes
- Cilium: `cilium-config`, and in its source (`daemon/cmd/kube_proxy_replacement.go`) what makes it fall back to the host's routing
- Calico: `FELIX_BPFENABLED` and FelixConfiguration, where `bpfRedirectToPeer` is on unless it is switched off
- labels, annotations and `spec.providerID`: what kubelets and cloud providers write
- what each datapath does to the host's side: measured for Cilium with host and with BPF routing, told by its documentation for the rest
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeVar

_Told = TypeVar("_Told")
_ON: Final = ("true", "strict", "enabled")
_REDIRECTS: Final = (5, 10)
"""The first kernel that hands a packet to a pod past the host's side of its link (`bpf_redirect_peer`)."""
_BPF_RIGHTS: Final = (5, 8)
"""The first kernel that knows BPF and PERFMON as rights of their own, with which agents count in it."""
CILIUM_CONFIG: Final = "cilium-config"


class Sides(StrEnum):
    """What the host's side of a pod's link shows."""

    BOTH = "both"
    PART = "part"
    """What pods receive goes past it; with netkit perhaps all."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Daemon:
    """A DaemonSet: the variables of its containers, and the labels that its nodes must have."""

    namespace: str
    name: str
    variables: Mapping[str, str] = field(default_factory=dict)
    selector: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, namespace: str, name: str, pod: Mapping[str, Any]) -> Daemon:
        """From what its pods are to be (`spec` of a pod)."""
        variables = {
            one["name"]: str(one.get("value", ""))
            for container in pod.get("containers", ())
            for one in container.get("env", ())
            if "valueFrom" not in one
        }
        return cls(namespace, name, variables, pod.get("nodeSelector") or {})

    def runs_on(self, node: Mapping[str, Any]) -> bool:
        """Whether the node has the labels; what is asked for by affinity is not looked at."""
        labels: Mapping[str, str] = node["metadata"].get("labels") or {}
        return all(labels.get(name) == value for name, value in self.selector.items())


@dataclass(frozen=True, slots=True)
class Facts:
    """What the API server told; None where it refused or has no such thing."""

    daemons: Sequence[Daemon] | None = None
    cilium: Mapping[str, str] | None = None
    """The data of `cilium-config`."""
    felix: Mapping[str, Any] | None = None
    """The spec of Calico's FelixConfiguration `default`."""


@dataclass(frozen=True, slots=True)
class Network:
    """What a node has: `links` says how the host's sides of pods are called, `why` from where that is known."""

    name: str
    datapath: str = ""
    links: str = ""
    sides: Sides = Sides.UNKNOWN
    why: str = ""

    @property
    def title(self) -> str:
        """Name and datapath."""
        return f"{self.name}, {self.datapath}" if self.datapath else self.name

    @property
    def needs_cgroup(self) -> bool:
        """Whether only counting at sockets sees all."""
        return self.sides is Sides.PART


Node = Mapping[str, Any]
Judge = Callable[["Rule", Facts, Node, Daemon | None], Network]


def _plain(rule: Rule, _facts: Facts, _node: Node, _daemon: Daemon | None) -> Network:
    """Packets pass the host's side in both directions."""
    return Network(rule.name, "", rule.links, Sides.BOTH)


def _cilium(rule: Rule, facts: Facts, node: Node, _daemon: Daemon | None) -> Network:
    config = facts.cilium
    if config is None:
        return Network(rule.name, "datapath unknown", rule.links, why=f"{CILIUM_CONFIG} cannot be read")
    mode = config.get("datapath-mode", "veth")
    chained = config.get("cni-chaining-mode", "none")
    if chained not in {"none", ""}:
        # Another plugin makes the links, Cilium watches over them.
        return Network(rule.name, f"chained to {chained}", "", why=f"cni-chaining-mode in {CILIUM_CONFIG}")
    if mode != "veth":
        sides = Sides.PART if mode.startswith("netkit") else Sides.UNKNOWN
        return Network(rule.name, mode, rule.links, sides, f"datapath-mode in {CILIUM_CONFIG}")
    return _by_routing(rule, config, node)


def _by_routing(rule: Rule, config: Mapping[str, str], node: Node) -> Network:
    if kept := _host_routing(config, node):
        return Network(rule.name, "host routing (legacy)", rule.links, Sides.BOTH, kept)
    if _on(config, "enable-endpoint-routes"):
        why = f"enable-endpoint-routes in {CILIUM_CONFIG}, of which versions make different things"
        return Network(rule.name, "BPF or host routing", rule.links, why=why)
    return Network(rule.name, "BPF host routing", rule.links, Sides.PART, f"nothing in {CILIUM_CONFIG} is against it")


def _host_routing(config: Mapping[str, str], node: Node) -> str:
    """Why Cilium leaves routing to the host; empty where it does not."""
    masquerades = _on(config, "enable-ipv4-masquerade", "true") or _on(config, "enable-ipv6-masquerade", "true")
    reasons = {
        "enable-host-legacy-routing is on": _on(config, "enable-host-legacy-routing"),
        "kube-proxy-replacement is not on": not (
            _on(config, "kube-proxy-replacement") or _on(config, "enable-node-port")
        ),
        "enable-bpf-masquerade is not on": masquerades and not _on(config, "enable-bpf-masquerade"),
        "enable-ipsec is on": _on(config, "enable-ipsec"),
    }
    kernel = kernel_of(node)
    reasons[f"its kernel is older than {_REDIRECTS[0]}.{_REDIRECTS[1]}"] = kernel is not None and kernel < _REDIRECTS
    return next((why for why, holds in reasons.items() if holds), "")


def _on(config: Mapping[str, str], key: str, default: str = "false") -> bool:
    return config.get(key, default).lower() in _ON


def _calico(rule: Rule, facts: Facts, node: Node, daemon: Daemon | None) -> Network:
    variables: Mapping[str, str] = daemon.variables if daemon else {}
    felix = facts.felix or {}
    # A variable is stronger than the cluster's configuration.
    bpf = variables.get("FELIX_BPFENABLED", str(felix.get("bpfEnabled", ""))).lower() == "true"
    if bpf:
        redirect = variables.get("FELIX_BPFREDIRECTTOPEER", str(felix.get("bpfRedirectToPeer", "")))
        kernel = kernel_of(node)
        if redirect == "Disabled" or (kernel is not None and kernel < _REDIRECTS):
            return Network(
                rule.name, "eBPF without redirection to peers", rule.links, Sides.BOTH, "bpfRedirectToPeer, kernel"
            )
        return Network(rule.name, "eBPF", rule.links, Sides.PART, "bpfEnabled")
    if facts.felix is None and "FELIX_BPFENABLED" not in variables:
        why = "FelixConfiguration cannot be read: that eBPF is off is assumed"
        return Network(rule.name, "iptables or nftables", rule.links, Sides.BOTH, why)
    return Network(rule.name, "iptables or nftables", rule.links, Sides.BOTH, "bpfEnabled is not on")


def _aws(rule: Rule, _facts: Facts, _node: Node, daemon: Daemon | None) -> Network:
    variables: Mapping[str, str] = daemon.variables if daemon else {}
    prefix = variables.get("AWS_VPC_K8S_CNI_VETHPREFIX") or "eni"
    more = ", vlan…" if variables.get("ENABLE_POD_ENI", "").lower() == "true" else ""
    return Network(rule.name, "", f"{prefix}…{more}", Sides.BOTH)


def _likely(rule: Rule, _facts: Facts, _node: Node, _daemon: Daemon | None) -> Network:
    """The platform's usual network, where none was seen to run."""
    return Network(rule.name, "", rule.links, why="as usual there; no DaemonSet of a network was seen")


@dataclass(frozen=True, slots=True)
class Rule:
    """A network's name and marks: any of its DaemonSets, or any of these beginnings of a label, an annotation or a providerID."""

    name: str
    links: str
    daemons: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    annotations: tuple[str, ...] = ()
    provider_ids: tuple[str, ...] = ()
    judge: Judge = _plain

    def mark(self, facts: Facts, node: Node) -> tuple[str, Daemon | None] | None:
        """What shows it on this node, in words; None where nothing does."""
        for daemon in facts.daemons or ():
            if daemon.name in self.daemons and daemon.runs_on(node):
                return f"DaemonSet {daemon.namespace}/{daemon.name}", daemon
        metadata = node["metadata"]
        for what, marks, there in (
            ("label", self.labels, metadata.get("labels") or {}),
            ("annotation", self.annotations, metadata.get("annotations") or {}),
            ("providerID", self.provider_ids, [node.get("spec", {}).get("providerID") or ""]),
        ):
            for one in there:
                if marks and one.startswith(marks):
                    return f"{what} {one}", None
        return None


RULES: Final = (
    # Before those that they stand on or replace.
    Rule("GKE Dataplane V2", "gke… or lxc…", ("anetd",), judge=_cilium),
    Rule("Cilium", "lxc…", ("cilium",), annotations=("network.cilium.io/", "io.cilium.network."), judge=_cilium),
    Rule("AWS VPC CNI", "eni…", ("aws-node",), judge=_aws),
    Rule(
        "Azure CNI", "azv…", ("azure-cns", "azure-cni-networkmonitor"), labels=("kubernetes.azure.com/podnetwork-type",)
    ),
    Rule("OCI VCN-native", "oci…", ("vcn-native-ip-cni",), labels=("oci.oraclecloud.com/vcn-native-ip-cni",)),
    Rule("Canal", "cali…", ("canal", "rke2-canal"), judge=_calico),
    Rule("GKE", "gke… or veth…", ("netd",)),
    Rule("Calico", "cali…", ("calico-node",), annotations=("projectcalico.org/",), judge=_calico),
    Rule("OVN-Kubernetes", "15 hexadecimal digits", ("ovnkube-node",), annotations=("k8s.ovn.org/",)),
    Rule("Antrea", "pod-name-hash", ("antrea-agent",), annotations=("node.antrea.io/",)),
    Rule("Weave", "vethwepl…", ("weave-net",)),
    Rule("kube-router", "veth…", ("kube-router",)),
    Rule("kindnet", "veth…", ("kindnet",)),
    Rule("flannel", "veth…", ("kube-flannel-ds", "kube-flannel"), annotations=("flannel.alpha.coreos.com/",)),
    Rule("AWS VPC CNI", "eni…", provider_ids=("aws://",), judge=_likely),
    Rule("Azure CNI or kubenet", "azv… or veth…", provider_ids=("azure://",), judge=_likely),
    Rule("GKE", "gke… or veth…", labels=("cloud.google.com/gke-",), judge=_likely),
    Rule("kindnet", "veth…", provider_ids=("kind://",), judge=_likely),
    Rule("minikube", "veth…", labels=("minikube.k8s.io/",), judge=_likely),
)
"""In this order: where two fit, the one that gives pods their links comes before what only watches over them."""
UNRECOGNISED: Final = "not recognised"


def network_of(node: Node, facts: Facts) -> Network:
    """A node's network."""
    for rule in RULES:
        if (found := rule.mark(facts, node)) is not None:
            mark, daemon = found
            network = rule.judge(rule, facts, node, daemon)
            why = f"{mark}; {network.why}" if network.why else mark
            return Network(network.name, network.datapath, network.links, network.sides, why)
    seen = "no DaemonSet of a known network" if facts.daemons is not None else "DaemonSets and pods may not be listed"
    return Network(UNRECOGNISED, why=f"{seen}, nothing on the node")


def source_of(capture: str, node: Node) -> tuple[str, str]:
    """The source that agents of the setting `capture` take on a node, and why; what really runs `status` knows."""
    if capture != "auto":
        return capture, "as asked for"
    kernel = kernel_of(node)
    if kernel is not None and kernel < _BPF_RIGHTS:
        return "ring", f"auto, on Linux before {_BPF_RIGHTS[0]}.{_BPF_RIGHTS[1]} without more rights"
    return "ebpf", "auto: the best that an agent's rights allow"


def kernel_of(node: Node) -> tuple[int, int] | None:
    """The node's kernel; None where it does not tell."""
    version = str(node.get("status", {}).get("nodeInfo", {}).get("kernelVersion", ""))
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else None


def advice(network: Network, source: str) -> str:
    """What to do where the source sees less than all; empty where nothing is to be done or known."""
    if source == "cgroup" or network.sides is Sides.BOTH:
        return ""
    if network.needs_cgroup:
        return (
            "not all of pods' traffic passes the host's side of their links: --capture cgroup counts it at sockets "
            "(it needs NET_ADMIN, and the host's /sys/fs/cgroup to read)"
        )
    return "whether all passes the host's side of pods' links is not known: `status` shows what is seen; if too little, --capture cgroup"


def grouped(lines: Iterable[tuple[_Told, str]]) -> dict[_Told, list[str]]:
    """The nodes (second) of whom the same is told (first), in the order of both."""
    found: dict[_Told, list[str]] = {}
    for told, node in lines:
        found.setdefault(told, []).append(node)
    return found
