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


UNIT_TEST = """
rule_files: [rules.yml]
evaluation_interval: 10s
tests:
- interval: 10s
  input_series:
  - {series: 'perfkit_provider_latency_seconds_count{provider="good"}', values: '0+10x60'}
  - {series: 'perfkit_provider_failure_total{provider="down"}', values: '0+10x60'}
  - {series: 'perfkit_provider_failure_total{provider="rare"}', values: '0+0x30 1+0x30'}
  alert_rule_test:
  - {eval_time: 5m50s, alertname: bad, exp_alerts: [{exp_labels: {severity: warning, provider: down}, exp_annotations: {summary: error_rate > 0.5 for 0 s}}]}
  - {eval_time: 5m50s, alertname: well, exp_alerts: [{exp_labels: {severity: warning, provider: good}, exp_annotations: {summary: success_rate > 0.5 for 0 s}}]}
"""  # noqa: E501 - promtool has no shorter way


def test_in_prometheus_too_few_values_are_no_data_and_missing_series_are_zero(tmp_path: Path) -> None:
    """Prometheus' own unit test: a provider without failures is well, one without answers is not, one value is none."""
    rules = [
        Rule(name=name, condition=condition, duration=0, by=("provider",), min_count=20, window=300)
        for name, condition in (("bad", "error_rate > 0.5"), ("well", "success_rate > 0.5"))
    ]
    (tmp_path / "rules.yml").write_text(to_prometheus(rules))
    (tmp_path / "test.yml").write_text(UNIT_TEST)
    code, told = promtool("test", "rules", str(tmp_path / "test.yml"))
    assert code == 0, told
