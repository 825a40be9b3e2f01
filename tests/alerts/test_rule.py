from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.alerts.rule import Alert, Rule, step
from perfkit.errors import ConfigError

RULE = Rule(name="r", condition="error_rate > 0.05", duration=60, window=60)


def states(*seen: bool | None, every: float = 30.0, rule: Rule = RULE) -> list[str]:
    alert = Alert(rule=rule.name)
    found: list[str] = []
    for number, holds in enumerate(seen):
        alert = step(alert, rule, holds, number * every)
        found.append(alert.state)
    return found


def test_an_alert_fires_after_the_whole_duration() -> None:
    assert states(False, True, True, True, True) == ["inactive", "pending", "pending", "firing", "firing"]


def test_without_a_duration_it_fires_at_once() -> None:
    assert states(False, True, rule=Rule(name="r", condition="error_rate > 1", duration=0)) == ["inactive", "firing"]


def test_a_moment_of_peace_begins_the_duration_anew() -> None:
    assert states(True, True, False, True, True, True)[-3:] == ["pending", "pending", "firing"]


def test_it_is_resolved_and_after_a_quarter_of_an_hour_inactive() -> None:
    assert states(True, True, True, False, False)[-2:] == ["resolved", "resolved"]
    assert states(True, True, False, False, every=899)[-2:] == ["resolved", "resolved"]
    assert states(True, True, False, False, every=900)[-2:] == ["resolved", "inactive"]
    assert states(True, True, True, False, True)[-2:] == ["resolved", "pending"]


def test_a_gap_shorter_than_the_duration_changes_nothing() -> None:
    assert states(True, None, None, True) == ["pending", "pending", "pending", "firing"]


def test_a_longer_one_is_no_data_whatever_it_was() -> None:
    assert states(True, None, None, None) == ["pending", "pending", "pending", "no-data"]
    assert states(False, None, None, None)[-1] == "no-data"
    assert states(True, True, True, None, None, None)[-1] == "no-data"


def test_it_never_fires_on_no_data() -> None:
    assert set(states(True, *[None] * 50)) == {"pending", "no-data"}


def test_data_after_no_data_goes_on_where_it_was() -> None:
    firing = (True, True, True, None, None, None)
    assert states(*firing, False)[-1] == "resolved"
    assert states(*firing, True)[-1] == "firing"
    assert states(*[None] * 4, False)[-1] == "inactive"
    assert states(*[None] * 4, True)[-1] == "pending"


@given(st.lists(st.sampled_from([True, False, None])))
def test_whatever_comes_resolved_follows_firing_and_firing_follows_a_full_duration(seen: list[bool | None]) -> None:
    found = ["inactive", *states(*seen)]
    fired = False
    for before, after in pairwise(found):
        if after == "resolved" != before:
            assert fired
            fired = False
        if after == "firing" != before:
            assert before == "pending" or fired
            fired = True


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"severity": "urgent"},
        {"min_count": 0},
        {"min_count": True},
        {"duration": "soon"},
        {"window": -1},
        {"condition": "x"},
        {"colour": "red"},
    ],
)
def test_what_cannot_be_a_rule_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Rule.of(**{"name": "r", "condition": "error_rate > 0.05", **wrong})


def test_rules_are_written_as_people_write() -> None:
    rule = Rule.of("r", condition="error_rate > 0.05", duration="5m", by="provider")
    assert (rule.duration, rule.window, rule.by) == (300, 300, ("provider",))
    assert Rule.of("r", condition="error_rate > 0.05", duration="1s").window == 60
    assert Rule.of("r", condition="error_rate > 0.05", duration="1h").window == 300


def test_an_alert_survives_json() -> None:
    alert = Alert(rule="r", labels={"provider": "a"}, state="firing", since=1.5, values={"error_rate": 0.5}, fired=True)
    data = json.loads(json.dumps({**alert.to_dict(), "new": 1}))
    assert Alert.from_dict(data) == alert
