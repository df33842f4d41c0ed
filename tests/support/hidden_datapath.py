"""A node whose network hands packets to pods past the node's ends of their links, as BPF host routing does."""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from services.capture.bpf import syscall
from services.capture.bpf.syscall import ProgramType
from tests.support.netns import Namespace, namespaces, veth

WEB, API, OPEN, OUTSIDE = "10.1.0.2", "10.1.0.3", "10.1.0.4", "192.0.2.1"
API6, OUTSIDE6 = "fd00:1::3", "2001:db8::1"
GATEWAY, GATEWAY6 = "10.1.0.1", "fe80::1"
_INGRESS: Final = 46
_REDIRECT_PEER: Final = 155
_NEXT: Final = -1


@dataclass(frozen=True, slots=True)
class World:
    """Two hidden pods, one that is not, and somebody outside; each has `eth0`, the node `<name>0`."""

    node: Namespace
    web: Namespace
    api: Namespace
    open: Namespace
    outside: Namespace


@contextlib.contextmanager
def world(*, hidden: bool = True, four: str = "10.1.0", six: str = "fd00:1:") -> Iterator[World]:
    """All of it, with no chatter; without `hidden` all pods are on the open datapath.

    The pods have addresses 2 to 4 of both networks. Control groups are everybody's on the machine: who finds pods by
    them takes networks of its own.
    """
    with namespaces("node", "web", "api", "open", "out") as spaces:
        one = World(*spaces)
        for space in spaces:
            # Reports of groups are over before anybody counts.
            space.sysctl("net/ipv6/conf/default/mldv2_unsolicited_report_interval", "1")
        for name, space, addresses in (
            ("web", one.web, (f"{four}.2", f"{six}:2")),
            ("api", one.api, (f"{four}.3", f"{six}:3")),
            ("open", one.open, (f"{four}.4", f"{six}:4")),
            ("out", one.outside, (OUTSIDE, OUTSIDE6)),
        ):
            join(one.node, f"{name}0", space, *addresses)
        for family in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            one.node.sysctl(f"net/{family}", "1")
        with contextlib.ExitStack() as stack:
            if hidden:
                pods = {"web0": 2, "api0": 3}
                targets = {at: name for name, last in pods.items() for at in (f"{four}.{last}", f"{six}:{last}")}
                for interface in ("web0", "api0", "open0", "out0"):
                    stack.enter_context(handing_over(one.node, interface, targets))
            yield one


def join(node: Namespace, name: str, space: Namespace, four: str, six: str) -> None:
    """A pod's link with its addresses and routes; neither end has to ask for the other one."""
    veth(node, name, space, f"{four}/32", f"{six}/128")
    for where, interface in ((node, name), (space, "eth0")):
        where.sysctl(f"net/ipv4/conf/{interface}/rp_filter", "0")
    node_mac, mac = (
        re.findall(r"link/ether (\S+)", where.run("ip", "-o", "link", "show", "dev", interface))[0]
        for where, interface in ((node, name), (space, "eth0"))
    )
    space.ip(
        f"neigh add {GATEWAY} lladdr {node_mac} dev eth0 nud permanent",
        f"neigh add {GATEWAY6} lladdr {node_mac} dev eth0 nud permanent",
        f"route add {GATEWAY}/32 dev eth0",
        f"route add default via {GATEWAY} dev eth0",
        f"route add default via {GATEWAY6} dev eth0",
    )
    node.ip(
        f"route add {four}/32 dev {name}",
        f"route add {six}/128 dev {name}",
        f"neigh add {four} lladdr {mac} dev {name} nud permanent",
        f"neigh add {six} lladdr {mac} dev {name} nud permanent",
    )


@contextlib.contextmanager
def handing_over(node: Namespace, interface: str, targets: Mapping[str, str]) -> Iterator[None]:
    """Hand what comes in on an interface for these addresses to the other ends of these links of the node."""
    indexes = {address: node.index(name) for address, name in targets.items()}
    program = syscall.load(ProgramType.SCHED_CLS, _program(indexes), "plxpeer")
    with node.entered():
        link = syscall.attach_tcx(program, node.index(interface), _INGRESS)
    try:
        yield
    finally:
        os.close(link)
        os.close(program)


def _program(indexes: Mapping[str, int]) -> bytes:
    """Compares the last word of the destination, and hands the packet over or lets it go on."""
    # Each line with the label to which it jumps, each label with the line that it stands before.
    lines: list[tuple[bytes, str]] = [(_code(0xBF, 0x16), ""), (_code(0x28, imm=12), "")]
    labels = {}
    lines += [(_code(0x15, imm=0x0800), "4"), (_code(0x15, imm=0x86DD), "6"), (_code(0x05), "next")]
    for version, offset in ((4, 30), (6, 50)):
        labels[str(version)] = len(lines)
        lines.append((_code(0x20, imm=offset), ""))
        for text, index in indexes.items():
            if ip_address(text).version == version:
                lines.append((_code(0x16, imm=_signed(int(ip_address(text)) & 0xFFFFFFFF)), f"to {index}"))
        lines.append((_code(0x05), "next"))
    for index in set(indexes.values()):
        labels[f"to {index}"] = len(lines)
        codes = _code(0xB7, 1, imm=index), _code(0xB7, 2), _code(0x85, imm=_REDIRECT_PEER), _code(0x95)
        lines += [(code, "") for code in codes]
    labels["next"] = len(lines)
    lines += [(_code(0xB7, imm=_NEXT), ""), (_code(0x95), "")]
    return b"".join(
        code[:2] + struct.pack("=h", labels[label] - at - 1) + code[4:] if label else code
        for at, (code, label) in enumerate(lines)
    )


def _code(code: int, registers: int = 0, *, imm: int = 0) -> bytes:
    return struct.pack("=BBhi", code, registers, 0, imm)


def _signed(word: int) -> int:
    return int(struct.unpack("=i", struct.pack("=I", word))[0])


def networks() -> tuple[str, str]:
    """Beginnings of addresses that no other process takes."""
    number = os.getpid() & 0xFFFF
    return f"10.{128 + number // 500 % 128}.{number // 2 % 250}", f"fd00:{number:x}:"


def counters(space: Namespace) -> tuple[int, int, int, int]:
    """What a pod's own interface has counted: bytes and packets it sent, and that it received."""
    found = space.counters("eth0")
    return found.tx_bytes, found.tx_packets, found.rx_bytes, found.rx_packets
