"""The cluster that tests deploy to: this machine's own, or the one of a KUBECONFIG that somebody named."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.netns import Counters
from tests.support.wait import wait_until

_ANSWER_S: Final = 60.0
_COUNTERS: Final = ("rx_bytes", "rx_packets", "tx_bytes", "tx_packets")


_PASSING: Final = ("events", "events.events.k8s.io", "leases.coordination.k8s.io")
"""Kinds that come and go by themselves."""


class KubectlError(Exception):
    """What kubectl said when it failed."""


@dataclass(frozen=True, slots=True)
class Target:
    """A cluster as whoever has its KUBECONFIG sees it, by kubectl."""

    kubeconfig: Path
    kubectl: str = "kubectl"
    internet: tuple[str, ...] = ()
    """Addresses outside the cluster where iperf3, HTTP (8080) and DNS answer; none where we may not ask outside."""
    api_killed: Callable[[], AbstractContextManager[None]] | None = None
    """The API server is killed while inside, and a new one ready after; None where it is not ours."""

    def run(self, *arguments: str, stdin: str | None = None, timeout_s: float = _ANSWER_S) -> str:
        """What kubectl prints; raises KubectlError."""
        argv = self.argv(*arguments)
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)
        if done.returncode:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr or done.stdout}")
        return done.stdout

    def argv(self, *arguments: str) -> list[str]:
        """The command line."""
        return [self.kubectl, f"--kubeconfig={self.kubeconfig}", *arguments]

    def get(self, *arguments: str) -> dict[str, Any]:
        """An object or a list."""
        found = json.loads(self.run("get", *arguments, "--output=json"))
        assert isinstance(found, dict)
        return found

    def raw(self, path: str) -> dict[str, Any]:
        """The object at a path."""
        found = json.loads(self.run("get", f"--raw={path}"))
        assert isinstance(found, dict)
        return found

    def everything(self) -> set[str]:
        """Kind, namespace, name and uid of all objects that do not come and go by themselves."""
        kinds = [
            kind for kind in self.run("api-resources", "--verbs=list", "--output=name").split() if kind not in _PASSING
        ]
        columns = "custom-columns=K:.kind,S:.metadata.namespace,N:.metadata.name,U:.metadata.uid"
        listed = self.run("get", ",".join(kinds), "--all-namespaces", f"--output={columns}", "--no-headers")
        return {" ".join(line.split()) for line in listed.splitlines()}

    def apply(self, *objects: dict[str, Any]) -> None:
        """Create objects or bring them up to date."""
        self.run("apply", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def exec(self, pod: str, *command: str, stdin: str | None = None) -> str:
        """What a command in a pod (`namespace/name`) prints."""
        namespace, _, name = pod.partition("/")
        flags = [] if stdin is None else ["--stdin"]
        return self.run("exec", f"--namespace={namespace}", *flags, name, "--", *command, stdin=stdin)

    def counters(self, pod: str) -> Counters:
        """What the pod's own interface has counted."""
        files = [f"/sys/class/net/eth0/statistics/{name}" for name in _COUNTERS]
        return Counters(*map(int, self.exec(pod, "cat", *files).split()))

    @contextlib.contextmanager
    def forwarded(self, namespace: str, what: str, port: int) -> Iterator[int]:
        """A port of this machine that leads to `port` of a pod or Service (`service/api`)."""
        argv = self.argv(f"--namespace={namespace}", "port-forward", what, f":{port}")
        # It writes a line for each connection, more than a pipe takes that nobody reads.
        with tempfile.NamedTemporaryFile("w") as out, subprocess.Popen(argv, stdout=out, stderr=out) as process:

            def said() -> re.Match[str] | None:
                text = Path(out.name).read_text()
                assert process.poll() is None, f"kubectl port-forward: {text}"
                return re.search(r"127\.0\.0\.1:(\d+)", text)

            try:
                match = wait_until(said, f"{what} is forwarded", _ANSWER_S)
                assert match
                yield int(match[1])
            finally:
                process.kill()
