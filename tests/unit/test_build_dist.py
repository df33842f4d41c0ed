"""What scripts/build_dist.py takes for one file of several Pythons' wheels, and what that file says where it cannot run."""

from __future__ import annotations

import importlib.machinery
import os
import platform
import runpy
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts import build_dist
from scripts.build_dist import PYTHONS, TARGETS

LINUX = TARGETS["linux-x86_64"]
FAT = b"\xca\xfe\xba\xbe" + struct.pack(">I", 2) + struct.pack(">IIIII", 0x01000007, 3, 0, 0, 0) * 2


def wheels(folder: Path, files: dict[str, bytes | Callable[[str], bytes]]) -> dict[str, Path]:
    """Installed wheels; `{}` in a name is the ending of that Python's modules."""
    sites = {python: folder / python for python in PYTHONS[:2]}
    for python, site in sites.items():
        for name, content in files.items():
            path = site / name.format(LINUX.ending(python))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content(python))
    return sites


def laid(site: Path) -> list[str]:
    return sorted(path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file())


def test_modules_of_all_pythons_lie_side_by_side_and_what_is_of_no_use_stays_out(folder: Path) -> None:
    files: dict[str, bytes | Callable[[str], bytes]] = {
        "one/__init__.py": b"1",
        "one/fast{}": str.encode,
        "one/tests/test_it.py": b"1",
        "one/fast.pyi": b"1",
        "one-1.dist-info/RECORD": str.encode,
        "one-1.dist-info/licenses/LICENSE": b"1",
        "numpy/__config__.py": str.encode,
        "numpy/distutils/core.py": str.encode,
        "bin/one": str.encode,
        "README.md": str.encode,
        "six.py": b"1",
    }
    build_dist.merge(wheels(folder, files), folder / "site", LINUX)
    assert laid(folder / "site") == sorted(
        [
            *(f"one/fast{LINUX.ending(python)}" for python in PYTHONS[:2]),
            *("one/__init__.py", "one-1.dist-info/licenses/LICENSE", "numpy/__config__.py", "six.py"),
        ]
    )


def test_two_files_of_one_name_are_refused(folder: Path) -> None:
    with pytest.raises(SystemExit, match=r"one/a\.py differs between Python 3\.11 and 3\.12"):
        build_dist.merge(wheels(folder, {"one/a.py": str.encode}), folder / "site", LINUX)


def test_a_python_without_a_compiled_module_is_refused(folder: Path) -> None:
    sites = wheels(folder, {"one/fast{}": b"1"})
    next(sites["3.12"].rglob("*.so")).unlink()
    with pytest.raises(SystemExit, match=r"for Python 3\.12 there is no compiled one/fast"):
        build_dist.merge(sites, folder / "site", LINUX)


def elf(processor: int) -> bytes:
    return b"\x7fELF".ljust(18, b"\0") + struct.pack("<H", processor)


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("linux-x86_64", "a.cpython-311-x86_64-linux-gnu.so", elf(62)),
        ("linux-aarch64", "a.libs/b.so.5.0.0", elf(183)),
        ("macos-arm64", "a.cpython-314-darwin.so", b"\xcf\xfa\xed\xfe" + struct.pack("<I", 0x0100000C)),
        ("macos-x86_64", "a.cpython-314-darwin.so", FAT),
    ],
)
def test_a_file_for_another_system_is_refused(folder: Path, name: str, file: str, content: bytes) -> None:
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_bytes(content)
    build_dist.check(folder, TARGETS[name])
    for other in TARGETS.keys() - {name}:
        with pytest.raises(SystemExit, match="is not for"):
            build_dist.check(folder, TARGETS[other])


def test_a_module_for_a_python_that_is_none_of_ours_is_refused(folder: Path) -> None:
    (folder / "a.cpython-310-x86_64-linux-gnu.so").write_bytes(elf(62))
    with pytest.raises(SystemExit, match=r"a\.cpython-310.* is for no Python of 3\.11"):
        build_dist.check(folder, LINUX)


