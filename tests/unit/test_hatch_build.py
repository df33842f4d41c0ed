"""When the dashboard is built, and what an earlier checkout's cache gives."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import hatch_build
from hatch_build import BUNDLE, STAMP, DashboardHook, is_fresh, stamp_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with a dashboard's source, not built yet."""
    source = tmp_path / "checkout/frontend/src"
    source.mkdir(parents=True)
    (source.parent / "package.json").write_text("{}")
    (source / "main.ts").write_text("1")
    return tmp_path / "checkout"


def built(root: Path, text: str = "page") -> None:
    """As after a build."""
    bundle = root / BUNDLE
    bundle.mkdir(parents=True, exist_ok=True)
    (bundle / "index.html").write_text(text)
    (bundle / STAMP).write_text(stamp_of(root))


def hook(root: Path) -> DashboardHook:
    return DashboardHook(str(root), {}, None, None, "", "wheel")  # type: ignore[arg-type]


def test_node_is_asked_for_only_where_there_is_something_to_build(root: Path) -> None:
    assert hook(root).dependencies() == [hatch_build.NODE]
    built(root)
    assert hook(root).dependencies() == []


@pytest.mark.parametrize("name", ["src/main.ts", "src/new.svelte", "package-lock.json", "index.html"])
def test_a_changed_source_makes_the_bundle_stale(root: Path, name: str) -> None:
    built(root)
    assert is_fresh(root)
    (root / "frontend" / name).write_text("2")
    assert not is_fresh(root)


@pytest.mark.parametrize("name", ["node_modules/vite/index.js", "tests/rows.test.ts", "README.md"])
def test_what_is_no_part_of_the_bundle_leaves_it_fresh(root: Path, name: str) -> None:
    built(root)
    (root / "frontend" / name).parent.mkdir(parents=True, exist_ok=True)
    (root / "frontend" / name).write_text("2")
    assert is_fresh(root)


def test_a_renamed_file_makes_the_bundle_stale(root: Path) -> None:
    built(root)
    (root / "frontend/src/main.ts").rename(root / "frontend/src/other.ts")
    assert not is_fresh(root)


def test_without_its_source_any_bundle_will_do(root: Path) -> None:
    built(root)
    (root / "frontend").rename(root / "elsewhere")
    assert is_fresh(root)


def test_neither_bundle_nor_source_is_said(root: Path) -> None:
    (root / "frontend").rename(root / "elsewhere")
    with pytest.raises(SystemExit, match="neither a built dashboard"):
        hook(root).initialize("standard", {})


def test_a_build_that_fails_says_at_which_step(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="failed at `npm ci"):
        hook(root).initialize("standard", {})
    assert "package-lock.json" in capsys.readouterr().err


def test_what_an_earlier_checkout_built_is_taken(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(hatch_build, "__file__", str(root / "hatch_build.py"))
    builds: list[Path] = []

    def build(checkout: Path) -> None:
        builds.append(checkout)
        built(checkout)

    monkeypatch.setattr(hatch_build, "build", build)
    hatch_build.main()
    (root / BUNDLE).rename(tmp_path / "gone")
    hatch_build.main()
    assert (builds, is_fresh(root)) == ([root], True)
    (root / "frontend/src/main.ts").write_text("2")
    hatch_build.main()
    assert (builds, is_fresh(root)) == ([root, root], True)


def test_the_cache_keeps_the_latest(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for number in range(8):
        (root / "frontend/src/main.ts").write_text(str(number))
        built(root, str(number))
        hatch_build.keep(root / BUNDLE, cache / stamp_of(root), cache)
        os.utime(cache / stamp_of(root), (number, number))
    assert sorted((one / "index.html").read_text() for one in cache.iterdir()) == ["3", "4", "5", "6", "7"]


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    assert hatch_build.cache_folder() is None
    monkeypatch.setenv("HOME", "/nowhere")
    assert hatch_build.cache_folder() == Path("/nowhere/.cache/podloxx/dashboard")
