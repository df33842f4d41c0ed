"""Where a setting's value comes from, and what is said about a wrong one."""

from __future__ import annotations

import dataclasses

import pytest

from services.runtime.errors import UsageError
from services.runtime.settings import (
    PREFIX,
    SERVICES,
    AggregatorSettings,
    ApiSettings,
    CaptureSettings,
    CommonSettings,
    as_arguments,
    as_table,
    load,
    redacted,
    setting,
    without_password,
)


def test_defaults_stand_where_nothing_is_said() -> None:
    settings = load(ApiSettings, [], {})
    assert (settings.listen, settings.port) == ("127.0.0.1", 1337)


def test_the_environment_wins_over_defaults_and_flags_win_over_it() -> None:
    environ = {"PODLOXX_PORT": "8080"}
    assert load(ApiSettings, [], environ).port == 8080
    assert load(ApiSettings, ["--port", "9090"], environ).port == 9090


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load(ApiSettings, [], {}).port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("argv", "environ", "message"),
    [
        (["--port", "x"], {}, "--port must be a whole number, got 'x'"),
        ([], {"PODLOXX_PORT": "1.5"}, "PODLOXX_PORT must be a whole number, got '1.5'"),
        (["--port=-1"], {}, "--port must be at least 0"),
        (["--log-level", "loud"], {}, "--log-level must be one of debug, info, warning, error, got 'loud'"),
        (["--flow-window-s", "nan"], {}, "--flow-window-s must be at least 1"),
        (["--flow-window-s", "soon"], {}, "--flow-window-s must be a number"),
        (["--por", "1"], {}, "unrecognized arguments"),
        (["--port"], {}, "expected one argument"),
    ],
)
def test_a_wrong_value_is_named_with_its_source(argv: list[str], environ: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(ApiSettings, argv, environ)


def test_arguments_round_trip() -> None:
    argv = as_arguments(port=0, listen="::1", flow_window_s=2.5)
    settings = load(ApiSettings, argv, {})
    assert (settings.port, settings.listen, settings.flow_window_s) == (0, "::1", 2.5)


def test_every_setting_of_every_service_is_in_the_table_once() -> None:
    table = {entry.name: entry for entry in as_table()}
    assert len(table) == len(list(as_table()))
    for service, cls in SERVICES.items():
        for field in dataclasses.fields(cls):
            assert service in table[field.name].services
    assert table["redis_url"].variable == PREFIX + "REDIS_URL"
    assert table["redis_url"].flag == "--redis-url"
    assert table["node"].default == "host name"


@pytest.mark.parametrize("cls", [CaptureSettings, AggregatorSettings, ApiSettings])
def test_help_says_what_each_flag_is_for(cls: type, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load(cls, ["--help"], {})
    text = capsys.readouterr().out
    assert all(f"--{field.name.replace('_', '-')}" in text for field in dataclasses.fields(cls))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("redis://agent:secret@h:1/0", "redis://***@h:1/0"),
        ("redis://:p@ss/w@rd@h/0", "redis://***@h/0"),
        (
            "unix:///run/redis.sock?username=a&password=secret&db=1",
            "unix:///run/redis.sock?username=a&password=***&db=1",
        ),
    ],
)
def test_no_password_is_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown
    assert redacted(CommonSettings(redis_url=url))["redis_url"] == shown


def test_settings_of_others_can_join_the_table() -> None:
    @dataclasses.dataclass(frozen=True)
    class Further:
        port: int = setting(1337, "another help")
        color: str = setting("auto", "when to use colors")

    table = {entry.name: entry for entry in as_table({**SERVICES, "launcher": Further})}
    assert table["color"].services == ("launcher",)
    assert table["port"].services == ("api", "launcher")


def test_a_batch_cannot_be_asked_to_be_larger_than_is_accepted() -> None:
    assert load(CaptureSettings, ["--batch-rows=60000"], {}).batch_rows == 60000
    with pytest.raises(UsageError, match="--batch-rows must be at most 60000, got '60001'"):
        load(CaptureSettings, ["--batch-rows=60001"], {})
