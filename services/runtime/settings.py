"""Every service's settings: read once at start, frozen, the same table for code and docs."""

from __future__ import annotations

import argparse
import dataclasses
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar

from services.runtime.errors import UsageError
from services.runtime.log import FORMATS, LEVELS

PREFIX: Final = "PODLOXX_"
_PASSWORD_IN_URL: Final = re.compile(r"(?<=://).*(?=@)|(?<=password=)[^&]*")
"""Greedy, so that a password with an unescaped @ or / is hidden whole."""
_S = TypeVar("_S", bound="CommonSettings")
MOST_SHARDS: Final = 64
_SHARDS: Final = (
    "over how many shards nodes are divided, one aggregator each and, of several, one for all; the same for all"
)


def setting(
    default: str | float | Callable[[], str],
    text: str,
    *,
    choices: Sequence[str] = (),
    at_least: float | None = None,
    at_most: float | None = None,
    shown: str = "",
) -> Any:
    """A field of a settings class; its type is the type of `default`.

    `shown` stands in the docs where the default depends on the machine.
    """
    metadata = {"help": text, "choices": tuple(choices), "at_least": at_least, "at_most": at_most, "shown": shown}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class CommonSettings:
    """What every service reads. Passwords come by file, so only an address may hold a secret."""

    log_level: str = setting("info", "least severe log lines to write", choices=tuple(LEVELS))
    log_format: str = setting("auto", "pretty, json, or auto: pretty on a terminal", choices=FORMATS)
    redis_url: str = setting(
        "redis://127.0.0.1:6379/0",
        "the store: redis://, rediss:// or unix:///path/to/socket; of a Redis Cluster redis-cluster://HOST:PORT,…",
    )
    redis_user: str = setting("", "ACL user in the store")
    redis_password_file: str = setting("", "file with that user's password")
    heartbeat_file: str = setting("", "file to touch while the work goes on, for probes")
    parent_pid: int = setting(0, "end when this process is no longer our parent", at_least=0)


@dataclass(frozen=True, kw_only=True)
class CaptureSettings(CommonSettings):
    """Settings of `services.capture`."""

    node: str = setting(socket.gethostname, "name of the node", shown="host name")
    capture: str = setting(
        "auto",
        "how to see packets: auto takes the best of ebpf, ring and socket that works",
        choices=("auto", "ebpf", "ring", "socket", "tcx", "cgroup", "pcap"),
    )
    interface_prefix: str = setting(
        "", "capture links with these prefixes, for example azv|veth|cali, instead of detecting them"
    )
    interface: str = setting("", "capture these interfaces, separated by commas, instead of detecting them")
    pcap_files: str = setting("", "files for --capture pcap, separated as in PATH")
    pcap_speed: float = setting(0.0, "speed of a replay: 1 is real time, 0 as fast as possible", at_least=0)
    pcap_local_file: str = setting("", "file with the addresses that are local in pcap files, one a line")
    flow_capacity: int = setting(131072, "flows kept apart between two flushes; more are folded", at_least=1)
    # 130 bytes each at most: a batch of more than 8 MB would be refused.
    batch_rows: int = setting(50000, "flows in one batch; more are folded", at_least=1, at_most=60000)
    flush_interval_s: float = setting(1.0, "seconds between two batches", at_least=0.05)
    ttl_s: float = setting(300.0, "end after so many seconds without the store", at_least=1)
    shards: int = setting(1, _SHARDS, at_least=1, at_most=MOST_SHARDS)


@dataclass(frozen=True, kw_only=True)
class AggregatorSettings(CommonSettings):
    """Settings of `services.aggregator`."""

    directory_file: str = setting("", "JSON file that says which pod has which address")
    kubeconfig: str = setting("", "learn who has which address from this cluster; in-cluster: from the one we run in")
    kube_context: str = setting("", "context of the kubeconfig, instead of its current one")
    session_namespace: str = setting("", "our own namespace, to be deleted when nobody renews the Lease in it any more")
    cidr: str = setting("", "names for address ranges: NAME=CIDR[:scope],…; the scope is private unless given")
    private_cidr: str = setting("", "further private ranges, separated by commas")
    ingress_selector: str = setting("", "labels of further ingress controllers: KEY=VALUE[,KEY=VALUE…][;…]")
    peers_per_pod: int = setting(1000, "peers kept per pod, the rest is folded by scope; 0 keeps all", at_least=0)
    tick_interval_s: float = setting(0.25, "longest time between a batch and its commit", at_least=0.01)
    lease_ttl_s: float = setting(5.0, "a silent aggregator loses its shard after so many seconds", at_least=1)
    shards: int = setting(1, _SHARDS, at_least=1, at_most=MOST_SHARDS)
    metrics_listen: str = setting("", "where Prometheus reads metrics: ADDRESS:PORT, or :PORT for every address")


