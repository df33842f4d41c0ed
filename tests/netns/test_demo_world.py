"""The demo's world on real namespaces: who reaches whom, and that nothing is left of it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.launcher.demo import namespaces
from services.launcher.demo.plan import Talk, family_of
from services.launcher.demo.session import alive_by, claim, clean_leftovers
from services.launcher.demo.wiring import BRIDGE, wires
from services.launcher.demo.world import World
from services.runtime.errors import PodloxxError, UsageError
from tests.support.demo_world import inside, namespaces_left, new_session, role_of, talks_of, transport_of
from tests.support.wait import wait_until

PATIENCE_S = 5.0


@pytest.fixture
def world(folder: Path) -> Iterator[World]:
    made = World(new_session(), folder)
    try:
        made.create()
        for pod in made.topology.pods:
            if pod.batch:
                made.add_pod(pod)
        yield made
    finally:
        made.destroy()


def _links_here() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def _socket_in(world: World, role: str, address: str, port: int, transport: str) -> socket.socket:
    """A socket bound to `address` in the namespace of `role`."""
    family = socket.AF_INET6 if family_of(address) == 6 else socket.AF_INET
    with inside(world, role).entered():
        found = socket.socket(family, socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM)
    found.settimeout(PATIENCE_S)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the same port again, after another talk
    found.bind((address, port))
    return found


def _echo(world: World, role: str, talk: Talk, server_role: str, source: str) -> str:
    """Send a word from `source` to the talk's target and back; the peer that the server saw."""
    transport = transport_of(talk.kind)
    any_address = "::" if family_of(talk.target) == 6 else "0.0.0.0"
    with (
        _socket_in(world, server_role, talk.target, talk.port, transport) as server,
        _socket_in(world, role, source or any_address, 0, transport) as client,
    ):
        if transport == "tcp":
            server.listen()
            client.connect((talk.target, talk.port))
            accepted, peer = server.accept()
            with accepted:
                accepted.settimeout(PATIENCE_S)
                client.sendall(b"hello")
                accepted.sendall(accepted.recv(100))
        else:
            client.connect((talk.target, talk.port))
            client.send(b"hello")
            word, peer = server.recvfrom(100)
            server.sendto(word, peer)
        assert client.recv(100) == b"hello"
        return str(peer[0])


def _server_role(world: World, role: str, talk: Talk) -> str:
    """Whose process answers: for an address of every node it is the client's own node."""
    found = role_of(world, talk.target)
    if found.startswith("node-") and not role.startswith("node-"):
        return world.topology.pod(role).node
    return found


def test_everybody_reaches_whom_the_plan_says_over_both_families(world: World) -> None:
    tried = 0
    for role, talk in talks_of(world):
        for source in talk.sources or ("",):
            peer = _echo(world, role, talk, _server_role(world, role, talk), source)
            assert source in {"", peer}
            tried += 1
    assert tried >= 70


def test_a_pod_is_seen_by_others_under_its_own_address(world: World) -> None:
    """Nothing is translated on the way: the directory's addresses are those in the packets."""
    pod = world.topology.pod("api-1")
    for talk in world.plan.parts["api-1"].talks:
        peer = _echo(world, "api-1", talk, _server_role(world, "api-1", talk), "")
        assert peer in pod.address.both()


def test_creation_takes_less_than_three_seconds(folder: Path) -> None:
    made = World(new_session(), folder)
    try:
        before = time.monotonic()
        made.create()
        assert time.monotonic() - before < 3.0
    finally:
        made.destroy()


def test_links_of_pods_start_as_promised_and_are_ports_of_the_bridge(world: World) -> None:
    for node in world.nodes:
        pods = {world.link_of(pod) for pod in world.topology.pods if pod.node == node.name}
        namespace = inside(world, node.name)
        assert {name for name in namespace.links() if name.startswith(node.interface_prefix)} == pods
        ports = {
            line.split(":")[1].split("@")[0].strip()
            for line in namespace.run("ip", "-o", "link", "show", "master", "cni0").splitlines()
        }
        assert ports == pods


def test_nothing_is_seen_of_it_on_the_machine_itself(folder: Path) -> None:
    before = _links_here()
    made = World(new_session(), folder)
    try:
        made.create()
        assert _links_here() == before
    finally:
        made.destroy()


