"""As whom a kubeconfig's user asks an API server, renewed before it expires and after it was refused."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
import yaml
from kubernetes_asyncio.client.configuration import Configuration
from kubernetes_asyncio.config import ConfigException, load_incluster_config
from kubernetes_asyncio.config.kube_config import KubeConfigLoader, KubeConfigMerger

from services.runtime.errors import CredentialsError, PrivilegeError, UsageError
from services.runtime.exec_plugin import ExecPluginLoader

IN_CLUSTER: Final = "in-cluster"
"""Instead of a kubeconfig's path: the service account of the pod that we run in."""
LOOK_S: Final = 10.0
"""How often is looked whether credentials are due: the shortest live for minutes."""
_PROGRAM_S: Final = 120.0
"""A program that gets credentials may ask somebody to log in in a browser."""
_NOT_ITS_FORM: Final = (LookupError, TypeError, AttributeError, AssertionError)
"""What the package raises where something else stands than a kubeconfig has there."""

# What it logs, it raises as well.
logging.getLogger(KubeConfigLoader.__module__).setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class _Program:
    """A program that a kubeconfig names for its credentials (`exec`), and how whoever wrote it says that one gets it."""

    name: str
    hint: str


class Credentials:
    """Credentials of one user; made by `of`."""

    def __init__(
        self, configuration: Configuration, loader: ExecPluginLoader | None = None, program: _Program | None = None
    ) -> None:
        self.configuration = configuration
        self._loader = loader
        self._program = program
        self._one_by_one = asyncio.Lock()
        self._looked_s = asyncio.get_running_loop().time()
        self._refused = False

    @classmethod
    async def of(cls, kubeconfig: str, context: str) -> Self:
        """The credentials of a kubeconfig's context (empty: its current one), or of `IN_CLUSTER`.

        Raises UsageError where the kubeconfig cannot be used, PrivilegeError where a program of it gives no credentials.
        """
        configuration = Configuration()
        where = "the pod's service account" if kubeconfig == IN_CLUSTER else f"the kubeconfig {kubeconfig}"
        where += f" (context {context})" if context else ""
        loader, program = None, None
        try:
            if kubeconfig == IN_CLUSTER:
                load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            else:
                merged = KubeConfigMerger(str(Path(kubeconfig).expanduser())).config
                # Without a base, a relative path is the neighbour of the file that it stands in.
                loader = ExecPluginLoader(merged, active_context=context or None, config_base_path=None)
                program = _program(merged, context)
                await _in_time(loader.load_and_set(configuration))
        except (ConfigException, OSError, ValueError, yaml.YAMLError, *_NOT_ITS_FORM) as error:
            if program is not None and isinstance(error, ConfigException | OSError):
                raise PrivilegeError(f"no credentials for {where}: {_why_not(program, error)}") from error
            raise UsageError(f"cannot use {where}: {_why(error)}") from error
        return cls(configuration, loader, program)

    async def headers(self) -> dict[str, str]:
        """The headers that say who asks; raises CredentialsError."""
        await self._renew()
        try:
            # The package renews a service account's token in here.
            found: Mapping[str, Mapping[str, str]] = await self.configuration.auth_settings()
        except (ConfigException, OSError) as error:
            raise CredentialsError(f"credentials cannot be renewed: {_why(error)}") from error
        return {one["key"]: one["value"] for one in found.values()}

    def refused(self) -> bool:
        """The API server does not take them; whether others may be had by asking for `headers` again."""
        self._refused = self._loader is not None
        return self._refused

    async def _renew(self) -> None:
        loader = self._loader
        if loader is None:
            return
        async with self._one_by_one:
            now_s = asyncio.get_running_loop().time()
            # Without a time of expiry the program would run at every look.
            lasting = self._program is not None and loader.ends is None
            if not self._refused and (lasting or now_s - self._looked_s < LOOK_S):
                return
            if self._refused:
                # What was refused is over, whatever the program said of it.
                loader.ends = None
            try:
                await _in_time(loader.load_and_set(self.configuration))
            except (ConfigException, OSError, ValueError, *_NOT_ITS_FORM) as error:
                why = _why(error) if self._program is None else _why_not(self._program, error)
                raise CredentialsError(f"credentials cannot be renewed: {why}") from error
            self._looked_s, self._refused = now_s, False


async def _in_time(work: Awaitable[Any]) -> Any:
    try:
        async with asyncio.timeout(_PROGRAM_S):
            return await work
    except aiohttp.ClientError as error:
        # From an identity provider.
        raise OSError(f"{type(error).__name__}: {error}") from error


def _program(merged: Any, context: str) -> _Program | None:
    """The program of a context's user; raises ConfigException where the kubeconfig has no such context."""
    name = context or merged["current-context"]
    user = merged["contexts"].get_with_name(name)["context"].safe_get("user")
    one = merged["users"].get_with_name(user, safe=True) if user else None
    asked = one["user"].safe_get("exec") if one is not None and one.safe_get("user") else None
    return _Program(str(asked.get("command")), " ".join(str(asked.get("installHint", "")).split())) if asked else None


def _why_not(program: _Program, error: Exception) -> str:
    """Why a program gave no credentials, and what to do."""
    if isinstance(error, FileNotFoundError):
        mend = program.hint or "install it, and see that it is in the PATH"
        return f"the program {program.name}, which is to get them, is not there: {mend}"
    if isinstance(error, TimeoutError):
        return f"the program {program.name} did not give them within {_PROGRAM_S:.0f} s"
    return f"the program {program.name}, which is to get them, failed: {_why(error)}"


def _why(error: Exception) -> str:
    """One line that says why a configuration cannot be used."""
    if isinstance(error, yaml.YAMLError):
        return f"it is not YAML: {' '.join(str(error).split())}"
    if isinstance(error, _NOT_ITS_FORM):
        return f"it does not have the form of a kubeconfig: {str(error) or type(error).__name__}"
    return " ".join(str(error).split()) or type(error).__name__
