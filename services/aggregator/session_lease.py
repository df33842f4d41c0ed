"""Removes the session that this aggregator belongs to from its cluster when nobody renews its Lease any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from services.runtime.clock import Clock
from services.runtime.kubernetes_api import ApiError, BrokenAnswer, KubernetesApi
from services.runtime.log import get_logger
from services.runtime.settings import AggregatorSettings
from services.runtime.supervise import Stop

_log = get_logger(__name__)

_LEASE: Final = "podloxx"
_LOOK_S: Final = 10.0
"""As often as the launcher renews it."""
_LOOKS: Final = 5
"""Looks per time to live, at least."""
_ANSWER_S: Final = 30.0
_FAILURES: Final = (ApiError, BrokenAnswer, OSError, TimeoutError)


@dataclass(slots=True)
class Silence:
    """For how long a Lease has not been renewed, by this process's clock alone: others' clocks differ.

    Only time between two looks that both succeeded counts: while the API server is away nobody can renew.
    """

    renewed: str | None = None
    silent_s: float = 0.0
    _looked_s: float | None = None

    def look(self, renewed: str, now_s: float) -> None:
        """A look at `now_s` (monotonic) has shown this time of renewal."""
        if renewed != self.renewed:
            self.renewed, self.silent_s = renewed, 0.0
        elif self._looked_s is not None:
            self.silent_s += now_s - self._looked_s
        self._looked_s = now_s

    def missed(self) -> None:
        """A look did not succeed."""
        self._looked_s = None


@asynccontextmanager
async def guarding(settings: AggregatorSettings, clock: Clock, stop: Stop) -> AsyncIterator[None]:
    """Look after the Lease while inside, where a namespace is set; raises UsageError as `KubernetesApi.connect` does."""
    if not settings.session_namespace:
        yield
        return
    api = await KubernetesApi.connect(settings.kubeconfig, settings.kube_context)
    try:
        async with asyncio.TaskGroup() as tasks:
            looking = tasks.create_task(_look_after(api, settings.session_namespace, clock, stop), name="session-lease")
            try:
                yield
            finally:
                looking.cancel()
    finally:
        await api.close()


async def _look_after(api: KubernetesApi, namespace: str, clock: Clock, stop: Stop) -> None:
    silence = Silence()
    uid = ""
    failing = False
    pause_s = _LOOK_S
    while not await stop.sleep(pause_s if uid else 0.0):
        try:
            async with asyncio.timeout(_ANSWER_S):
                # The one that we are in: a later one of the same name is nothing of ours.
                uid = uid or str((await api.get(f"/api/v1/namespaces/{namespace}"))["metadata"]["uid"])
                lease = await api.get(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{_LEASE}")
        except _FAILURES as error:
            if not failing:
                _log.warning("session-lease-unread", error=str(error))
            failing = True
            silence.missed()
            await stop.sleep(1.0)
            continue
        failing = False
        spec: dict[str, Any] = lease.get("spec") or {}
        ttl_s = spec.get("leaseDurationSeconds")
        if ttl_s is None:
            # It was installed to stay.
            silence, pause_s = Silence(), _LOOK_S
            continue
        pause_s = min(_LOOK_S, ttl_s / _LOOKS)
        silence.look(str(spec.get("renewTime", "")), clock.monotonic_us() / 1e6)
        if silence.silent_s > ttl_s:
            await _remove(api, namespace, uid, silence.silent_s)


async def _remove(api: KubernetesApi, namespace: str, uid: str, silent_s: float) -> None:
    """Delete our own namespace, with us and everything else that is in it or goes with it."""
    _log.warning(
        "session-abandoned", namespace=namespace, silent_s=round(silent_s), consequence="the namespace is deleted"
    )
    try:
        async with asyncio.timeout(_ANSWER_S):
            await api.send("DELETE", f"/api/v1/namespaces/{namespace}", None, {"preconditions": {"uid": uid}})
    except _FAILURES as error:
        # The next look is another attempt.
        _log.warning("session-not-removed", error=str(error))
