"""The rules every application starts with: the four of the RecoAgent guide, each provider watched by itself."""

from __future__ import annotations

from perfkit.alerts.rule import Rule

__all__ = ["default_rules"]


def default_rules() -> dict[str, Rule]:
    """Return them by name."""
    # A provider that is down is asked once in a while only, so any one value counts and the window is short; for the
    # others a few values are no evidence. The cost has no count: a dollar spent is spent.
    rules = (
        Rule(name="high_error_rate", condition="error_rate > 0.05", duration=300, by=("provider",), min_count=20),
        Rule(name="cost_limit_exceeded", condition="daily_cost > daily_limit * 0.8", duration=60, severity="critical"),
        Rule(
            name="provider_down",
            condition="success_rate == 0",
            duration=120,
            severity="critical",
            by=("provider",),
            window=60,
        ),
        Rule(name="high_latency", condition="avg_response_time > 10s", duration=300, by=("provider",), min_count=5),
    )
    return {rule.name: rule for rule in rules}
