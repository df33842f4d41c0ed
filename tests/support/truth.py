"""What must hold for every answer of the API, whoever started podloxx: the sums are the kernel's, each byte counts once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from tests.support.netns import Namespace
from tests.support.wait import wait_until


class Answers(Protocol):
    """Anything that serves the API."""

    def get(self, path: str) -> Any:
        """The JSON behind a path."""


def interface_sums(pod: Any) -> int:
    """All bytes that the API counts for a pod."""
    return int(pod["transmitBytes"] + pod["receivedBytes"] + pod["unknownBytes"])


def counted(node: Namespace, pod: Any) -> int:
    """All bytes that the kernel counted for its interface since watching began."""
    now = node.counters(pod["fileName"])
    return int(now.rx_bytes + now.tx_bytes - pod["transmitStartBytes"] - pod["receivedStartBytes"])


def lacking(node: Namespace, pods: Mapping[str, Any]) -> dict[str, int]:
    """How many bytes the kernel of `node` counted for each of these pods that the API does not have."""
    return {name: counted(node, pod) - interface_sums(pod) for name, pod in pods.items()}


def unwatched(podloxx: Answers) -> dict[str, int]:
    """By pod, the bytes that passed its interface before it was watched, as the API tells them."""
    return {
        f"{one['namespace']}/{one['pod']}": one["transmit"]["attachBytes"] + one["receive"]["attachBytes"]
        for node in podloxx.get("/traffic/nodes").values()
        for one in node["interfaces"]
        if one["attached"] and one["transmit"]["attachBytes"] is not None
    }


def sums_are_the_kernels(podloxx: Answers, node: Namespace, pods: Mapping[str, Any]) -> bool:
    """Whether the API has every byte that the kernel of `node` counted for each of these pods, or tells that it has not.

    Of what passed while an agent attached it mostly knows that it passed before, and then lacks nothing.
    """
    missed = unwatched(podloxx)
    return all(name in missed and lacks in {0, missed[name]} for name, lacks in lacking(node, pods).items())


def sent_within(pods: Mapping[str, Any], scope: str) -> int:
    """All bytes that these pods sent to others that are so far away."""
    return sum(pod["scopes"].get(scope, {"transmitBytes": 0})["transmitBytes"] for pod in pods.values())


def assert_counted_once(podloxx: Answers, total: Any, scope: str = "same-node") -> None:
    """The cluster's total has every byte between pods that are so far apart once, at its sender."""
    overview = podloxx.get("/traffic/overview")
    assert overview["loss"] == {}
    once = overview["clusterScopes"][scope]
    assert once["transmitBytes"] + once["receivedBytes"] + overview["pendingBytes"] == sent_within(total, scope)


def peers_of(podloxx: Answers, pod: str) -> dict[tuple[str, int, str], Any]:
    """A pod's peers by protocol, port and address.

    Those without ports are left out: neighbours ask for each other before anybody knows where they are, and what is
    decided stays.
    """
    found = [peer for peer in podloxx.get(f"/traffic/peers?pod={pod}")["peers"] if peer["port"]]
    by_port = {(peer["protocol"], peer["port"], peer["address"]): peer for peer in found}
    assert len(by_port) == len(found), found
    return by_port


def wait_for_total(one: Answers, condition: Any, what: str) -> Any:
    """`/traffic/total` once `condition` holds for it."""
    seen: list[Any] = []

    def holds() -> bool:
        seen[:] = [one.get("/traffic/total")]
        return bool(condition(seen[0]))

    wait_until(holds, what, timeout_s=20)
    return seen[0]
