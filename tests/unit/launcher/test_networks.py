"""Networks are recognised by objects as their projects and clouds make them."""

from __future__ import annotations

from typing import Any, Final

import pytest

from services.launcher import network_facts, networks
from services.launcher.networks import RULES, UNRECOGNISED, Daemon, Facts, Network, Sides

BPF: Final = {
    "datapath-mode": "veth",
    "enable-bpf-masquerade": "true",
    "enable-host-legacy-routing": "false",
    "enable-ipv4": "true",
    "enable-ipv4-masquerade": "true",
    "ipam": "cluster-pool",
    "kube-proxy-replacement": "true",
    "routing-mode": "native",
}
"""What Cilium's chart writes into cilium-config for BPF host routing."""
HOST: Final = {**BPF, "kube-proxy-replacement": "false", "enable-bpf-masquerade": "false"}
"""… and without any choice."""


def node(
    name: str = "n1",
    kernel: str = "6.1.0-18-amd64",
    provider: str = "",
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
) -> dict[str, Any]:
    metadata = {
        "name": name,
        "labels": {"kubernetes.io/os": "linux"} | (labels or {}),
        "annotations": annotations or {},
    }
    spec = {"providerID": provider} if provider else {}
    info = {"kernelVersion": kernel, "operatingSystem": "linux"}
    return {"metadata": metadata, "spec": spec, "status": {"nodeInfo": info}}


