"""The store of a session in a cluster, reached through a port-forward, with the API that shows it here."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.launcher import leftovers
from services.launcher import session as sessions
from services.launcher.child import session_users
from services.launcher.children import Children
from services.launcher.manifests import COMPONENT_LABEL, NAME_LABEL
from services.launcher.port_forward import PortForward, Target, forwarding
from services.launcher.refusal import asking
from services.launcher.run import Ear, Rig, Wanted
from services.runtime import redis_client
from services.runtime.errors import PodloxxError, UsageError
from services.runtime.kubernetes_api import ApiError, KubernetesApi
from services.runtime.settings import CommonSettings

_PORT: Final = 6379
_USER: Final = "viewer"
WAY_FILE: Final = "way"
_READY_S: Final = 30.0
"""Redis is Ready, so a way that does not come within so long is not late but barred."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Forwarded:
    """How the viewer connects: only as that user anybody leaves the cluster."""

    port: int
    password: Path

    def settings(self, user: str) -> dict[str, str]:
        """The settings of a service; raises KeyError for any other user."""
        if user != _USER:
            raise KeyError(user)
        url = f"redis://127.0.0.1:{self.port}/0"
        return {"redis_url": url, "redis_user": user, "redis_password_file": str(self.password)}


async def password(api: KubernetesApi, namespace: str) -> str:
    """The viewer's password of what runs in a namespace; raises PodloxxError."""
    try:
        with asking(f"the password of {_USER} cannot be read", api.server):
            try:
                found = await api.get(f"/api/v1/namespaces/{namespace}/secrets/redis")
            except ApiError as error:
                if error.status == 404:
                    raise UsageError(
                        f"podloxx does not run in the namespace {namespace}: `podloxx-launch start` or `install` brings it "
                        "there, --namespace names another one"
                    ) from error
                raise
        return base64.b64decode(found["data"][f"{_USER}.password"]).decode()
    except (KeyError, binascii.Error) as error:
        raise PodloxxError(
            f"the Secret redis in namespace {namespace} is not podloxx's: choose another --namespace"
        ) from error


@asynccontextmanager
async def way(
    api: KubernetesApi, namespace: str, kept: Path, end_requested: asyncio.Event, say: Say
) -> AsyncIterator[PortForward]:
    """A port-forward that is ready, unless the end was requested before; raises PodloxxError.

    `kept` is the file with the viewer's password; why the way is interrupted stands in a file beside it.
    """
    told = kept.with_name(WAY_FILE)
    opened = False

    def changed(problem: str) -> None:
        nonlocal opened
        sessions.write_whole(told, problem.encode())
        if problem or opened:
            say(problem or "the way into the cluster is open again")
        opened = opened or not problem

    target = Target(namespace, {NAME_LABEL: "podloxx", COMPONENT_LABEL: "redis"}, _PORT)
    async with forwarding(api, target, lambda port: _answers(Forwarded(port, kept)), changed) as forward:
        if not await forward.ready_within(_READY_S, end_requested):
            raise PodloxxError(
                f"no answer came through the port-forward within {_READY_S:.0f} s: {forward.problem}. Next: see whether "
                f"`kubectl -n {namespace} port-forward service/redis 6379` works"
            )
        yield forward


async def _answers(store: Forwarded) -> None:
    """Raise unless this session's own Redis sends a new nonce back: no other one knows the password."""
    nonce = secrets.token_hex(8).encode()
    settings = CommonSettings(**store.settings(_USER))  # type: ignore[arg-type]
    with redis_client.translating("asking Redis"):
        async with redis_client.connect(settings) as client:
            # The client's own makes a truth value of the answer.
            client.set_response_callback("PING", _as_sent)
            if await client.execute_command("PING", nonce) != nonce:  # type: ignore[no-untyped-call]
                raise PodloxxError("what answered is no Redis")


def _as_sent(response: Any, **_: Any) -> Any:
    return response


@asynccontextmanager
async def rig(
    api: KubernetesApi, namespace: str, wanted: Wanted, end_requested: asyncio.Event, say: Say
) -> AsyncIterator[Rig]:
    """A local session whose store is the cluster's; afterwards no process and no file of it is left."""
    word = await password(api, namespace)
    await asyncio.to_thread(leftovers.clean)
    users, _ = session_users([_USER])
    session = sessions.begin(users[_USER].gid)
    ear = Ear(wanted)
    children = Children(session.folder, os.getpid(), ear)
    try:
        kept = session.secret(f"{_USER}.password", word.encode(), users[_USER])
        async with way(api, namespace, kept, end_requested, say) as forward:
            store = Forwarded(forward.port, kept)
            try:
                yield Rig(
                    session,
                    store,
                    children,
                    users,
                    end_requested,
                    ear,
                    {"way_file": str(session.folder / WAY_FILE)},
                )
            finally:
                await children.end()
    finally:
        sessions.end(session)
