from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from _servers import environment

import perfkit
from perfkit import cli
from perfkit._shared import current_config
from perfkit.config import Config, from_environment
from perfkit.errors import ConfigError


def test_argument_wins_over_environment_over_file_over_default() -> None:
    file = {"cache": {"ttl": 1, "max_bytes": 1000, "policy": "never"}}
    environ = {"PERFKIT_CACHE__TTL": "2", "PERFKIT_CACHE__MAX_BYTES": "2000"}
    cache = Config({"cache": {"ttl": 3}}, file=file, environ=environ).table("cache")
    assert (cache.ttl, cache.max_bytes, cache.policy, cache.backend) == (3, 2000, "never", "memory")


def test_each_setting_tells_its_source() -> None:
    config = Config(
        {"cache": {"ttl": 3}}, file={"router": {"max_attempts": 2}}, environ={"PERFKIT_METRICS__STATSD": "h:1"}
    )
    sources = {row["setting"]: row["source"] for row in config.explain()}
    assert sources["cache.ttl"] == "argument"
    assert sources["router.max_attempts"] == "file"
    assert sources["metrics.statsd"] == "environment"
    assert sources["router.strategy"] == "default"


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ({"cache": {"tttl": 3}}, "did you mean 'ttl'"),
        ({"cash": {"ttl": 3}}, "did you mean 'cache'"),
        ({"CACHE": {"TTL": 3}}, "did you mean 'cache'"),  # as Django's own settings are written
        ({"cache": {"TTL": 3}}, "did you mean 'ttl'"),
        ({"cache": {"ttl": "soon"}}, "cache.ttl must be a number"),
        ({"cache": {"ttl": float("nan")}}, "cache.ttl"),
        ({"cache": {"ttl": -1}}, "above 0"),
        ({"cache": {"ttl": True}}, "cache.ttl"),
        ({"cache": {"max_bytes": 1.5}}, "whole number"),
        ({"cache": {"policy": "smrt"}}, "did you mean 'smart'"),
        ({"cache": 3}, r"\[cache\] must be a table"),
        ({"providers": {"a": 3}}, r"\[providers.a\] must be a table"),
        ({"providers": {"a": {"api_kee": "x"}}}, "did you mean 'api_key'"),
        ({"routes": {"faq": {}}}, "needs 'model'"),
    ],
)
def test_a_wrong_setting_is_refused_and_changes_nothing(tables: dict[str, object], says: str) -> None:
    perfkit.configure(cache={"ttl": 9})
    with pytest.raises(ConfigError, match=says):
        perfkit.configure(tables)
    assert current_config().table("cache").ttl == 9


def test_a_path_is_as_good_as_its_text(tmp_path: Path) -> None:
    assert Config({"metrics": {"store": tmp_path}}).table("metrics").store == str(tmp_path)


def test_environment_names_without_a_table_are_not_configuration() -> None:
    assert from_environment({"PERFKIT_REQUIRE_ALL": "1", "OTHER_CACHE__TTL": "1"}) == {}


def test_environment_reaches_into_named_tables() -> None:
    providers = Config({}, file={}, environ={"PERFKIT_PROVIDERS__MAIN__BASE_URL": "http://h/v1"}).named("providers")
    assert providers["main"].base_url == "http://h/v1"


def test_lists_tables_and_switches_are_read_from_text() -> None:
    environ = {"PERFKIT_TOKENS__BUDGETS": '[{"scope": ["global", ""], "limit": 1, "period": "day"}]'}
    assert Config({}, file={}, environ=environ).table("tokens").budgets[0]["limit"] == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [("perfkit.toml", "[cache]\nttl = 77\n"), ("pyproject.toml", "[tool.perfkit.cache]\nttl = 77\n")],
)
def test_a_file_in_the_working_directory_is_found(name: str, text: str) -> None:
    Path(name).write_text(text)
    perfkit.reset()
    assert perfkit.cache.settings.ttl == 77


