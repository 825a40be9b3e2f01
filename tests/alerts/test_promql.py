from __future__ import annotations

from pathlib import Path

import pytest
from _daemons import promtool

from perfkit.alerts import Rule
from perfkit.alerts.defaults import default_rules
from perfkit.alerts.promql import expression, to_prometheus
from perfkit.errors import ConfigError


def test_promtool_accepts_the_four_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(to_prometheus(default_rules().values(), daily_limit=10.0))
    code, told = promtool("check", "rules", str(tmp_path / "rules.yml"))
    assert (code, "4 rules found" in told) == (0, True), told


def test_without_a_limit_the_rule_of_it_is_left_out() -> None:
    text = to_prometheus(default_rules().values())
    assert "cost_limit_exceeded" not in text
    assert text.count("- alert:") == 3


@pytest.mark.parametrize(
    "condition",
    [
        "request_count > 10 and throughput < 5",
        "cache_hit_rate < 0.5 or avg_first_token > 500ms",
        "p95_response_time > 2 * p50_response_time",
        "not success_rate > 0.9",
        "-daily_cost < -(5 - 1)",
        "rate('provider_latency') / count('provider_latency') >= 0",
        """p99('render "it"\\n', page='a"b\\n') > 1s""",
    ],
)
@pytest.mark.parametrize("by", [(), ("provider",), ("provider", "a.b")])
def test_promtool_accepts_all_that_conditions_can_say(condition: str, by: tuple[str, ...], tmp_path: Path) -> None:
    rule = Rule(name='r"\n- alert: evil', condition=condition, by=by, min_count=3)
    (tmp_path / "rules.yml").write_text(to_prometheus([rule], daily_limit=10.0))
    code, told = promtool("check", "rules", str(tmp_path / "rules.yml"))
    assert (code, "1 rules found" in told) == (0, True), told


@pytest.mark.parametrize("condition", ["0 < error_rate < 1", "max('x') > 1", "not (error_rate > 1 and daily_cost > 1)"])
def test_what_promql_cannot_say_is_refused(condition: str) -> None:
    with pytest.raises(ConfigError, match=r"PromQL|Prometheus"):
        expression(Rule(name="r", condition=condition))


def test_no_rules_are_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(to_prometheus([]))
    assert promtool("check", "rules", str(tmp_path / "rules.yml"))[0] == 0
