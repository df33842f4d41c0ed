"""Credentials that a program gives, as managed clusters have them: renewed when they end, and told in a sentence where not."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from services.launcher.refusal import asking
from services.runtime import credentials
from services.runtime.errors import PrivilegeError
from services.runtime.kubernetes_api import ApiError, KubernetesApi
from tests.support.forwarding_api import FakePod, ForwardingApi, listening, served
from tests.support.launched import PROGRAM, ROOT, alive, piped
from tests.support.wait import until

KIND = "client.authentication.k8s.io/v1"
PLUGIN = """#!{python}
import json, pathlib, sys
folder = pathlib.Path(__file__).parent
if (folder / "failure").exists():
    sys.exit((folder / "failure").read_text())
runs = folder / "runs"
count = len(runs.read_text()) if runs.exists() else 0
runs.write_text("x" * (count + 1))
status = dict({{"token": f"token-{{count}}"}}, **json.loads((folder / "more").read_text()))
print(json.dumps({{"apiVersion": "{kind}", "kind": "ExecCredential", "status": status}}))
"""
PODS = "/api/v1/namespaces/podloxx/pods"
OURS = {"labelSelector": "app.kubernetes.io/name=podloxx,app.kubernetes.io/component=redis"}


def plugin(folder: Path, **more: str) -> dict[str, Any]:
    """A user of a kubeconfig whose tokens are `token-0`, `token-1` and so on; `more` is in the program's answers."""
    path = folder / "plugin"
    path.write_text(PLUGIN.format(python=sys.executable, kind=KIND))
    path.chmod(0o755)
    (folder / "more").write_text(json.dumps(more))
    return {"exec": {"apiVersion": KIND, "command": str(path), "interactiveMode": "Never"}}


def runs(folder: Path) -> int:
    """How often the program ran."""
    return len((folder / "runs").read_text())


def ends_in(**time: float) -> dict[str, str]:
    return {"expirationTimestamp": (datetime.now(UTC) + timedelta(**time)).strftime("%Y-%m-%dT%H:%M:%SZ")}


async def test_what_lasts_is_asked_for_once(folder: Path) -> None:
    fake = ForwardingApi({"redis-a": FakePod(None)}, tokens={"token-0"})
    async with served(fake, folder, user=plugin(folder, **ends_in(hours=1))) as api, asyncio.TaskGroup() as tasks:
        for _ in range(10):
            tasks.create_task(api.get(PODS, OURS))
    assert fake.heard == ["token-0"] * 10
    assert runs(folder) == 1


async def test_what_ends_soon_is_renewed_before(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "LOOK_S", 0.0)
    fake = ForwardingApi()
    async with served(fake, folder, user=plugin(folder, **ends_in(seconds=20))) as api:
        await api.get("/version")
        (folder / "more").write_text(json.dumps(ends_in(hours=1)))
        await api.get("/version")
        await api.get("/version")
    assert fake.heard == ["token-1", "token-2", "token-2"]


@pytest.mark.parametrize("end", [{}, ends_in(hours=1)], ids=["no end", "an end"])
async def test_what_is_refused_is_renewed_at_once(folder: Path, end: Mapping[str, str]) -> None:
    fake = ForwardingApi({"redis-a": FakePod(None)}, tokens={"token-0"})
    async with served(fake, folder, user=plugin(folder, **end)) as api:
        await api.get("/version")
        await api.get("/version")
        assert runs(folder) == 1
        fake.tokens = {"token-1"}
        # Also where a WebSocket would be opened.
        with pytest.raises(ApiError) as raised:
            async with api.websocket(f"{PODS}/gone/portforward", {"ports": "1"}, ["v4.channel.k8s.io"], heartbeat_s=1):
                pass
        assert raised.value.status == 404
        await api.get("/version")
    assert fake.heard == ["token-0", "token-0", "token-0", "token-1", "token-1"]


async def test_who_is_refused_for_good_is_told_so(folder: Path) -> None:
    async with served(ForwardingApi(tokens=set()), folder, user=plugin(folder)) as api:
        sentence = r"does not accept the credentials .* Log in again"
        with pytest.raises(PrivilegeError, match=sentence), asking("the namespace", api.server):
            await api.get("/version")
        assert runs(folder) == 2


