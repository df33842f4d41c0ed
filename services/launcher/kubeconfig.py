"""One context of a kubeconfig with all files that it names inside, for a service that may not read the user's."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from services.runtime.errors import UsageError

_FILES: Final = {
    "cluster": {"certificate-authority": "certificate-authority-data"},
    "user": {"client-certificate": "client-certificate-data", "client-key": "client-key-data"},
}


def flattened(path: str, context: str = "") -> bytes:
    """The context (empty: the current one) as a kubeconfig of its own, in JSON; raises UsageError naming what is wrong."""
    file = Path(path).expanduser()
    try:
        content = yaml.safe_load(file.read_bytes())
        name = context or content.get("current-context")
        if not name:
            raise UsageError(f"the kubeconfig {path} has no current context: name one with --context")
        chosen = _entry(content, "context", str(name), path)
        parts = {
            kind: _entry(content, kind, str(chosen[kind]), path) for kind in ("cluster", "user") if chosen.get(kind)
        }
        for kind, part in parts.items():
            _embed(part, _FILES[kind], file.parent)
        if "tokenFile" in parts.get("user", {}):
            # It may be renewed, which a copy would miss; but its owner alone may read it.
            parts["user"]["token"] = (file.parent / parts["user"].pop("tokenFile")).read_text().strip()
    except OSError as error:
        raise UsageError(
            f"cannot read {error.filename}, which the kubeconfig {path} is or names: {error.strerror}"
        ) from error
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(
            f"the kubeconfig {path} is malformed: {' '.join(str(error).split()) or type(error).__name__}"
        ) from error
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "contexts": [{"name": "podloxx", "context": dict.fromkeys(parts, "podloxx")}],
            "current-context": "podloxx",
            **{f"{kind}s": [{"name": "podloxx", kind: part}] for kind, part in parts.items()},
        }
    ).encode()


def _entry(content: Mapping[str, Any], kind: str, name: str, path: str) -> dict[str, Any]:
    found = next((dict(one[kind]) for one in content.get(f"{kind}s") or () if one["name"] == name), None)
    if found is None:
        known = ", ".join(str(one["name"]) for one in content.get(f"{kind}s") or ()) or "none"
        raise UsageError(f"the kubeconfig {path} has no {kind} {name!r}; there are {known}")
    return found


def _embed(part: dict[str, Any], files: Mapping[str, str], folder: Path) -> None:
    for key, inside in files.items():
        if key in part:
            part[inside] = base64.b64encode((folder / part.pop(key)).read_bytes()).decode()