def test_creating_and_destroying_twice_is_no_error(folder: Path) -> None:
    made = World(new_session(), folder)
    try:
        made.create()
        before = namespaces_left(made.session)
        made.create()
        assert namespaces_left(made.session) == before
        assert len(before) == 3 + len(made.topology.fixed_pods())
    finally:
        made.destroy()
        made.destroy()
    assert namespaces_left(made.session) == []
    assert list(folder.iterdir()) == []


def test_a_world_can_be_made_again_after_it_was_destroyed(folder: Path) -> None:
    made = World(new_session(), folder)
    try:
        made.create()
        made.destroy()
        made.create()
        assert made.directory_file.is_file()
    finally:
        made.destroy()


def test_links_are_gone_at_once_even_while_a_process_pins_a_namespace(folder: Path) -> None:
    made = World(new_session(), folder)
    made.create()
    node = inside(made, "node-a")
    with subprocess.Popen(node.command("sleep", "60")) as pin:
        try:
            made.destroy()
            links = subprocess.run(
                ["nsenter", f"--net=/proc/{pin.pid}/ns/net", "ip", "-o", "link", "show", "type", "veth"],
                capture_output=True,
                text=True,
                check=True,
            )
            assert links.stdout == ""
        finally:
            pin.kill()


def test_a_pod_gets_a_new_link_each_time_it_comes(world: World) -> None:
    job = next(pod for pod in world.topology.pods if pod.batch)
    first = world.link_of(job)
    world.remove_pod(job)
    assert first not in inside(world, "node-a").links()
    world.add_pod(job)
    assert world.link_of(job) != first
    assert world.link_of(job) in inside(world, "node-a").links()


def test_without_ipv6_there_is_none_and_ipv4_goes(folder: Path) -> None:
    made = World(new_session(), folder, ipv6=False)
    try:
        made.create()
        role, talk = next((role, talk) for role, talk in talks_of(made) if role == "web-1")
        _echo(made, role, talk, role_of(made, talk.target), "")
        addresses = inside(made, "web-1").run("ip", "-6", "-o", "address", "show", "scope", "global")
        assert addresses == ""
        assert all(family_of(talk.target) == 4 for _, talk in talks_of(made))
    finally:
        made.destroy()


def test_a_session_that_is_there_is_not_made_again(world: World, folder: Path) -> None:
    before = namespaces_left(world.session)
    with pytest.raises(PodloxxError, match=f"session {world.session} is there already"):
        World(world.session, folder).create()
    assert namespaces_left(world.session) == before
    assert world.directory_file.is_file()


def test_what_was_made_goes_when_creation_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = World(new_session(), folder)
    calls: list[object] = []

    def fails_for_the_third(pod: object) -> None:
        calls.append(pod)
        if len(calls) == 3:
            raise PodloxxError("no more pods")

    monkeypatch.setattr(made, "add_pod", fails_for_the_third)
    with pytest.raises(PodloxxError, match="no more pods"):
        made.create()
    assert namespaces_left(made.session) == []
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["", "UPPER", "with-dash", "a/b", "x" * 17])
def test_a_session_name_that_cannot_be_is_refused(name: str, folder: Path) -> None:
    with pytest.raises(UsageError, match="A session is named by"):
        World(name, folder)


def test_a_missing_program_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(PodloxxError, match="nsenter and setpriv from util-linux"):
        World(new_session(), folder).create()


CREATION = """
import sys
from pathlib import Path
from services.launcher.demo.world import World
from services.runtime.errors import PodloxxError

world = World(sys.argv[1], Path(sys.argv[2]))
try:
    world.create()
    print(len(list(Path("/run/netns").iterdir())), "made")
except PodloxxError as error:
    print(error)
    sys.exit(error.exit_code)
finally:
    world.destroy()
"""


