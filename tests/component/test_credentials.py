"""Credentials that a program gives, as managed clusters have them: renewed when they end, and told in a sentence where not."""

from __future__ import annotations

import asyncio
import json
import os
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
from tests.support.launched import PROGRAM, ROOT

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


async def test_one_that_says_nothing_is_not_waited_for_for_ever(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_PROGRAM_S", 0.3)
    user = {"exec": {"apiVersion": KIND, "command": "sleep", "args": ["30"]}}
    async with listening(ForwardingApi(), folder, user=user) as kubeconfig:
        with pytest.raises(PrivilegeError, match="the program sleep did not give them within 0 s"):
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
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=pipe, cwd=ROOT, env=dict(os.environ))  # noqa: TID251
        _, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 3
    [line] = err.decode().splitlines()
    assert line.startswith("podloxx: no credentials for the kubeconfig")
    assert sentence in line