def test_a_file_given_by_path_is_read_and_a_broken_one_named(tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    path.write_text("[cache]\nttl = 5\n")
    perfkit.configure(path)
    assert perfkit.cache.settings.ttl == 5
    path.write_text("[cache\n")
    with pytest.raises(ConfigError, match=r"other\.toml"):
        perfkit.configure(path)


def test_configure_changes_shared_objects_in_place_and_leaves_the_rest() -> None:
    cache = perfkit.cache
    perfkit.configure(cache={"ttl": 5})
    perfkit.configure(cache={"max_entries": 7})
    assert cache is perfkit.cache
    assert (cache.settings.ttl, cache.settings.max_entries) == (5, 7)


def test_a_key_never_shows() -> None:
    perfkit.configure(
        providers={"main": {"kind": "openai", "api_key": "sk-secret", "base_url": "http://127.0.0.1:9/v1"}}
    )
    shown = repr(current_config().named("providers")) + repr(current_config().explain())
    assert "sk-secret" not in shown


def test_a_row_keeps_what_a_higher_layer_does_not_name() -> None:
    file = {"providers": {"main": {"kind": "openai", "base_url": "http://h/v1", "models": ["tiny"]}}}
    environ = {"PERFKIT_PROVIDERS__MAIN__API_KEY": "sk-secret"}
    row = Config({"providers": {"main": {"priority": 3}}}, file=file, environ=environ).named("providers")["main"]
    assert (row.kind, row.base_url, row.models, row.api_key, row.priority) == (
        "openai",
        "http://h/v1",
        ("tiny",),
        "sk-secret",
        3,
    )


def test_configure_leaves_alone_what_was_set_by_hand_since() -> None:
    perfkit.configure(providers={"main": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1"}})
    perfkit.router.strategy = "priority"
    perfkit.connections.configure("127.0.0.1", maxsize=3)
    perfkit.tracker.configure(max_series=77)
    perfkit.router.unregister_provider("main")
    perfkit.configure(cache={"ttl": 60})
    assert perfkit.router.strategy == "priority"
    assert perfkit.tracker.settings.max_series == 77
    assert perfkit.connections.settings.hosts
    assert perfkit.router.list_providers() == ()
    perfkit.configure(router={"strategy": "random"}, providers={"main": {"priority": 2}})
    assert perfkit.router.strategy == "random"
    assert perfkit.router.list_providers() == ("main",)


def test_nothing_that_may_hold_a_secret_is_shown() -> None:
    proxy, options = "http://u:SECRET1@h:1", {"headers": {"X-Key": "SECRET2"}, "client_secret": "SECRET3"}
    config = Config(
        {
            "providers": {"main": {"kind": "openai", "base_url": "http://h/v1", "options": options}},
            "connections": {"proxy": proxy, "hosts": {"a": {"proxy": proxy, "maxsize": 3}}},
            "cache": {"encryption_key": "SECRET4", "url": "redis://u:SECRET5/6@h/0?password=SECRET7"},
            "semantic": {"embedder_options": {"api-key": "SECRET8", "access_token": "SECRET9", "size": 32}},
        },
        environ={},
    )
    shown = repr(config.explain()) + "".join(repr(config.table(name)) for name in ("connections", "cache", "semantic"))
    shown += repr(config.named("providers"))
    assert "SECRET" not in shown
    assert "'maxsize': 3" in shown
    assert "'size': 32" in shown


def test_a_variable_with_too_few_underscores_is_refused_and_others_are_not_ours() -> None:
    with pytest.raises(ConfigError, match="did you mean PERFKIT_CACHE__STALE_TTL"):
        Config(environ={"PERFKIT_CACHE_STALE_TTL": "7"})
    Config(environ={"PERFKIT_HOME": "/srv", "PERFKIT_CACHE_DIR": "/tmp"})


def test_none_turns_off_what_is_on_by_default_and_leaves_the_rest() -> None:
    file = {"router": {"timeout": 7.0, "outlier_factor": "none"}}
    config = Config({"router": {"probe_interval": None, "timeout": None}}, file=file, environ={})
    settings = config.table("router")
    assert (settings.probe_interval, settings.outlier_factor, settings.timeout) == (None, None, 7.0)


def test_settings_are_shown_one_a_line_with_their_sources(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERFKIT_CACHE__STALE_TTL", "7")
    perfkit.configure(app={"preset": "testing"}, cache={"ttl": 60}, providers={"a_long_name_of_one": {"kind": "groq"}})
    assert cli.main(["config", "show"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["cache.ttl", "60", "code"] in lines
    assert ["cache.stale_ttl", "7.0", "environment", "PERFKIT_CACHE__STALE_TTL"] in lines
    assert ["cache.policy", "never", "preset", "testing"] in lines
    assert ["router.strategy", "least_latency", "default"] in lines
    assert ["cache.url", "-", "default"] in lines


def test_the_command_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"perfkit {perfkit.__version__}\n"


def test_a_command_that_is_interrupted_says_so_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("perfkit._shared.current_config", pressed)
    assert cli.main(["config", "show"]) == 130
    assert capsys.readouterr().err == "perfkit: interrupted\n"


def test_a_reader_who_has_seen_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "perfkit", "config", "show"]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as shown:
        assert shown.stdout is not None
        assert shown.stderr is not None
        shown.stdout.close()
        assert (shown.stderr.read(), shown.wait(20)) == (b"", 0)
