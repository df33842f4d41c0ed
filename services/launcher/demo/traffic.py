"""What the demo's pods say to each other and to the world: the plan of one session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from services.launcher.demo.plan import Kind, Part, Plan, Serve, Talk
from services.launcher.demo.topology import (
    INTERNET_ROLE,
    DualStack,
    NodeSpec,
    Pod,
    Topology,
)

WEB_PORT: Final = 8080
API_PORT: Final = 8000
HTTP_PORT: Final = 80
DNS_PORT: Final = 53
CACHE_PORT: Final = 6379
DATABASE_PORT: Final = 5432
REPLICA_PORT: Final = 5433
SNAPSHOT_PORT: Final = 6380
EVENTS_PORT: Final = 5140
STREAM_PORT: Final = 4433
STORE_PORT: Final = 9000

KB: Final = 1000
DATAGRAM: Final = 1200  # fits an IPv6 path of the minimum MTU


def demo_plan(topology: Topology, seed: int, started_s: float) -> Plan:
    """The traffic of `topology`; the same for the same seed but for `started_s`."""
    parts = {INTERNET_ROLE: _internet(topology)}
    parts |= {node.name: _node(topology, node) for node in topology.nodes}
    parts |= {pod.role: _pod(topology, pod) for pod in topology.pods}
    return Plan(seed=seed, started_s=started_s, names=_names(topology), parts=parts)


def _names(topology: Topology) -> dict[str, tuple[str, str]]:
    names = {
        f"{service.name}.{service.namespace}.svc.cluster.local": service.address.both() for service in topology.services
    }
    names |= {f"{pod.role}.{pod.namespace}.pod.cluster.local": pod.address.both() for pod in topology.fixed_pods()}
    outside = {host.name: host.addresses[0].both() for host in topology.outsiders}
    return names | {f"{name}.example.net": pair for name, pair in outside.items()}


def _talks(
    kind: Kind,
    target: DualStack,
    port: int,
    rate: float,
    size: int,
    *,
    sources: tuple[DualStack, ...] = (),
) -> Iterator[Talk]:
    """One conversation over IPv4, and one half as busy over IPv6."""
    four = tuple(source.ipv4 for source in sources)
    six = tuple(source.ipv6 for source in sources)
    yield Talk(kind, target.ipv4, port, rate, size, four)
    yield Talk(kind, target.ipv6, port, rate / 2, size, six)


def _internet(topology: Topology) -> Part:
    """Customers who ask the web pods, and the services out there that pods ask."""
    customers = next(host for host in topology.outsiders if host.name == "customers").addresses
    vpc = topology.outside("vpc-database").both()
    talks: list[Talk] = []
    for role in ("web-1", "web-2"):
        web = topology.pod(role).address
        talks += _talks("http", web, WEB_PORT, 10, 30 * KB, sources=customers)
        talks += _talks("bulk-udp", web, STREAM_PORT, 120 * KB, DATAGRAM, sources=customers)
    return Part(
        serves=(
            Serve("http", topology.outside("payments").both(), HTTP_PORT),
            Serve("bulk-tcp", topology.outside("object-store").both(), STORE_PORT),
            Serve("dns", topology.outside("resolver").both(), DNS_PORT),
            Serve("database", vpc, DATABASE_PORT),
            Serve("bulk-tcp", vpc, REPLICA_PORT),
        ),
        talks=tuple(talks),
    )


def _node(topology: Topology, node: NodeSpec) -> Part:
    """The service proxy, the cloud's metadata and the probes of the node's own web pod."""
    dns, api = topology.service("kube-dns").address, topology.service("api").address
    apis = tuple(address for pod in topology.pods if pod.labels["app"] == "api" for address in pod.address.both())
    probed = [pod for pod in topology.pods if pod.node == node.name and pod.labels["app"] == "web"]
    return Part(
        serves=(
            Serve("proxy-udp", dns.both(), DNS_PORT, topology.pod("dns").address.both(), DNS_PORT),
            Serve("proxy-tcp", api.both(), HTTP_PORT, apis, API_PORT),
            Serve("http", (topology.metadata,), HTTP_PORT),
        ),
        talks=tuple(talk for pod in probed for talk in _talks("http", pod.address, WEB_PORT, 0.5, 200)),
    )


def _pod(topology: Topology, pod: Pod) -> Part:
    serves: tuple[Serve, ...]
    match pod.labels["app"]:
        case "web":
            serves, talks = _web(topology, pod)
        case "api":
            serves, talks = _api(topology, pod)
        case "database":
            serves, talks = _database(topology, pod)
        case "cache":
            serves, talks = _cache(topology, pod)
        case "dns":
            serves, talks = _dns(topology, pod)
        case _:
            serves, talks = (), _job(topology)
    if pod.labels["app"] != "dns":
        service = topology.service("kube-dns").address
        talks += list(_talks("dns", service, DNS_PORT, 1.5, 0))
    return Part(serves, tuple(talks))


_Half = tuple[tuple[Serve, ...], list[Talk]]


def _web(topology: Topology, pod: Pod) -> _Half:
    own = pod.address.both()
    return (Serve("http", own, WEB_PORT), Serve("bulk-udp", own, STREAM_PORT)), [
        *_talks("http", topology.pod("api-1").address, API_PORT, 6, 6 * KB),
        *_talks("http", topology.pod("api-2").address, API_PORT, 6, 6 * KB),
        *_talks("http", topology.service("api").address, HTTP_PORT, 3, 4 * KB),
        *_talks("http", topology.outside("payments"), HTTP_PORT, 1.5, 5 * KB),
    ]


def _api(topology: Topology, pod: Pod) -> _Half:
    own = pod.address.both()
    other = topology.pod("api-2" if pod.role == "api-1" else "api-1").address
    return (Serve("http", own, API_PORT), Serve("bulk-udp", own, EVENTS_PORT)), [
        *_talks("cache", topology.pod("cache").address, CACHE_PORT, 14, 600),
        *_talks("database", topology.pod("database").address, DATABASE_PORT, 4, 40 * KB),
        *_talks("database", topology.outside("vpc-database"), DATABASE_PORT, 2, 20 * KB),
        *_talks("bulk-udp", other, EVENTS_PORT, 120 * KB, DATAGRAM),
        Talk("http", topology.metadata, HTTP_PORT, 0.2, 300),
    ]


def _database(topology: Topology, pod: Pod) -> _Half:
    own = pod.address.both()
    return (Serve("database", own, DATABASE_PORT), Serve("bulk-tcp", own, SNAPSHOT_PORT)), [
        *_talks("bulk-tcp", topology.outside("vpc-database"), REPLICA_PORT, 1200 * KB, 0)
    ]


def _cache(topology: Topology, pod: Pod) -> _Half:
    return (Serve("cache", pod.address.both(), CACHE_PORT),), [
        *_talks("bulk-tcp", topology.pod("database").address, SNAPSHOT_PORT, 500 * KB, 0)
    ]


def _dns(topology: Topology, pod: Pod) -> _Half:
    return (Serve("dns", pod.address.both(), DNS_PORT),), [*_talks("dns", topology.outside("resolver"), DNS_PORT, 2, 0)]


def _job(topology: Topology) -> list[Talk]:
    """A report: read much, store it outside."""
    return [
        *_talks("database", topology.pod("database").address, DATABASE_PORT, 8, 150 * KB),
        *_talks("bulk-tcp", topology.outside("object-store"), STORE_PORT, 1500 * KB, 0),
        *_talks("cache", topology.pod("cache").address, CACHE_PORT, 5, 600),
        *_talks("http", topology.pod("api-1").address, API_PORT, 2, 4 * KB),
    ]
