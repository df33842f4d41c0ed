"""The program that a kubeconfig names for its user's credentials (`exec`), run as kubectl runs it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from kubernetes_asyncio.config import ConfigException
from kubernetes_asyncio.config.dateutil import parse_rfc3339
from kubernetes_asyncio.config.kube_config import EXPIRY_SKEW_PREVENTION_DELAY, FileOrData, KubeConfigLoader

_SAID_CHARS: Final = 2000
"""What is kept of a program's complaints, from the end."""
_ABOVE: Final = "If it said why, that stands above."
"""Not quoted where a terminal showed it: to have a copy takes the terminal from it, by which programs know whether to ask."""
_CLUSTER: Final = ("server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url", "disable-compression")
_EXTENSION: Final = "client.authentication.k8s.io/exec"


class ExecPluginLoader(KubeConfigLoader):
    """The package's loader, which by itself leaves a program running that nobody waits for, and hides what it says."""

    ends: datetime | None = None
    """When what the program gave last expires; None where it did not say, or gave nothing yet."""

    async def load_from_exec_plugin(self) -> bool:
        """Ask the program, unless what it said is good for some minutes more; True.

        Raises ConfigException where its answer is none, OSError where it cannot be run. When cancelled it is ended.
        """
        assert self._user is not None
        if self.ends is not None and datetime.now(UTC) < self.ends - EXPIRY_SKEW_PREVENTION_DELAY:
            return True
        status = await self._answer(self._user["exec"].value)
        if bool(status.get("clientCertificateData")) != bool(status.get("clientKeyData")):
            raise ConfigException("malformed response. a certificate without its key, or a key without its certificate")
        if not status.get("token") and not status.get("clientCertificateData"):
            raise ConfigException("malformed response. neither a token nor a certificate is in it")
        if status.get("token"):
            self.token = f"Bearer {status['token']}"
        if status.get("clientCertificateData"):
            for ours, theirs in (("client-certificate", "clientCertificateData"), ("client-key", "clientKeyData")):
                pem = str(status[theirs]).encode()
                self._user.value[f"{ours}-data"] = base64.standard_b64encode(pem).decode()
            # The package reads a certificate just once.
            for once in ("cert_file", "key_file"):
                self.__dict__.pop(once, None)
        ends = status.get("expirationTimestamp")
        self.ends = parse_rfc3339(ends) if ends else None
        return True

    async def _answer(self, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        """The status of the program's ExecCredential."""
        for key in ("command", "apiVersion"):
            if key not in spec:
                raise ConfigException(f"malformed request. missing key '{key}'")
        version, mode = spec["apiVersion"], spec.get("interactiveMode") or "IfAvailable"
        interactive = mode != "Never" and sys.stdin is not None and sys.stdin.isatty()
        if mode == "Always" and not interactive:
            raise ConfigException("it wants to ask somebody, and standard input is no terminal")
        told: dict[str, Any] = {"interactive": interactive}
        if spec.get("provideClusterInfo"):
            told["cluster"] = self._cluster_info()
        environ = {str(one["name"]): str(one["value"]) for one in spec.get("env") or ()}
        environ["KUBERNETES_EXEC_INFO"] = json.dumps({"apiVersion": version, "kind": "ExecCredential", "spec": told})
        argv = [self._program(str(spec["command"])), *map(str, spec.get("args") or ())]
        code, out, said = await _ran(argv, environ, interactive=interactive)
        if code != 0:
            raise ConfigException(f"process returned {code}." + (f" {said}" if said else ""))
        try:
            answer = json.loads(out)
        except ValueError as error:
            raise ConfigException(f"failed to decode process output: {error}") from error
        for key in ("apiVersion", "kind", "status"):
            if not isinstance(answer, dict) or key not in answer:
                raise ConfigException(f"malformed response. missing key '{key}'")
        if answer["apiVersion"] != version:
            raise ConfigException(f"plugin api version {answer['apiVersion']} does not match {version}")
        if not isinstance(answer["status"], dict):
            raise ConfigException("malformed response. its status is no object")
        status: Mapping[str, Any] = answer["status"]
        return status

    def _program(self, command: str) -> str:
        """A name is looked up in the PATH; a path is the kubeconfig's neighbour's."""
        assert self._user is not None
        inside = Path(command).name != command
        return str(Path(self._get_base_path(self._user.path), command)) if inside else command

    def _cluster_info(self) -> dict[str, Any]:
        node: Any = self._cluster
        cluster = node.value
        info = {key: cluster[key] for key in _CLUSTER if key in cluster}
        authority = FileOrData(node, "certificate-authority", file_base_path=self._get_base_path(node.path)).as_data()
        if authority:
            info["certificate-authority-data"] = authority
        for one in cluster.get("extensions") or ():
            if one.get("name") == _EXTENSION:
                info["config"] = one.get("extension")
        return info


async def _ran(argv: list[str], environ: Mapping[str, str], *, interactive: bool) -> tuple[int, bytes, str]:
    """Exit code, output, and the end of its complaints; where a terminal has shown them, that they are there.

    Its output goes to files: a pipe would have to be drained, and would outlive a program that is ended.
    """
    shown = sys.stderr is not None and sys.stderr.isatty()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
        process = await asyncio.create_subprocess_exec(
            *argv,
            env={**os.environ, **environ},  # noqa: TID251
            stdin=None if interactive else asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=None if shown else said,
            # Who asks somebody keeps the terminal; of any other all ends that it started.
            start_new_session=not interactive,
        )
        try:
            code = await process.wait()
        finally:
            if process.returncode is None:
                _kill(process.pid, group=not interactive)
                await process.wait()
        out.seek(0)
        if shown:
            return code, out.read(), _ABOVE
        said.seek(max(said.seek(0, os.SEEK_END) - _SAID_CHARS, 0))
        return code, out.read(), said.read().decode(errors="replace").strip()


def _kill(pid: int, *, group: bool) -> None:
    """End a program and what it started: by its group where it has one of its own, else one by one."""
    with contextlib.suppress(ProcessLookupError):
        if group and sys.platform != "win32":
            os.killpg(pid, signal.SIGKILL)
            return
        # Before it ends itself: its children would be another's then. One may be a browser, which is asked to end.
        for one in _started_by(pid):
            with contextlib.suppress(OSError):
                os.kill(one, signal.SIGTERM)
        os.kill(pid, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)


def _started_by(pid: int) -> list[int]:
    """The processes that one has started, and theirs; empty where there is no `ps`, as in small containers and on Windows."""
    argv = ("ps", "-A", "-o", "pid=", "-o", "ppid=")
    try:
        # It answers in milliseconds; who hangs is not waited for.
        done = subprocess.run(argv, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    children: dict[int, list[int]] = {}
    for line in done.stdout.splitlines():
        own, parent = map(int, line.split())
        children.setdefault(parent, []).append(own)
    found = [pid]
    for one in found:
        found += children.get(one, ())
    return found[1:]
