from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

import perfkit
from perfkit.alerts import Alert, Alerts
from perfkit.alerts.seat import FileSeat
from perfkit.errors import ConfigError, UnknownNameError
from perfkit.tokens import TokenOptimizer

if TYPE_CHECKING:
    from pathlib import Path

    from _watched import Watched

    from perfkit.clock import FakeClock
    from perfkit.metrics import PerformanceTracker

    Make = Callable[..., Watched]


# --- the four rules everybody has, each through its whole life


def test_high_error_rate_lives_its_whole_life(watched: Watched) -> None:
    watched.go(600, lambda: watched.serve(ok=96, failed=4))
    watched.go(700, lambda: watched.serve(ok=90, failed=10))
    watched.go(400, lambda: watched.serve(ok=100))
    states = watched.story("high_error_rate")
    assert [state for state, _ in states] == ["pending", "firing", "resolved"]
    (_, pending), (_, firing), (_, resolved) = states
    assert 600 < pending < 700
    assert firing - pending == 300
    assert 1300 < resolved < 1600


def test_cost_limit_exceeded_lives_its_whole_life(make: Make, tracker: PerformanceTracker, clock: FakeClock) -> None:
    optimizer = TokenOptimizer(tracker=tracker, clock=clock)
    optimizer.set_budget("global", 10.0, "day")
    watched = make(optimizer=optimizer)
    tracker.increment("cost", 8.0, tags={"provider": "openai"})
    watched.go(60)
    assert watched.alerts.state()["cost_limit_exceeded"] == "inactive"
    tracker.increment("cost", 0.5, tags={"provider": "openai"})
    watched.go(86_400 - clock.wall() % 86_400 + 60)
    assert watched.story("cost_limit_exceeded")[:2] == [("pending", 60), ("firing", 120)]
    state, midnight = watched.story("cost_limit_exceeded")[2]
    assert (state, (midnight + 1_700_000_000) % 86_400 < 20) == ("resolved", True)


def test_provider_down_lives_its_whole_life_although_the_breaker_lets_few_calls_through(watched: Watched) -> None:
    watched.go(120, lambda: watched.serve(ok=10, provider="other"))
    watched.go(60, lambda: watched.serve(ok=10))
    watched.serve(failed=5)
    for _ in range(4):
        watched.go(50)
        watched.go(10, lambda: watched.serve(failed=1))
    watched.go(60, lambda: watched.serve(ok=1))
    watched.told = [alert for alert in watched.told if alert.labels == {"provider": "openai"}]  # the other has no data
    (down, pending), (fires, firing), (up, resolved) = watched.story("provider_down")
    assert (down, fires, up) == ("pending", "firing", "resolved")
    assert 180 < pending <= 250
    assert 120 <= firing - pending <= 180
    assert resolved == 420


def test_high_latency_lives_its_whole_life(watched: Watched) -> None:
    watched.go(300, lambda: watched.serve(ok=2, seconds=9.0))
    watched.go(900, lambda: watched.serve(ok=2, seconds=12.0))
    watched.go(400, lambda: watched.serve(ok=2, seconds=9.0))
    states = watched.story("high_latency")
    assert [state for state, _ in states] == ["pending", "firing", "resolved"]
    assert states[1][1] - states[0][1] == 300


def test_the_four_rules_are_those_of_the_guide(watched: Watched) -> None:
    assert {rule.name: (rule.condition, rule.duration, rule.severity) for rule in watched.alerts.rules()} == {
        "high_error_rate": ("error_rate > 0.05", 300, "warning"),
        "cost_limit_exceeded": ("daily_cost > daily_limit * 0.8", 60, "critical"),
        "provider_down": ("success_rate == 0", 120, "critical"),
        "high_latency": ("avg_response_time > 10s", 300, "warning"),
    }


# --- data and its absence


def test_without_traffic_all_is_no_data_and_nobody_is_told_of_anything_worse(watched: Watched) -> None:
    assert set(watched.alerts.state().values()) == {"inactive"}  # nobody has looked yet
    watched.go(700)
    assert set(watched.alerts.state().values()) == {"no-data"}
    assert {alert.state for alert in watched.told} <= {"no-data"}