async def test_a_token_in_a_file_is_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "LOOK_S", 0.0)
    (folder / "token").write_text("one")
    fake = ForwardingApi()
    async with served(fake, folder, user={"tokenFile": str(folder / "token")}) as api:
        await api.get("/version")
        (folder / "token").write_text("two")
        await api.get("/version")
    assert fake.heard == ["one", "two"]


async def test_a_program_that_fails_later_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "LOOK_S", 0.0)
    async with served(ForwardingApi(), folder, user=plugin(folder, **ends_in(seconds=20))) as api:
        (folder / "failure").write_text("the session has ended")
        sentence = r"plugin, which is to get them, failed: .*has ended\. Log in again"
        with pytest.raises(PrivilegeError, match=sentence), asking("the namespace", api.server):
            await api.get("/version")


ASKING = """
import asyncio, sys
from services.runtime.credentials import Credentials
asyncio.run(Credentials.of(sys.argv[1], ""))
"""
SILENT = """#!/bin/sh
sleep 60 & echo $! > "$(dirname "$0")/child"
echo $$ > "$(dirname "$0")/itself"
wait
"""


def script(folder: Path, text: str) -> Path:
    path = folder / "script"
    path.write_text(text)
    path.chmod(0o755)
    return path


def started(folder: Path) -> list[int]:
    """The processes of `SILENT`, once both are there."""
    paths = [folder / "child", folder / "itself"]
    return [int(path.read_text()) for path in paths if path.exists() and path.read_text().strip()]


async def test_one_that_says_nothing_is_ended_and_what_it_started_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "_PROGRAM_S", 2.0)
    user = {"exec": {"apiVersion": KIND, "command": str(script(folder, SILENT)), "interactiveMode": "Never"}}
    async with listening(ForwardingApi(), folder, user=user) as kubeconfig:
        with pytest.raises(PrivilegeError, match=r"the program .*script did not give them within 2 s"):
            await KubernetesApi.connect(str(kubeconfig))
    assert len(started(folder)) == 2
    await until(lambda: not any(map(alive, started(folder))), "both have ended")


async def test_one_that_asks_somebody_is_ended_with_what_it_started(folder: Path) -> None:
    user = {"exec": {"apiVersion": KIND, "command": str(script(folder, SILENT))}}
    asking_in_time = ASKING.replace(
        "asyncio.run", "from services.runtime import credentials\ncredentials._PROGRAM_S = 2.0\nasyncio.run"
    )
    terminal, ours = os.openpty()
    try:
        async with listening(ForwardingApi(), folder, user=user) as kubeconfig:
            argv = [sys.executable, "-c", asking_in_time, str(kubeconfig)]
            async with piped(*argv, stdin=ours, cwd=ROOT) as process:
                _, err = await asyncio.wait_for(process.communicate(), 30)
    finally:
        os.close(terminal)
        os.close(ours)
    assert b"did not give them within 2 s" in err
    assert len(started(folder)) == 2
    await until(lambda: not any(map(alive, started(folder))), "both have ended")


async def test_one_that_is_no_longer_waited_for_is_ended(folder: Path) -> None:
    user = {"exec": {"apiVersion": KIND, "command": str(script(folder, SILENT)), "interactiveMode": "Never"}}
    async with listening(ForwardingApi(), folder, user=user) as kubeconfig, asyncio.TaskGroup() as tasks:
        connecting = tasks.create_task(KubernetesApi.connect(str(kubeconfig)))
        await until(lambda: len(started(folder)) == 2, "it runs")
        connecting.cancel()
    await until(lambda: not any(map(alive, started(folder))), "both have ended")


async def test_one_that_complains_at_length_is_heard(folder: Path) -> None:
    text = f"#!{sys.executable}\nimport sys\nsys.stderr.write('no ' * 400_000 + 'session')\nsys.exit(1)\n"
    user = {"exec": {"apiVersion": KIND, "command": str(script(folder, text))}}
    async with listening(ForwardingApi(), folder, user=user) as kubeconfig:
        with pytest.raises(PrivilegeError, match=r"failed: process returned 1\. .*no session$") as raised:
            await KubernetesApi.connect(str(kubeconfig))
    assert len(str(raised.value)) < 3000


