from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from _receiver import Receiver

from perfkit.alerts import Alert, Webhook
from perfkit.alerts.hooks import describe, log_change
from perfkit.errors import ConfigError, NetworkError

if TYPE_CHECKING:
    from collections.abc import Callable

    from _watched import Watched

FIRING = Alert(
    rule="high_error_rate",
    labels={"provider": "openai"},
    state="firing",
    values={"error_rate": 0.25},
    condition="error_rate > 0.05",
    severity="critical",
)


def test_a_webhook_gets_what_is_worth_telling(make: Callable[..., Watched], receiver: Receiver) -> None:
    watched = make(defaults=False, webhook=receiver.url)
    watched.alerts.add_rule("r", "count('x') == 0", "20s", "critical")
    watched.go(60)
    watched.tracker.increment("x")
    watched.go(20)
    assert [(path, body["rule"], body["state"]) for path, body in receiver.got] == [
        ("/hook?key=secret", "r", "firing"),
        ("/hook?key=secret", "r", "resolved"),
    ]
    told = receiver.got[0][1]
    assert told["text"] == "perfkit alert firing: r (critical): count('x') == 0; count('x') 0"
    assert (told["severity"], told["since"], told["values"]) == ("critical", 1_700_000_020.0, {"count('x')": 0.0})


def test_a_webhook_that_refuses_is_logged_without_its_address(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = 403
    hook = Webhook(receiver.url)
    hook(FIRING)
    assert len(receiver.got) == 1
    assert "403" in caplog.text
    assert "secret" not in caplog.text + repr(hook)


def test_a_webhook_that_is_away_fails_and_evaluation_goes_on(make: Callable[..., Watched]) -> None:
    with pytest.raises(NetworkError):
        Webhook("http://127.0.0.1:9/")(FIRING)
    watched = make(defaults=False, webhook="http://127.0.0.1:9/")
    watched.alerts.add_rule("r", "count('x') == 0", 0)
    watched.alerts.evaluate()
    assert watched.story("r") == [("firing", 0)]


def test_an_address_that_is_none_is_refused(make: Callable[..., Watched]) -> None:
    with pytest.raises(ConfigError):
        make(webhook="not a url")


def test_changes_are_described_in_one_line() -> None:
    assert describe(FIRING) == (
        "firing: high_error_rate provider='openai' (critical): error_rate > 0.05; error_rate 0.25"
    )
    forged = Alert(rule="r", labels={"provider": "a\nERROR b"})
    assert "\n" not in describe(forged)


@pytest.mark.parametrize(
    ("state", "severity", "level"),
    [
        ("firing", "critical", "ERROR"),
        ("firing", "warning", "WARNING"),
        ("firing", "info", "INFO"),
        ("resolved", "critical", "INFO"),
        ("pending", "critical", "DEBUG"),
    ],
)
def test_firing_is_logged_as_loud_as_it_is_severe(
    state: Any, severity: str, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "perfkit.alerts")
    log_change(Alert(rule="r", state=state, severity=severity))
    assert [record.levelname for record in caplog.records] == [level]