def test_few_values_are_no_evidence(watched: Watched) -> None:
    watched.serve(ok=1, failed=18)
    watched.go(1000)
    assert watched.story("high_error_rate") == []
    assert watched.alerts.state()["high_error_rate"] == "no-data"


def test_a_metric_that_goes_away_while_it_fires_is_not_resolved(watched: Watched) -> None:
    watched.go(700, lambda: watched.serve(failed=10))
    watched.go(700)
    assert [state for state, _ in watched.story("high_error_rate")] == ["pending", "firing", "no-data"]
    watched.go(30, lambda: watched.serve(ok=100))
    assert watched.story("high_error_rate")[-1][0] == "resolved"


def test_each_provider_has_an_alert_of_its_own(watched: Watched) -> None:
    def traffic() -> None:
        watched.serve(ok=100, provider="good")
        watched.serve(failed=10, provider="bad")

    watched.go(700, traffic)
    found = {
        alert.labels["provider"]: alert.state for alert in watched.alerts.alerts() if alert.rule == "provider_down"
    }
    assert found == {"good": "inactive", "bad": "firing"}
    assert watched.alerts.state()["provider_down"] == "firing"
    (alert,) = [a for a in watched.alerts.alerts() if a.rule == "high_error_rate" and a.labels["provider"] == "bad"]
    assert alert.values == {"error_rate": 1.0}


def test_a_provider_gone_for_a_day_is_forgotten(watched: Watched) -> None:
    watched.go(10, lambda: watched.serve(failed=100))
    watched.clock.advance(90_000)
    watched.alerts.evaluate()
    watched.clock.advance(10)
    watched.alerts.evaluate()
    assert [alert for alert in watched.alerts.alerts() if alert.labels] == []


# --- rules of one's own


def test_a_rule_may_read_any_metric(watched: Watched) -> None:
    watched.alerts.add_rule("slow_pages", "p95('render_duration', page='home') > 500ms", "30s", min_count=3)
    for _ in range(3):
        watched.tracker.record_metric("render_duration", 0.7, {"page": "home", "x": 1})
        watched.tracker.record_metric("render_duration", 0.1, {"page": "other"})
    watched.go(60)
    assert watched.story("slow_pages") == [("pending", 0), ("firing", 30)]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("request_count == 30", True),
        ("throughput == 0.5", True),
        ("success_rate == 0.5 and error_rate == 0.5", True),
        ("avg_response_time == 0.25 and p99_response_time == 0.25", True),
        ("count('provider_latency') == 15 and sum('provider_latency') == 3.75", True),
        ("max('provider_latency') - min('provider_latency') == 0", True),
        ("rate('provider_failure') == 0.25", True),
        ("cache_hit_rate == 0.75", True),
        ("avg_first_token > 0", None),
        ("daily_cost == 2.5", True),
        ("daily_limit == 40", True),
        ("count('nothing') == 0", True),
        ("avg('nothing') == 0", None),
    ],
)
def test_what_conditions_can_read(make: Make, condition: str, expected: bool | None) -> None:
    watched = make(daily_limit=40.0, defaults=False)
    watched.alerts.add_rule("r", condition, 0, window=60)
    watched.serve(ok=15, failed=15, seconds=0.25)
    watched.tracker.increment("cache_hit", 3)
    watched.tracker.increment("cache_miss", 1)
    watched.tracker.increment("cost", 2.5)
    watched.alerts.evaluate()
    assert watched.alerts.state() == {"r": "firing" if expected else "inactive"}
    (alert,) = watched.alerts.alerts()
    assert bool(alert.values) is (expected is not None)


def test_rules_come_from_settings_too_and_may_replace_a_default(make: Make) -> None:
    rules = {
        "high_latency": {"condition": "p95_response_time > 3s", "duration": "1m", "by": "provider"},
        "spend": {"condition": "daily_cost > 5", "severity": "info"},
    }
    watched = make(rules=rules)
    found = {rule.name: rule for rule in watched.alerts.rules()}
    assert len(found) == 5
    assert (found["high_latency"].duration, found["high_latency"].by) == (60, ("provider",))
    assert [rule.name for rule in make(rules=rules, defaults=False).alerts.rules()] == ["high_latency", "spend"]
    with pytest.raises(ConfigError, match=r"spend.*colour"):
        make(rules={"spend": {"condition": "daily_cost > 5", "colour": "red"}})