async def test_what_one_says_on_a_terminal_is_seen_there_at_once(folder: Path) -> None:
    text = f"#!/bin/sh\necho enter the code 1234 >&2\nwhile [ ! -e {folder}/entered ]; do sleep 0.05; done\nexit 1\n"
    user = {"exec": {"apiVersion": KIND, "command": str(script(folder, text))}}
    terminal, ours = os.openpty()
    try:
        async with listening(ForwardingApi(), folder, user=user) as kubeconfig:
            argv = [str(PROGRAM), "start", f"--kubeconfig={kubeconfig}", "--no-browser", "--port=0"]
            process = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.DEVNULL, stderr=ours, cwd=ROOT)
            try:
                os.set_blocking(terminal, False)
                said = b""

                def seen() -> bool:
                    nonlocal said
                    with contextlib.suppress(BlockingIOError):
                        said += os.read(terminal, 4096)
                    return b"enter the code 1234" in said

                await until(seen, "it says where to log in", 30)
                (folder / "entered").touch()
                assert await asyncio.wait_for(process.wait(), 30) == 3
                seen()
                assert b"process returned 1. If it said why, that stands above." in b" ".join(said.split())
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
    finally:
        os.close(terminal)
        os.close(ours)


async def test_paths_are_those_beside_the_kubeconfig(folder: Path) -> None:
    (folder / "bin").mkdir()
    user = plugin(folder / "bin")
    user["exec"]["command"] = "bin/plugin"
    name = "lab.plx.invalid"
    async with listening(ForwardingApi(), folder, name, user=user) as kubeconfig:
        told = json.loads(kubeconfig.read_text())
        cluster = told["clusters"][0]["cluster"]
        cluster["certificate-authority"] = os.path.relpath(cluster["certificate-authority"], folder)
        kubeconfig.write_text(json.dumps(told))
        one = await credentials.Credentials.of(str(kubeconfig), "")
        assert await one.headers() == {"authorization": "Bearer token-0"}
        assert Path(str(one.configuration.ssl_ca_cert)).samefile(folder / cluster["certificate-authority"])


@pytest.mark.parametrize("asks", [False, True])
async def test_one_that_wants_to_know_the_cluster_is_told(folder: Path, asks: bool) -> None:
    text = '#!/bin/sh\nprintf %s "$KUBERNETES_EXEC_INFO $WHERE" > "$(dirname "$0")/told"\nexit 1\n'
    more = {"provideClusterInfo": True} if asks else {}
    user = {
        "exec": {
            "apiVersion": KIND,
            "command": str(script(folder, text)),
            "env": [{"name": "WHERE", "value": "here"}],
            **more,
        }
    }
    async with listening(ForwardingApi(), folder, "lab.plx.invalid", user=user) as kubeconfig:
        with pytest.raises(PrivilegeError):
            await KubernetesApi.connect(str(kubeconfig))
        authority = json.loads(kubeconfig.read_text())["clusters"][0]["cluster"]["certificate-authority"]
    told, _, where = (folder / "told").read_text().rpartition(" ")
    cluster = {
        "server": "https://lab.plx.invalid:6443",
        "certificate-authority-data": base64.standard_b64encode(Path(authority).read_bytes()).decode(),
    }
    expected = {"interactive": False, **({"cluster": cluster} if asks else {})}
    assert (json.loads(told), where) == ({"apiVersion": KIND, "kind": "ExecCredential", "spec": expected}, "here")


