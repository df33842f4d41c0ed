"""Writes the TypeScript of `services/flows/live_message.py` to standard output."""

from __future__ import annotations

import ast
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "services/flows/live_message.py"
PLAIN = {"int": "number", "float": "number", "str": "string", "bool": "boolean", "None": "null"}


def main() -> None:
    """Print the types."""
    sys.path.insert(0, str(ROOT))
    from services.flows import live_message

    tree = ast.parse(SOURCE.read_text())
    parts = [
        "// Written by `make types-ts` from services/flows/live_message.py: change that instead.\n",
        doc(ast.get_docstring(tree) or ""),
    ]
    for node, comment in documented(tree.body):
        match node:
            case ast.AnnAssign(target=ast.Name(id=name)) if name.isupper() and not name.startswith("_"):
                parts.append(doc(comment) + constant(name, getattr(live_message, name)))
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if not name.startswith("_"):
                parts.append(doc(comment) + f"export type {name} = {kind(value)};\n")
            case ast.ClassDef() if any("TypedDict" in ast.unparse(base) or is_ours(tree, base) for base in node.bases):
                parts.append(interface(tree, node))
            case _:
                pass
    print("\n".join(parts), end="")


def documented(body: list[ast.stmt]) -> list[tuple[ast.stmt, str]]:
    """Statements, each with the text that follows it."""
    pairs = zip(body, [*body[1:], ast.Pass()], strict=True)
    return [(node, text(after)) for node, after in pairs]


def text(node: ast.stmt) -> str:
    """The text that a statement is; empty where it is none."""
    match node:
        case ast.Expr(value=ast.Constant(value=str(found))):
            return found
        case _:
            return ""


def is_ours(tree: ast.Module, base: ast.expr) -> bool:
    """Whether a base is another TypedDict of the module."""
    name = ast.unparse(base)
    found = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    return any("TypedDict" in ast.unparse(one) for node in found for one in node.bases)


def constant(name: str, value: Any) -> str:
    """A constant with its value, so that literal types follow from it."""
    return f"export const {name} = {json.dumps(value, separators=(', ', ': '))} as const;\n"


def interface(tree: ast.Module, node: ast.ClassDef) -> str:
    """A TypedDict as an interface."""
    bases = [ast.unparse(base) for base in node.bases if is_ours(tree, base)]
    optional = "?" if any(keyword.arg == "total" for keyword in node.keywords) else ""
    lines = [doc(ast.get_docstring(node) or "") + f"export interface {node.name}"]
    lines[0] += f" extends {', '.join(bases)} {{\n" if bases else " {\n"
    for one, comment in documented(node.body):
        if isinstance(one, ast.AnnAssign):
            field = f"{ast.unparse(one.target)}{optional}: {kind(one.annotation)};\n"
            lines.append(textwrap.indent(doc(comment) + field, "  "))
    return "".join(lines) + "}\n"


def kind(node: ast.expr) -> str:
    """An annotation in TypeScript; raises ValueError for what none of the messages needs."""
    match node:
        case ast.Name(id=name):
            return PLAIN.get(name, name)
        case ast.Constant(value=None):
            return "null"
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return f"{kind(left)} | {kind(right)}"
        case ast.Subscript(value=ast.Name(id="Literal"), slice=ast.Constant(value=value)):
            return json.dumps(value)
        case ast.Subscript(value=ast.Name(id="list"), slice=of):
            return f"({kind(of)})[]" if isinstance(of, ast.BinOp) else f"{kind(of)}[]"
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=[of, ast.Constant(value=many)])) if (
            many is Ellipsis
        ):
            return f"readonly ({kind(of)})[]" if isinstance(of, ast.BinOp) else f"readonly {kind(of)}[]"
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=each)):
            return f"[{', '.join(map(kind, each))}]"
        case _:
            raise ValueError(f"{SOURCE.name} has a type that this does not translate: {ast.unparse(node)}")


def doc(comment: str) -> str:
    """A comment; empty for none."""
    lines = textwrap.dedent(comment).strip().splitlines()
    if not lines:
        return ""
    if len(lines) == 1:
        return f"/** {lines[0]} */\n"
    return "/**\n" + "".join(f" * {line}".rstrip() + "\n" for line in lines) + " */\n"


if __name__ == "__main__":
    main()
