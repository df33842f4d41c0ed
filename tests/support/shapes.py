"""The shapes of answers as the OpenAPI file documents them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema


class Shapes:
    """Holds answers against a document; a field that it does not name is an error."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = _strict(document)

    @property
    def plain_paths(self) -> list[str]:
        """All paths that answer in JSON."""
        return [path for path in self._document["paths"] if self._schema(path, 200) is not None]

    @property
    def paths(self) -> set[str]:
        """All paths."""
        return set(self._document["paths"])

    def assert_holds(self, path: str, status: int, answer: object) -> None:
        """The answer has the shape that is documented."""
        schema = self._schema(path, status)
        assert schema is not None, f"{path} documents no answer {status}"
        jsonschema.Draft202012Validator({**schema, "components": self._document["components"]}).validate(answer)

    def _schema(self, path: str, status: int) -> dict[str, Any] | None:
        responses = self._document["paths"][path]["get"]["responses"]
        content = responses.get(str(status), {}).get("content", {})
        kind = "application/json" if status == 200 else "application/problem+json"
        schema: dict[str, Any] | None = content.get(kind, {}).get("schema")
        return schema


def _strict(part: Any) -> Any:
    """The same with every object closed whose fields are named."""
    if isinstance(part, list):
        return [_strict(one) for one in part]
    if not isinstance(part, dict):
        return part
    out = {key: _strict(value) for key, value in part.items()}
    return (
        {"additionalProperties": False, **out} if isinstance(part.get("properties"), dict) and "type" in part else out
    )