def _creation(session: str, runtime_dir: Path, *wrapper: str) -> tuple[int, str, str]:
    """Exit code and output of a process that makes and removes a world, started by `wrapper`."""
    done = subprocess.run(
        [*wrapper, sys.executable, "-c", CREATION, session, str(runtime_dir)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def _with_own_mounts(*preparation: str) -> tuple[str, ...]:
    """The wrapper that runs a command in a mount namespace of its own after `preparation`."""
    script = " && ".join([*preparation, 'exec "$@"'])
    return ("unshare", "--mount", "--propagation=private", "sh", "-c", script, "sh")


@pytest.mark.parametrize(
    "privileges",
    [
        ("--bounding-set=-all", "--inh-caps=-all"),
        ("--bounding-set=-all,+sys_admin", "--inh-caps=-all"),
        # Without the environment, in which a coverage run would ask nobody to write to the checkout.
        ("--reuid=65534", "--regid=65534", "--clear-groups", "env", "-i"),
    ],
    ids=["root-without-capabilities", "without-net-admin", "nobody"],
)
def test_a_missing_privilege_is_one_sentence(privileges: tuple[str, ...], folder: Path) -> None:
    folder.chmod(0o777)
    session = new_session()
    told = _creation(session, folder / "x", "setpriv", *privileges)
    assert told == (3, namespaces.PRIVILEGE_SENTENCE + "\n", "")
    assert namespaces_left(session) == []


def test_settings_that_cannot_be_written_are_one_sentence(folder: Path) -> None:
    wrapper = _with_own_mounts("mount --bind /proc/sys /proc/sys", "mount -o remount,ro,bind /proc/sys")
    session = new_session()
    code, told, errors = _creation(session, folder, *wrapper)
    assert (code, errors) == (1, "")
    assert "/proc/sys is read-only here" in told
    assert told.count("\n") == 1
    assert namespaces_left(session) == []


def test_a_place_for_names_that_cannot_be_written_is_one_sentence(folder: Path) -> None:
    wrapper = _with_own_mounts("mount -t tmpfs none /run", "mount -o remount,ro /run")
    code, told, errors = _creation(new_session(), folder, *wrapper)
    assert (code, errors) == (1, "")
    assert told.startswith("The network namespace plx-")
    assert "Read-only file system" in told


def test_a_machine_that_never_had_a_named_namespace_gets_one(folder: Path) -> None:
    wrapper = _with_own_mounts("mount -t tmpfs none /run")
    assert _creation(new_session(), folder, *wrapper) == (0, "10 made\n", "")


def test_what_the_kernel_refuses_is_one_sentence(world: World) -> None:
    refused = pytest.raises(
        PodloxxError, match=r"The kernel refused .*: File exists\. The demo needs bridge and veth links\."
    )
    with refused, wires(world.netns_of("node-a").name, ipv6=True) as wire:
        wire.bridge(BRIDGE)


def test_a_link_that_somebody_removed_is_named(world: World) -> None:
    inside(world, "node-a").ip(f"link del {BRIDGE}")
    job = next(pod for pod in world.topology.pods if pod.batch)
    world.remove_pod(job)
    with pytest.raises(PodloxxError, match="link cni0 is gone"):
        world.add_pod(job)


def test_deleting_a_link_that_has_just_gone_is_no_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with wires(world.netns_of("node-a").name, ipv6=True) as wire:
        monkeypatch.setattr(wire._route, "link_lookup", lambda **_: [1_000_000])
        wire.delete("veth-of-a-moment-ago")


def test_a_living_session_is_not_cleaned(world: World, folder: Path) -> None:
    before = namespaces_left(world.session)
    alive = alive_by(folder)
    removed = clean_leftovers(lambda session: session != world.session or alive(session), folder)
    assert removed == []
    assert namespaces_left(world.session) == before
    assert world.directory_file.is_file()


def test_a_session_of_another_runtime_directory_lives_while_its_pods_do(world: World, folder: Path) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    alive = alive_by(elsewhere)
    assert not alive(world.session)
    with subprocess.Popen(inside(world, "web-1").command("sleep", "60")) as pod:
        try:
            wait_until(lambda: alive(world.session), "the process in its namespace")
        finally:
            pod.kill()


def test_strangers_namespaces_are_not_ours(folder: Path) -> None:
    stranger = f"plx-{new_session()}-someone"
    namespaces.create(stranger)
    try:
        clean_leftovers(lambda session: session not in stranger, folder)
        assert stranger in namespaces.names()
    finally:
        namespaces.remove(stranger)


def test_a_name_without_a_namespace_is_removed_too(folder: Path) -> None:
    session = new_session()
    name = namespaces.path_of(f"plx-{session}-node-a")
    name.parent.mkdir(exist_ok=True)
    name.touch()
    claim(folder, session)
    assert clean_leftovers(lambda found: found != session, folder) == [name.name]
    assert not name.exists()
    assert list(folder.iterdir()) == []
