"""Traffic through a Service is seen under another name at each end, and still each byte is in the totals once."""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.aggregator.directory.cluster import ClusterDirectory
from services.aggregator.directory.ingress import Ingress
from services.aggregator.directory.objects import EndpointsObject, NodeObject, PodObject, ServiceObject
from services.aggregator.directory.ranges import UserRanges
from services.flows import address
from services.flows.protocols import TCP
from services.flows.scope import Scope
from tests.support.exactly_once import (
    BOTH,
    ON,
    PODS,
    SERVICE,
    TARGET,
    Second,
    Traffic,
    Way,
    as_the_interfaces_counted,
    counted,
    play,
    seconds,
    sizes,
)

WEB, API, DB = PODS
BACKENDS = (API, DB)
ELSEWHERE = "203.0.113.9"
"""A backend that no agent can watch."""


def cluster(*backends: str) -> ClusterDirectory:
    """The pods, in zones of their own, and the Service."""
    known = ClusterDirectory(lambda: 0, UserRanges(), Ingress())
    for name in ON:
        network = ipaddress.ip_network("10.1.0.0/24" if name == "a" else "10.2.0.0/24")
        known.nodes.put(name, NodeObject(f"node-{name}", (), (network,), f"zone-{name}", "region"))
        for one in ON[name]:
            namespace, pod = PODS[one].split("/")
            held = (address.parse(one),)
            known.put_pod(
                PodObject(PODS[one], namespace, pod, f"node-{name}", held, False, False, 0, 1, 0, "", "", "", ())
            )
    known.services.put("s", ServiceObject("s", "shop", "calc", (address.parse(SERVICE),), ()))
    behind = tuple(map(address.parse, backends))
    known.endpoints.put("e", EndpointsObject("e", "shop", "calc", behind, frozenset([(TCP, TARGET)])))
    return known


def calls(sizes: dict[tuple[str, str, bool], tuple[int, int]]) -> Traffic:
    """Clients call backends, at their own addresses or through the Service."""
    traffic: Traffic = Counter()
    for (client, backend, through), (there, back) in sizes.items():
        ways = (Way.REQUEST, Way.REPLY) if through else (Way.CALL, Way.ANSWER)
        traffic[client, backend, ways[0]] += there
        traffic[backend, client, ways[1]] += back
    return traffic


pairs = st.tuples(st.sampled_from([*PODS]), st.sampled_from(BACKENDS), st.booleans()).filter(
    lambda call: call[0] != call[1]
)
# A new backend is taken for one that will be watched for no longer than this.
scripts = st.lists(seconds(st.dictionaries(pairs, st.tuples(sizes, sizes), max_size=5).map(calls)), max_size=7)
both_truths = pytest.mark.parametrize("backends", [BACKENDS, (*BACKENDS, ELSEWHERE)], ids=["watched", "one unwatched"])


@both_truths
@settings(max_examples=200)
@given(script=scripts)
def test_each_pod_has_what_its_interface_counted(script: list[Second], backends: tuple[str, ...]) -> None:
    state, nodes, _ = play(script, cluster(*backends))
    assert as_the_interfaces_counted(state, nodes)


@both_truths
@settings(max_examples=200)
@given(script=scripts)
def test_every_byte_is_in_the_cluster_once_where_agents_live(script: list[Second], backends: tuple[str, ...]) -> None:
    # Of an agent that was never heard nobody knows that it is there, and in time is less than `HOLD_US`.
    told = [Second(Counter(), BOTH, BOTH, [*"ab"]), *script]
    in_time = [
        replace(second, alive=BOTH, cuts=BOTH, tells=[*second.tells, *"ab"] if at % 4 == 0 else second.tells)
        for at, second in enumerate(told)
    ]
    state, _, sent = play(in_time, cluster(*backends))
    assert counted(state) == sent
    assert (Scope.SERVICE in state.cluster) <= (ELSEWHERE in backends)


@both_truths
@settings(max_examples=200)
@given(script=scripts)
def test_no_byte_is_in_the_cluster_twice(script: list[Second], backends: tuple[str, ...]) -> None:
    state, _, sent = play(script, cluster(*backends))
    assert counted(state) <= sent
