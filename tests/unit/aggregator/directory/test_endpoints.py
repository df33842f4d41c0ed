"""Which Services stand at which address and port, while slices come, change and go."""

from __future__ import annotations

from services.aggregator.directory.endpoints import Endpoints
from services.aggregator.directory.objects import EndpointsObject
from services.flows import address
from services.flows.protocols import TCP, UDP
from services.flows.scope import Named

ONE, TWO, THREE = (address.parse(f"10.1.0.{at}") for at in (1, 2, 3))
WEB, DNS, ADMIN = Named("web", "shop"), Named("dns", "kube-system"), Named("admin", "shop")


def of(name: Named, *addresses: address.Address, ports: tuple[tuple[int, int], ...] = ((TCP, 80),)) -> EndpointsObject:
    """A slice of a Service."""
    return EndpointsObject("", name.namespace, name.name, addresses, frozenset(ports))


def test_a_port_of_an_address_tells_its_services() -> None:
    known = Endpoints()
    known.put("w", of(WEB, ONE, TWO))
    known.put("d", of(DNS, TWO, ports=((UDP, 53), (TCP, 53))))
    assert known.services_at(ONE, (TCP, 80)) == {WEB}
    assert known.services_at(TWO, (UDP, 53)) == {DNS}
    assert known.services_at(TWO, (UDP, 80)) == frozenset()
    assert known.services_at(THREE, (TCP, 80)) == frozenset()
    assert known.services_of(TWO) == {WEB, DNS}
    assert set(known.addresses(WEB)) == {ONE, TWO}


def test_slices_change_and_go() -> None:
    known = Endpoints()
    known.put("w1", of(WEB, ONE))
    known.put("w2", of(WEB, TWO))
    known.put("w1", of(WEB, THREE))
    assert known.services_of(ONE) == frozenset()
    assert set(known.addresses(WEB)) == {TWO, THREE}
    known.remove("w1")
    assert set(known.addresses(WEB)) == {TWO}
    known.remove("w2")
    assert set(known.addresses(WEB)) == set()
    assert known.services_of(TWO) == frozenset()


def test_services_that_share_an_endpoint_are_joined() -> None:
    known = Endpoints()
    known.put("w", of(WEB, ONE, TWO))
    known.put("a", of(ADMIN, TWO, THREE))
    # Another port of the same address is something else.
    known.put("d", of(DNS, TWO, ports=((UDP, 53),)))
    for service in (WEB, ADMIN):
        assert known.joined(service) == ({WEB, ADMIN}, {ONE, TWO, THREE})
    assert known.joined(DNS) == ({DNS}, {TWO})


def test_only_the_api_servers_own_endpoints_rearrange() -> None:
    told: list[int] = []
    known = Endpoints(lambda: told.append(1))
    known.put("w", of(WEB, ONE))
    known.put("other", of(Named("kubernetes", "shop"), TWO))
    assert not told
    known.put("k", of(Named("kubernetes", "default"), THREE))
    known.put("k", of(Named("kubernetes", "default"), THREE))
    assert len(told) == 1
    assert known.api_servers() == {THREE}
    known.remove("k")
    assert len(told) == 2
    assert known.api_servers() == frozenset()