def daemon(where: str, name: str, selector: dict[str, str] | None = None, **variables: str) -> Daemon:
    """As the API server tells of one."""
    listed = [{"name": key, "value": value} for key, value in variables.items()]
    listed.append({"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}})  # type: ignore[dict-item]
    pod = {"containers": [{"name": name, "env": listed}], "nodeSelector": selector or {"kubernetes.io/os": "linux"}}
    return Daemon.of(where, name, pod)


def system(name: str, **variables: str) -> Facts:
    """A cluster that has that DaemonSet beside those that all have."""
    return Facts([daemon("kube-system", "kube-proxy"), daemon("kube-system", name, None, **variables)])


EKS: Final = node(provider="aws:///eu-central-1a/i-0123456789abcdef0", labels={"eks.amazonaws.com/nodegroup": "main"})
AZURE: Final = node(
    provider="azure:///subscriptions/0/resourceGroups/mc/providers/Microsoft.Compute/virtualMachineScaleSets/a/virtualMachines/0",
    labels={"kubernetes.azure.com/cluster": "mc"},
)
GKE_NODE: Final = node(
    provider="gce://project/europe-west3-a/gke-lab-pool-1-abcd",
    labels={"cloud.google.com/gke-nodepool": "pool-1", "cloud.google.com/gke-os-distribution": "cos"},
)
CASES: Final[dict[str, tuple[dict[str, Any], Facts, tuple[str, str, Sides]]]] = {
    "cilium, host": (node(), Facts(system("cilium").daemons, HOST), ("Cilium", "host routing (legacy)", Sides.BOTH)),
    "cilium, bpf": (node(), Facts(system("cilium").daemons, BPF), ("Cilium", "BPF host routing", Sides.PART)),
    "cilium, strict": (
        node(),
        Facts(system("cilium").daemons, {**BPF, "kube-proxy-replacement": "strict"}),
        ("Cilium", "BPF host routing", Sides.PART),
    ),
    "cilium, told to be legacy": (
        node(),
        Facts(system("cilium").daemons, {**BPF, "enable-host-legacy-routing": "true"}),
        ("Cilium", "host routing (legacy)", Sides.BOTH),
    ),
    "cilium, old kernel": (
        node(kernel="5.4.0-150-generic"),
        Facts(system("cilium").daemons, BPF),
        ("Cilium", "host routing (legacy)", Sides.BOTH),
    ),
    "cilium, ipsec": (
        node(),
        Facts(system("cilium").daemons, {**BPF, "enable-ipsec": "true"}),
        ("Cilium", "host routing (legacy)", Sides.BOTH),
    ),
    "cilium, nothing masqueraded": (
        node(),
        Facts(
            system("cilium").daemons,
            {
                **BPF,
                "enable-bpf-masquerade": "false",
                "enable-ipv4-masquerade": "false",
                "enable-ipv6-masquerade": "false",
            },
        ),
        ("Cilium", "BPF host routing", Sides.PART),
    ),
    "cilium, endpoint routes": (
        node(),
        Facts(system("cilium").daemons, {**BPF, "enable-endpoint-routes": "true"}),
        ("Cilium", "BPF or host routing", Sides.UNKNOWN),
    ),
    "cilium, netkit": (
        node(kernel="6.8.0"),
        Facts(system("cilium").daemons, {**BPF, "datapath-mode": "netkit"}),
        ("Cilium", "netkit", Sides.PART),
    ),
    "cilium, netkit-l2": (
        node(kernel="6.8.0"),
        Facts(system("cilium").daemons, {**BPF, "datapath-mode": "netkit-l2"}),
        ("Cilium", "netkit-l2", Sides.PART),
    ),
    "cilium, chained": (
        EKS,
        Facts(system("cilium").daemons, {**HOST, "cni-chaining-mode": "aws-cni"}),
        ("Cilium", "chained to aws-cni", Sides.UNKNOWN),
    ),
    "cilium, no right": (node(), system("cilium"), ("Cilium", "datapath unknown", Sides.UNKNOWN)),
    "cilium, by its annotation": (
        node(annotations={"network.cilium.io/ipv4-pod-cidr": "10.0.0.0/24"}),
        Facts(),
        ("Cilium", "datapath unknown", Sides.UNKNOWN),
    ),
    "gke dataplane v2": (
        GKE_NODE,
        Facts([daemon("kube-system", "anetd"), daemon("kube-system", "netd")], HOST),
        ("GKE Dataplane V2", "host routing (legacy)", Sides.BOTH),
    ),
    "gke": (GKE_NODE, system("netd"), ("GKE", "", Sides.BOTH)),
    "gke, with calico's policies": (
        GKE_NODE,
        Facts([daemon("kube-system", "calico-node", FELIX_INTERFACEPREFIX="gke"), daemon("kube-system", "netd")]),
        ("GKE", "", Sides.BOTH),
    ),
    "gke, no right": (GKE_NODE, Facts(), ("GKE", "", Sides.UNKNOWN)),
    "aws": (EKS, system("aws-node", AWS_VPC_K8S_CNI_VETHPREFIX="eni"), ("AWS VPC CNI", "", Sides.BOTH)),
    "aws, no right": (EKS, Facts(), ("AWS VPC CNI", "", Sides.UNKNOWN)),
    "cilium instead of aws": (
        EKS,
        Facts(
            [
                daemon("kube-system", "aws-node", {"io.cilium/aws-node-enabled": "true"}),
                daemon("kube-system", "cilium"),
            ],
            BPF,
        ),
        ("Cilium", "BPF host routing", Sides.PART),
    ),
    "azure": (AZURE, system("azure-cns"), ("Azure CNI", "", Sides.BOTH)),
    "azure, overlay": (
        node(labels={"kubernetes.azure.com/podnetwork-type": "overlay"}),
        Facts(),
        ("Azure CNI", "", Sides.BOTH),
    ),
    "azure, powered by cilium": (
        AZURE,
        Facts([daemon("kube-system", "azure-cns"), daemon("kube-system", "cilium")], HOST),
        ("Cilium", "host routing (legacy)", Sides.BOTH),
    ),
    "azure, no right": (AZURE, Facts(), ("Azure CNI or kubenet", "", Sides.UNKNOWN)),
    "oci": (
        node(provider="ocid1.instance.oc1.eu-frankfurt-1.abc"),
        system("vcn-native-ip-cni"),
        ("OCI VCN-native", "", Sides.BOTH),
    ),
    "oci, by its label": (
        node(labels={"oci.oraclecloud.com/vcn-native-ip-cni": "true"}),
        Facts(),
        ("OCI VCN-native", "", Sides.BOTH),
    ),
    "oci, flannel": (
        node(provider="ocid1.instance.oc1.eu-frankfurt-1.abc"),
        system("kube-flannel-ds"),
        ("flannel", "", Sides.BOTH),
    ),
    "calico": (
        node(annotations={"projectcalico.org/IPv4Address": "10.0.0.4/24"}),
        Facts([daemon("calico-system", "calico-node", FELIX_BPFENABLED="false")], None, {"bpfEnabled": False}),
        ("Calico", "iptables or nftables", Sides.BOTH),
    ),
    "calico, ebpf by its operator": (
        node(),
        Facts([daemon("calico-system", "calico-node", FELIX_BPFENABLED="true")]),
        ("Calico", "eBPF", Sides.PART),
    ),
    "calico, ebpf": (
        node(),
        Facts(system("calico-node").daemons, None, {"bpfEnabled": True, "bpfLogLevel": ""}),
        ("Calico", "eBPF", Sides.PART),
    ),
    "calico, ebpf, no redirection": (
        node(),
        Facts(system("calico-node").daemons, None, {"bpfEnabled": True, "bpfRedirectToPeer": "Disabled"}),
        ("Calico", "eBPF without redirection to peers", Sides.BOTH),
    ),
    "calico, no right": (
        node(annotations={"projectcalico.org/IPv4Address": "10.0.0.4/24"}),
        Facts(),
        ("Calico", "iptables or nftables", Sides.BOTH),
    ),
    "canal": (node(), system("rke2-canal"), ("Canal", "iptables or nftables", Sides.BOTH)),
    "ovn": (
        node(annotations={"k8s.ovn.org/node-subnets": '{"default":["10.128.0.0/23"]}'}),
        Facts([daemon("openshift-ovn-kubernetes", "ovnkube-node")]),
        ("OVN-Kubernetes", "", Sides.BOTH),
    ),
    "antrea": (node(), system("antrea-agent"), ("Antrea", "", Sides.BOTH)),
    "weave": (node(), system("weave-net"), ("Weave", "", Sides.BOTH)),
    "kube-router": (node(), system("kube-router"), ("kube-router", "", Sides.BOTH)),
    "kindnet": (node(provider="kind://docker/kind/kind-worker"), system("kindnet"), ("kindnet", "", Sides.BOTH)),
    "kindnet, no right": (node(provider="kind://docker/kind/kind-worker"), Facts(), ("kindnet", "", Sides.UNKNOWN)),
    "kind, with another network": (
        node(provider="kind://docker/kind/kind-worker"),
        system("weave-net"),
        ("Weave", "", Sides.BOTH),
    ),
    "flannel": (node(), Facts([daemon("kube-flannel", "kube-flannel-ds")]), ("flannel", "", Sides.BOTH)),
    "flannel in k3s": (
        node(
            provider="k3s://n1",
            labels={"node.kubernetes.io/instance-type": "k3s"},
            annotations={"flannel.alpha.coreos.com/backend-type": "vxlan"},
        ),
        Facts([]),
        ("flannel", "", Sides.BOTH),
    ),
    "minikube": (
        node("minikube", labels={"minikube.k8s.io/name": "minikube"}),
        Facts([]),
        ("minikube", "", Sides.UNKNOWN),
    ),
    "nobody's": (node(), Facts([daemon("kube-system", "kube-proxy")]), (UNRECOGNISED, "", Sides.UNKNOWN)),
    "nobody's, no right": (node(), Facts(), (UNRECOGNISED, "", Sides.UNKNOWN)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_network_is_recognised(case: str) -> None:
    one, facts, expected = CASES[case]
    found = networks.network_of(one, facts)
    assert (found.name, found.datapath, found.sides) == expected
    assert found.why


def test_every_rule_has_a_case() -> None:
    reached = set()
    for one, facts, _ in CASES.values():
        rule = next((rule for rule in RULES if rule.mark(facts, one)), None)
        reached.add(rule)
    assert reached == {*RULES, None}


def test_links_are_called_as_the_network_was_told_to() -> None:
    found = networks.network_of(EKS, system("aws-node", AWS_VPC_K8S_CNI_VETHPREFIX="pod", ENABLE_POD_ENI="true"))
    assert found.links == "pod…, vlan…"
    assert networks.network_of(EKS, system("aws-node")).links == "eni…"


@pytest.mark.parametrize(
    ("capture", "kernel", "source"),
    [
        ("auto", "6.1.0", "ebpf"),
        ("auto", "5.8.0", "ebpf"),
        ("auto", "5.7.19", "ring"),
        ("auto", "", "ebpf"),
        ("tcx", "6.6.1", "tcx"),
        ("cgroup", "5.4.0", "cgroup"),
    ],
)
def test_the_source_and_its_reason(capture: str, kernel: str, source: str) -> None:
    found, reason = networks.source_of(capture, node(kernel=kernel))
    assert found == source
    assert reason.startswith("auto" if capture == "auto" else "as asked for")


def said(*listed: tuple[dict[str, Any], Facts], capture: str = "auto") -> list[str]:
    """What `start` says of these nodes."""
    lines: list[str] = []
    found = {one["metadata"]["name"]: networks.network_of(one, facts) for one, facts in listed}
    network_facts.told([one for one, _ in listed], found, capture, lines.append)
    return lines


def test_where_only_sockets_show_all_one_sentence_says_so() -> None:
    facts = Facts(system("cilium").daemons, BPF)
    [line] = said((node("n1"), facts), (node("n2"), facts))
    assert line.startswith(
        "network of n1, n2: Cilium, BPF host routing (DaemonSet kube-system/cilium; nothing in cilium-config"
    )
    assert "; pods' links are called lxc…; agents count by ebpf (auto: " in line
    assert line.count("--capture cgroup") == 1
    [line] = said((node("n1"), facts), capture="cgroup")
    assert line.endswith("; agents count by cgroup (as asked for)")


def test_nodes_with_other_networks_or_sources_are_told_apart() -> None:
    facts = Facts(system("cilium").daemons, BPF)
    lines = said((node("n1"), facts), (node("n2", "5.4.0"), facts), (node("n3"), facts))
    assert [line.partition(":")[0] for line in lines] == ["network of n1, n3", "network of n2"]
    assert "host routing (legacy)" in lines[1]
    assert "agents count by ring" in lines[1]
    assert "--capture cgroup" not in lines[1]


def test_what_is_not_known_is_said_to_be_so() -> None:
    [line] = said((node(), Facts()))
    assert line.startswith("network of n1: not recognised (DaemonSets and pods may not be listed, nothing on the node)")
    assert "is not known: `status` shows what is seen" in line
    assert networks.advice(Network("any", sides=Sides.BOTH), "ebpf") == ""