def test_a_rule_can_be_removed(watched: Watched) -> None:
    watched.alerts.remove_rule("high_latency")
    assert "high_latency" not in watched.alerts.state()
    with pytest.raises(UnknownNameError, match="high_error_rate"):
        watched.alerts.remove_rule("high_latency")


# --- telling


def test_a_hook_that_fails_does_not_keep_others_from_being_told(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(alert: Alert) -> None:
        raise LookupError

    watched.alerts._hooks = (broken, *watched.alerts._hooks)
    watched.alerts.add_rule("r", "count('x') == 0", 0)
    caplog.set_level(logging.DEBUG, "perfkit.alerts")
    watched.alerts.evaluate()
    assert watched.story("r") == [("firing", 0)]
    assert [record.levelname for record in caplog.records if "firing: r" in record.getMessage()] == ["WARNING"]
    assert sum("hook failed" in message for message in caplog.messages) == 1


def test_hooks_run_without_a_lock(watched: Watched) -> None:
    seen: list[Any] = []

    def ask(alert: Alert) -> None:
        worker = threading.Thread(target=lambda: seen.append((watched.alerts.state()["r"], watched.alerts.rules())))
        worker.start()
        worker.join(10)

    watched.alerts._hooks = (ask,)
    watched.alerts.add_rule("r", "count('x') == 0", 0)
    watched.alerts.evaluate()
    assert seen[0][0] == "firing"


def test_the_background_thread_evaluates_and_tells(tracker: PerformanceTracker) -> None:
    alerts = Alerts(tracker=tracker, interval=0.05, defaults=False)
    told, event = [], threading.Event()

    @alerts.on_change
    def note(alert: Alert) -> None:
        told.append((alert.state, threading.current_thread().name))
        event.set()

    alerts.add_rule("r", "count('x') == 0", 0)
    assert event.wait(10)
    alerts.close()
    assert told == [("firing", "perfkit-alerts")]


def test_the_functions_of_the_package_are_those_of_the_shared_one() -> None:
    perfkit.configure(alerts={"defaults": False})
    rule = perfkit.alerts.add_rule("r", "count('x') == 0", duration="1s", severity="critical")
    assert perfkit.alerts.rules() == [rule]
    assert perfkit.alerts.state()["r"] in ("inactive", "pending", "firing")
    perfkit.alerts.on_change(lambda alert: None)
    assert "alert" in perfkit.alerts.to_prometheus()
    perfkit.alerts.remove_rule("r")
    assert perfkit.alerts.state() == {}


# --- several processes


def test_only_one_watches_and_the_other_knows_what_it_has_seen(make: Make, tmp_path: Path) -> None:
    first, second = (make(seat=FileSeat(tmp_path), defaults=False) for _ in range(2))
    for one in (first, second):
        one.alerts.add_rule("r", "count('x') == 0", "20s")
    for _ in range(4):
        first.go(10)
        second.alerts.evaluate()
    assert first.story("r") == [("pending", 0), ("firing", 20)]
    assert second.told == []
    assert second.alerts.state() == {"r": "firing"}


def test_who_takes_over_goes_on_and_tells_nothing_twice(make: Make, tmp_path: Path) -> None:
    first, second = (make(seat=FileSeat(tmp_path), defaults=False) for _ in range(2))
    for one in (first, second):
        one.alerts.add_rule("r", "count('x') == 0", "30s")
    first.go(20)
    first.alerts.close()
    second.go(40)
    assert first.story("r") == [("pending", 0)]
    assert second.story("r") == [("firing", 30)]
    second.alerts.close()
    first.go(20)
    assert [state for state, _ in first.story("r")] == ["pending"]
    assert first.alerts.state() == {"r": "firing"}


def test_notes_of_another_version_are_ignored(make: Make, tmp_path: Path) -> None:
    for notes in ("", "[]", "null", '{"alerts": [1]}', '{"alerts": [{}]}'):
        (tmp_path / "alerts.json").write_text(notes)
        one = make(seat=FileSeat(tmp_path), defaults=False)
        one.alerts.add_rule("r", "count('x') == 0", 0)
        one.alerts.evaluate()
        assert one.alerts.state() == {"r": "firing"}
        one.alerts.close()
