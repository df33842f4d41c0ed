"""What may not be in the repository, and how large its files may grow."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = {".py", ".md", ".toml", ".lock", ".lua", ".js", ".css", ".html", ".c", ".h", ".json", ".yaml", ".yml", ""}

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))

# Where this checkout lies; a path of one part, such as that of a container, may well be in a Dockerfile.
HERE = re.escape(f"{ROOT}/") if len(ROOT.parts) > 2 else r"(?!)"


def tracked() -> list[Path]:
    """The files that git tracks or would."""
    listed = subprocess.run(
        # CI may check out as one user and test as another, which git refuses unless told.
        ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.mark.parametrize(("folder", "most"), [("services", 400), ("tests", 500)])
def test_files_stay_small_enough_for_one_sentence(folder: str, most: int) -> None:
    sizes = {path: len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert {str(path.relative_to(ROOT)): size for path, size in sizes.items() if size > most} == {}


def test_functions_fit_a_screen() -> None:
    long = []
    for path in (ROOT / "services").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                long += [f"{path.relative_to(ROOT)}: {node.name} has {lines} lines"] if lines > 60 else []
    assert long == []


def test_no_file_names_a_package_index_or_a_home() -> None:
    pattern = re.compile(
        r"https?://[^/\s]*(pypi|pythonhosted|index|simple|registry|npmjs|goproxy|crates\.io)[^/\s]*"
        r"|--(extra-)?index-url|/root/|/home/\w|" + HERE
    )
    found = []
    for path in tracked():
        if path.suffix in TEXT and path != Path(__file__):
            found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in pattern.finditer(path.read_text())]
    assert found == []


@pytest.mark.parametrize("lock", ["requirements.lock", "images.lock", "fuzz.lock"])
def test_a_lock_is_hashed_without_headers(lock: str) -> None:
    lines = (ROOT / lock).read_text().splitlines()
    assert not any(line.startswith("#") or "://" in line for line in lines)
    pinned = [line for line in lines if re.match(r"[a-z0-9]", line)]
    assert pinned
    assert all("==" in line and line.endswith("\\") for line in pinned)
    blocks = re.split(r"^(?=[a-z0-9])", (ROOT / lock).read_text(), flags=re.MULTILINE)[1:]
    assert all(re.search(r"^    --hash=sha256:[0-9a-f]{64}", block, re.MULTILINE) for block in blocks)


def test_every_dependency_is_in_the_locks() -> None:
    """Of podloxx itself, of what builds it, and of its tests: nothing is installed without its hash."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    wanted = {
        "requirements.lock": [
            *project["project"]["dependencies"],
            *(one for extra in project["project"]["optional-dependencies"].values() for one in extra),
            *project["build-system"]["requires"],
            *groups["dev"],
        ],
        "fuzz.lock": [*project["project"]["dependencies"], *groups["fuzz"]],
        "images.lock": [one for name in ("base", "capture", "aggregator", "api") for one in groups[name]],
    }
    for lock, asked in wanted.items():
        pinned = {line.split("==")[0] for line in (ROOT / lock).read_text().splitlines() if re.match(r"[a-z0-9]", line)}
        names = {re.split(r"[\[<>=;~! ]", one)[0].lower() for one in asked if isinstance(one, str)}
        assert names <= pinned, lock


def test_what_installs_python_packages_checks_their_hashes() -> None:
    installing = [
        line
        for path in [*(ROOT / "scripts").iterdir(), ROOT / "Makefile", ROOT / "Dockerfile", *WORKFLOWS]
        for line in path.read_text().replace("\\\n", " ").splitlines()
        if re.search(r"\bpip3?\"? (--\S+ )*(install|download)\b", line) and not line.lstrip().startswith("#")
    ]
    assert installing
    for line in installing:
        # What is local already was checked when it was fetched, or is ours.
        assert re.search(r"--require-hashes|--no-deps|--no-index", line), line


def test_every_package_of_the_dashboard_has_its_hash() -> None:
    packages = json.loads((ROOT / "frontend/package-lock.json").read_text())["packages"]
    asked = packages.pop("")
    assert {
        f"node_modules/{name}" for kind in ("dependencies", "devDependencies") for name in asked.get(kind, {})
    } <= set(packages)
    for name, one in packages.items():
        assert one["integrity"].startswith("sha512-"), name
        assert re.fullmatch(r"\d+\.\d+\.\d+\S*", one["version"]), name
    for path in (ROOT / "Makefile", ROOT / "hatch_build.py"):
        assert re.search(r"""npm-cli\.js" ci |"npm", "ci",""", path.read_text()), "`npm install` would change the lock"


def test_every_module_says_in_one_sentence_what_it_is() -> None:
    for path in (ROOT / "services").rglob("*.py"):
        summary = path.read_text().split('"""')[1].split("\n\n")[0].strip()
        assert summary.endswith((".", "?")), f"{path.relative_to(ROOT)}: {summary}"
        assert ". " not in summary, f"{path.relative_to(ROOT)} needs more than one sentence: {summary}"
