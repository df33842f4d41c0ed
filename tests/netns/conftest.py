"""A node and a pod, and what a socket source sees between them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.netns import Namespace, namespaces, veth
from tests.support.watch import HOST, HOST6, POD, POD6, Watch, watching


@pytest.fixture
def pair() -> Iterator[tuple[Namespace, Namespace]]:
    """A node and a pod, joined by `veth0` in the node and `eth0` in the pod."""
    with namespaces("node", "pod") as (node, pod):
        veth(node, "veth0", pod, f"{POD}/24", f"{POD6}/64")
        node.ip(f"addr add {HOST}/24 dev veth0", f"addr add {HOST6}/64 dev veth0 nodad")
        yield node, pod


@pytest.fixture
def quiet(pair: tuple[Namespace, Namespace]) -> tuple[Namespace, Namespace]:
    """A pair that says nothing of itself: IPv6 reports its groups whenever it likes."""
    for namespace in pair:
        namespace.sysctl("net/ipv6/conf/all/disable_ipv6", "1")
    return pair


@pytest.fixture(params=["ebpf", "tcx", "ring", "socket"])
async def watch(pair: tuple[Namespace, Namespace], request: pytest.FixtureRequest) -> AsyncIterator[Watch]:
    """A source of each kind on the node's end."""
    async with watching(pair[0], "veth0", kind=request.param) as watch:
        yield watch