def test_an_import_of_what_is_not_packed_is_refused(folder: Path) -> None:
    (folder / "services").mkdir()
    (folder / "services/a.py").write_text("import os\ndef late():\n    from numpy.linalg import norm\n")
    with pytest.raises(SystemExit, match=r"services/a\.py imports numpy, which is not packed"):
        build_dist.check(folder, LINUX)
    (folder / "numpy").mkdir()
    build_dist.check(folder, LINUX)


def test_of_two_versions_that_of_the_oldest_python_is_for_all_and_markers_stay() -> None:
    lock = (
        "a==1 ; python_full_version < '3.12' \\\n    --hash=sha256:1\n"
        "a==2 ; python_full_version >= '3.12' \\\n    --hash=sha256:2\n"
        "b==3 ; sys_platform == 'win32' \\\n    --hash=sha256:3 \\\n    --hash=sha256:4\n"
        "c==5 \\\n    --hash=sha256:5\n"
    )
    assert build_dist.runtime_lock(lock, {"a", "b"}) == (
        "a==1 \\\n    --hash=sha256:1\nb==3 ; sys_platform == 'win32' \\\n    --hash=sha256:3 \\\n    --hash=sha256:4\n"
    )
    with pytest.raises(SystemExit, match="not in the lock: d"):
        build_dist.runtime_lock(lock, {"a", "d"})


@pytest.fixture
def begin(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    """Runs what a file for this machine runs at first, where no other Python is in the PATH."""
    monkeypatch.setenv("PATH", str(folder / "bin"))
    path = folder / "preamble.py"
    path.write_text(build_dist.preamble_for(build_dist.own()))
    given = {"archive": "podloxx", "site_packages": folder / "site"}
    return lambda: runpy.run_path(str(path), init_globals=given, run_name="__main__")


def packed_for(folder: Path, suffix: str) -> None:
    (folder / "site/orjson").mkdir(parents=True)
    (folder / f"site/orjson/orjson{suffix}").touch()


def test_a_python_that_has_its_modules_in_the_file_goes_on(folder: Path, begin: Callable[[], object]) -> None:
    packed_for(folder, importlib.machinery.EXTENSION_SUFFIXES[0])
    begin()


def test_a_python_that_has_none_says_what_is_needed(begin: Callable[[], object]) -> None:
    with pytest.raises(SystemExit) as refused:
        begin()
    said = str(refused.value)
    assert f"podloxx-{build_dist.own()} needs {TARGETS[build_dist.own()].needs} and CPython 3.11 to 3.14" in said
    assert f"this is CPython {platform.python_version()} on Linux" in said
    assert said.endswith("What to do: install one, or name it: python3.14 podloxx")


def test_another_python_in_the_path_takes_over(
    folder: Path, begin: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    packed_for(folder, ".cpython-312-other.so")
    (folder / "bin").mkdir()
    for version, suffix in (("3.14", ".cpython-314-musl.so"), ("3.13", ""), ("3.12", ".cpython-312-other.so")):
        python = folder / f"bin/python{version}"
        python.write_text(f"#!/bin/sh\necho {suffix}\n{'' if suffix else 'exit 127'}\n")
        python.chmod(0o755)
    became: list[tuple[str, list[str], dict[str, str]]] = []

    def become(*given: tuple[str, list[str], dict[str, str]]) -> None:
        became.append(given)  # type: ignore[arg-type]
        raise InterruptedError

    monkeypatch.setattr(os, "execve", become)
    monkeypatch.setattr(sys, "argv", ["podloxx", "start", "--dry-run"])
    monkeypatch.setenv("PYTHONPATH", f"/mine:{folder}/site")
    with pytest.raises(InterruptedError):
        begin()
    [(taken, argv, environ)] = became
    assert (taken, argv[1:]) == (str(folder / "bin/python3.12"), ["podloxx", "start", "--dry-run"])
    assert environ["PYTHONPATH"] == "/mine"


def test_another_machine_is_told(begin: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(SystemExit, match=r"on Linux riscv64 .*What to do: take the file for this system"):
        begin()


def test_a_c_library_that_is_too_old_is_told(begin: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.17"))
    with pytest.raises(SystemExit, match=r"glibc 2\.28 or newer .*What to do: this one is 2\.17: install"):
        begin()
