"""Which cluster a command is about: the kubeconfig and context that kubectl would take, by name."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from services.runtime.errors import UsageError
from services.runtime.kubernetes_api import KubernetesApi

_DEFAULT: Final = "~/.kube/config"
_VARIABLE: Final = "KUBECONFIG"


@dataclass(frozen=True, slots=True)
class Context:
    """A context of a kubeconfig, with the namespace that podloxx has or is to have in its cluster."""

    kubeconfig: str
    name: str
    namespace: str

    @property
    def kubectl(self) -> str:
        """How kubectl is told the same."""
        return f"kubectl --context {self.name} -n {self.namespace}"


def chosen(kubeconfig: str, context: str, namespace: str, environ: Mapping[str, str]) -> Context:
    """The context that was asked for, or the current one; raises UsageError where there is none.

    As kubectl does, `KUBECONFIG` of `environ` may list several files.
    """
    given = kubeconfig or environ.get(_VARIABLE, "") or _DEFAULT
    paths = os.pathsep.join(str(Path(one).expanduser()) for one in given.split(os.pathsep) if one)
    where = "--kubeconfig" if kubeconfig else _VARIABLE if environ.get(_VARIABLE) else "the default"
    if not any(Path(one).is_file() for one in paths.split(os.pathsep)):
        raise UsageError(
            f"there is no kubeconfig {given} ({where}): name one with --kubeconfig; `kubectl config view` shows which it takes"
        )
    # Not before a cluster is asked: see `KubernetesApi.connect`.
    from kubernetes_asyncio.config import ConfigException
    from kubernetes_asyncio.config.kube_config import list_kube_config_contexts

    try:
        contexts, active = list_kube_config_contexts(paths)
    except (ConfigException, OSError, yaml.YAMLError, LookupError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        if "current-context" in why:
            raise UsageError(f"the kubeconfig {given} has no current context: name one with --context") from error
        raise UsageError(f"cannot use the kubeconfig {given} ({where}): {why}") from error
    names = [str(one["name"]) for one in contexts]
    name = context or str((active or {}).get("name", ""))
    if name not in names:
        what = f"no context {name!r}" if name else "no current context"
        raise UsageError(f"the kubeconfig {given} has {what}: choose with --context among {', '.join(names) or 'none'}")
    return Context(paths, name, namespace)


@asynccontextmanager
async def connected(context: Context) -> AsyncIterator[KubernetesApi]:
    """A client of its API server; raises UsageError where the kubeconfig cannot be used."""
    api = await KubernetesApi.connect(context.kubeconfig, context.name)
    try:
        yield api
    finally:
        await api.close()
