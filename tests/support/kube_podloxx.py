"""podloxx on a cluster, brought there and removed by `kubectl apply -k` and `kubectl delete -k`."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.kube_target import Target
from tests.support.wait import wait_until

ROOT: Final = Path(__file__).parents[2]
NAMESPACE: Final = "podloxx"
WORKLOADS: Final = ("deployment/redis", "deployment/aggregator", "daemonset/agent", "deployment/api")
_ROLLOUT_S: Final = 90
_GONE_S: Final = 90
_ANSWER_S: Final = 20.0


class Podloxx:
    """The overlay `persistent`, whose API runs in the cluster; `folder` is for its passwords."""

    def __init__(self, target: Target, folder: Path) -> None:
        self.target = target
        shutil.copytree(ROOT / "k8s", folder / "k8s")
        subprocess.run(["sh", str(folder / "k8s/make-secrets")], check=True, timeout=30)
        self.overlay = folder / "k8s/overlays/persistent"
        self._token = (self.overlay / "api.env").read_text().strip().removeprefix("token=")
        self._applied = False
        self._forwarded: contextlib.ExitStack | None = None
        self._port = 0

    def up(self) -> None:
        """Bring it there, if it is not, and wait until the API tells of an agent on every node."""
        if self._forwarded:
            return
        # Each test would wait as long again.
        assert not self._applied, "podloxx did not come up for an earlier test"
        self._applied = True
        self.target.run("apply", "--server-side", f"--kustomize={self.overlay}")
        for one in WORKLOADS:
            self.target.run(
                *("rollout", "status", f"--namespace={NAMESPACE}", one, f"--timeout={_ROLLOUT_S}s"),
                timeout_s=_ROLLOUT_S + 10,
            )
        with contextlib.ExitStack() as stack:
            self._port = stack.enter_context(self.target.forwarded(NAMESPACE, "service/podloxx", 1337))
            self._forwarded = stack.pop_all()
        wait_until(self._all_report, "an agent reports from every node", _ROLLOUT_S)

    def down(self) -> None:
        """Remove it, if it is there, and wait until it is gone."""
        if self._forwarded:
            self._forwarded.close()
            self._forwarded = None
        if self._applied:
            flags = ("--ignore-not-found", f"--timeout={_GONE_S}s")
            self.target.run("delete", f"--kustomize={self.overlay}", *flags, timeout_s=_GONE_S + 10)
            self._applied = False

    def get(self, path: str) -> dict[str, Any]:
        """What the API answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_ANSWER_S)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Authorization": f"Bearer {self._token}"})
            answer = connection.getresponse()
            body = answer.read()
        assert answer.status == 200, (answer.status, body)
        found = json.loads(body)
        assert isinstance(found, dict)
        return found

    def objects(self) -> list[dict[str, Any]]:
        """All that is brought there."""
        return list(yaml.safe_load_all(self.target.run("kustomize", str(self.overlay))))

    def _all_report(self) -> bool:
        nodes = self.target.get("nodes")["items"]
        overview = self.get("/traffic/overview")
        return bool(overview["nodesReporting"] == len(nodes))