@dataclass(frozen=True, kw_only=True)
class ApiSettings(CommonSettings):
    """Settings of `services.api`."""

    listen: str = setting("127.0.0.1", "address to listen on; any other asks for --token-file and --allowed-hosts")
    port: int = setting(1337, "port to listen on, 0 for a free one", at_least=0)
    token_file: str = setting("", "file with the token that clients must send")
    allowed_hosts: str = setting("", "host names under which the API may be called, separated by commas")
    max_clients: int = setting(1000, "WebSocket clients at a time", at_least=1)
    way_file: str = setting("", "file that says why the way to the store is interrupted; empty while it is open")
    flow_window_s: float = setting(10.0, "seconds that /traffic/flow covers unless asked otherwise", at_least=1)


SERVICES: Final[Mapping[str, type[CommonSettings]]] = {
    "capture": CaptureSettings,
    "aggregator": AggregatorSettings,
    "api": ApiSettings,
}


@dataclass(frozen=True)
class Described:
    """One line of the table of settings."""

    name: str
    default: str
    help: str
    services: tuple[str, ...]

    @property
    def flag(self) -> str:
        """The command-line flag."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return PREFIX + self.name.upper()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message} (see --help)")


def load(cls: type[_S], argv: Sequence[str], environ: Mapping[str, str]) -> _S:
    """Settings from flags, then `PODLOXX_` variables, then defaults; raises UsageError."""
    service = next((name for name, known in SERVICES.items() if known is cls), "podloxx")
    parser = _Parser(prog=f"services.{service}", description=cls.__doc__, allow_abbrev=False)
    for field in dataclasses.fields(cls):
        text = field.metadata["help"].replace("%", "%%")
        parser.add_argument(_flag(field.name), dest=field.name, metavar="VALUE", help=text)
    flags = vars(parser.parse_args(argv))
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        variable = PREFIX + field.name.upper()
        if flags[field.name] is not None:
            values[field.name] = _parse(field, flags[field.name], _flag(field.name))
        elif variable in environ:
            values[field.name] = _parse(field, environ[variable], variable)
    return cls(**values)


def as_arguments(**values: str | float) -> list[str]:
    """Flags that set `values`, for a process that starts another one."""
    return [f"{_flag(name)}={value}" for name, value in values.items()]


def without_password(url: str) -> str:
    """An address as it may be shown and logged: whom it names and with which password is left out."""
    return _PASSWORD_IN_URL.sub("***", url)


def redacted(settings: CommonSettings) -> dict[str, object]:
    """All settings by name, as they may be logged."""
    return {
        name: without_password(value) if isinstance(value, str) else value
        for name, value in dataclasses.asdict(settings).items()
    }


def as_table(classes: Mapping[str, type[Any]] = SERVICES) -> Iterator[Described]:
    """Every setting once, in the order in which the docs list them.

    `classes` are dataclasses whose fields come from `setting`, by who reads them.
    """
    users: dict[str, list[str]] = {}
    fields: dict[str, dataclasses.Field[Any]] = {}
    for service, cls in classes.items():
        for field in dataclasses.fields(cls):
            users.setdefault(field.name, []).append(service)
            fields.setdefault(field.name, field)
    for name, field in fields.items():
        default = field.metadata["shown"] or str(field.default)
        yield Described(name, default, field.metadata["help"], tuple(users[name]))


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _parse(field: dataclasses.Field[Any], text: str, source: str) -> str | int | float:
    kind = {"int": int, "float": float, "str": str}[str(field.type)]
    try:
        value: str | int | float = kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise UsageError(f"{source} must be {what}, got {text!r}") from None
    choices, least, most = (field.metadata[name] for name in ("choices", "at_least", "at_most"))
    if choices and value not in choices:
        raise UsageError(f"{source} must be one of {', '.join(choices)}, got {text!r}")
    # Written so that NaN, which compares with nothing, is refused too.
    if least is not None and not float(value) >= least:
        raise UsageError(f"{source} must be at least {least}, got {text!r}")
    if most is not None and not float(value) <= most:
        raise UsageError(f"{source} must be at most {most}, got {text!r}")
    return value