async def test_a_certificate_instead_of_a_token(folder: Path) -> None:
    text = """#!/bin/sh
printf '{"apiVersion": "%s", "kind": "ExecCredential", "status": {"clientCertificateData": "one", "clientKeyData": "two"}}' KIND
"""
    user = {"exec": {"apiVersion": KIND, "command": str(script(folder, text.replace("KIND", KIND)))}}
    async with listening(ForwardingApi(), folder, "lab.plx.invalid", user=user) as kubeconfig:
        one = await credentials.Credentials.of(str(kubeconfig), "")
    assert Path(str(one.configuration.cert_file)).read_text() == "one"
    assert Path(str(one.configuration.key_file)).read_text() == "two"


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (None, "its status is no object"),
        ({}, "neither a token nor a certificate is in it"),
        ({"token": "", "clientCertificateData": None}, "neither a token nor a certificate is in it"),
        ({"clientCertificateData": "one"}, "a certificate without its key"),
    ],
)
async def test_an_answer_without_credentials_is_the_programs_fault(folder: Path, status: Any, sentence: str) -> None:
    answer = json.dumps({"apiVersion": KIND, "kind": "ExecCredential", "status": status})
    user = {"exec": {"apiVersion": KIND, "command": "echo", "args": [answer]}}
    async with listening(ForwardingApi(), folder, user=user) as kubeconfig:
        with pytest.raises(PrivilegeError, match=f"the program echo, .* failed: .*{sentence}"):
            await KubernetesApi.connect(str(kubeconfig))


async def test_what_no_longer_ends_is_not_asked_for_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "LOOK_S", 0.0)
    async with served(ForwardingApi(), folder, user=plugin(folder, **ends_in(seconds=20))) as api:
        (folder / "more").write_text("{}")
        await api.get("/version")
        await api.get("/version")
        await api.get("/version")
    assert runs(folder) == 2


@pytest.mark.parametrize(("mode", "asks"), [({}, True), ({"interactiveMode": "Never"}, False)])
async def test_one_may_ask_on_a_terminal_unless_it_never_does(folder: Path, mode: dict[str, str], asks: bool) -> None:
    text = '#!/bin/sh\nread -r code\nprintf %s "$KUBERNETES_EXEC_INFO $code" > "$(dirname "$0")/told"\nexit 1\n'
    user = {"exec": {"apiVersion": KIND, "command": str(script(folder, text)), **mode}}
    terminal, ours = os.openpty()
    try:
        os.write(terminal, b"1234\n")
        async with listening(ForwardingApi(), folder, user=user) as kubeconfig:
            argv = [sys.executable, "-c", ASKING, str(kubeconfig)]
            async with piped(*argv, stdin=ours, cwd=ROOT) as process:
                _, err = await asyncio.wait_for(process.communicate(), 30)
    finally:
        os.close(terminal)
        os.close(ours)
    assert b"PrivilegeError" in err
    info, _, code = (folder / "told").read_text().rpartition(" ")
    assert (json.loads(info)["spec"], code) == ({"interactive": asks}, "1234" if asks else "")


async def test_one_that_would_ask_where_nobody_can_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    user = {"exec": {"apiVersion": KIND, "command": "true", "interactiveMode": "Always"}}
    async with listening(ForwardingApi(), folder, user=user) as kubeconfig:
        with pytest.raises(PrivilegeError, match="it wants to ask somebody, and standard input is no terminal"):
            await KubernetesApi.connect(str(kubeconfig))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"command": "no-such-plugin"}, "the program no-such-plugin, which is to get them, is not there: install it"),
        (
            {"command": "no-such-plugin", "installHint": "Install it with:\n  get plugin"},
            "is not there: Install it with: get plugin",
        ),
        ({"command": "false"}, "the program false, which is to get them, failed: process returned 1"),
        ({"command": "echo", "args": ["hello"]}, "failed: failed to decode process output"),
        (
            {"command": "sh", "args": ["-c", "echo your session has ended >&2; exit 3"]},
            "failed: process returned 3. your session has ended",
        ),
    ],
)
async def test_what_is_wrong_with_a_program_is_a_sentence(folder: Path, change: dict[str, Any], sentence: str) -> None:
    user = {"exec": {"apiVersion": KIND, **change}}
    async with listening(ForwardingApi(), folder, user=user) as kubeconfig:
        argv = [str(PROGRAM), "start", f"--kubeconfig={kubeconfig}", "--no-browser", "--port=0"]
        async with piped(*argv, cwd=ROOT) as process:
            _, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 3
    [line] = err.decode().splitlines()
    assert line.startswith("podloxx: no credentials for the kubeconfig")
    assert sentence in line
