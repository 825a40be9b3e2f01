"""What is recorded of every call, beside what routing, caching and tokens record themselves.

Tagged provider, model and agent, and timings in seconds: llm_duration, first_token and time_per_output_token (of
streams, pauses of their readers left out), tokens_input, tokens_output, tokens_cached, tokens_cache_write,
tokens_reasoning, tokens_saved (by compression), llm_retry and llm_fallback. Tagged model and agent: llm_cache
(`result`: exact, miss, or none for calls that may not be cached) and llm_error (`kind`: the class of the error). The
gauge budget_utilization, tagged scope and name, is how full each budget is (0 to 1; of those of single users the
fullest). Cost and token_usage are recorded by the optimizer.
"""

from __future__ import annotations

from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from perfkit.metrics import Handle, PerformanceTracker
    from perfkit.metrics.sinks import Kind
    from perfkit.pipeline.call import Call
    from perfkit.values import Attempt, ChatResponse

__all__ = ["Meter"]

_REMEMBERED = 128  # sets of tags: as long as a series is remembered here, it cannot make room for others
_KINDS: dict[str, Kind] = {
    "agent_response_time": "timing",
    "llm_duration": "timing",
    "first_token": "timing",
    "time_per_output_token": "timing",
    "cache_saving": "value",
    "budget_utilization": "gauge",
}  # all others are counters
_TOKENS = ("tokens_input", "tokens_output", "tokens_cached", "tokens_cache_write", "tokens_reasoning")
_tokens = attrgetter("prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
_BUDGETS = 1.0  # seconds between two looks at the budgets


class _Tagged(dict[str, "Handle"]):
    """The series of one set of tags, by name; found once each."""

    __slots__ = ("_tracker", "tags")

    def __init__(self, tracker: PerformanceTracker, tags: dict[str, str]) -> None:
        super().__init__()
        self.tags = tags
        self._tracker = tracker

    def __missing__(self, name: str) -> Handle:
        found = self[name] = self._tracker.handle(name, self.tags, kind=_KINDS.get(name, "counter"))
        return found


class Meter:
    """Records calls.

    Args:
        tracker: gets the metrics.
    """

    def __init__(self, tracker: PerformanceTracker) -> None:
        self._tracker = tracker
        self._tagged: dict[tuple[str, ...], _Tagged] = {}  # by names and values in turn; steps are atomic, so no lock
        self._look_again = 0.0  # clock reading

    def forget(self) -> None:
        """Let go of all series."""
        self._tagged.clear()
        self._look_again = 0.0

    def hit(self, call: Call, response: ChatResponse, saved: float | None, latency: float) -> None:
        """Record a call that the cache answered, and the dollars it would have cost."""
        self._asked(call, response.cached or "exact", latency)
        self._tell(call, latency, response=response)
        if saved:
            self._of("agent", call.asked.agent)["cache_saving"].record(saved)

    def answered(self, call: Call, response: ChatResponse, latency: float) -> None:
        """Record a call that a provider answered."""
        self._asked(call, "miss" if call.key is not None else "none", latency)
        self._tell(call, latency, response=response)
        series = self._of("provider", response.provider, "model", call.target.model, "agent", call.asked.agent)
        series["llm_duration"].record(latency)
        for name, tokens in zip(_TOKENS, _tokens(response.usage), strict=True):
            if tokens:
                series[name].record(float(tokens))
        if call.aliases is not None:
            series["tokens_saved"].record(float(call.aliases.saved_tokens))
        attempts = response.attempts
        if call.first_token is not None:
            series["first_token"].record(call.first_token)
            further = response.usage.completion_tokens - 1
            if len(attempts) == 1 and further > 0:  # of several, which one spoke when is unknown
                spoken = max(0.0, attempts[0].seconds - call.first_token)
                series["time_per_output_token"].record(spoken / further)
        if len(attempts) > 1:
            self._repeated(attempts, call)
        if response.id and isinstance(response.id, str):  # providers send what they like
            self._tracker.remember(response.id, series.tags)

    def failed(self, call: Call, error: BaseException, latency: float) -> None:
        """Record a call that ended with an error."""
        self._tell(call, latency, error=error)
        series = self._of("model", call.target.model, "agent", call.asked.agent, "kind", type(error).__name__)
        series["llm_error"].record(1.0)
        attempts: Sequence[Attempt] = getattr(error, "attempts", ())
        if len(attempts) > 1:
            self._repeated(attempts, call)

    def _tell(self, call: Call, latency: float, **outcome: Any) -> None:
        if self._tracker.follows_calls:
            first, chunks = call.first_token, len(call.heard)
            self._tracker.finished(request=call.target, seconds=latency, first_token=first, chunks=chunks, **outcome)

    def budgets(self, rows: Callable[[], Iterable[Mapping[str, Any]]], now: float) -> None:
        """Record how full the budgets are that `rows()` tells of, unless that was done in the second before `now`."""
        if now < self._look_again:
            return
        self._look_again = now + _BUDGETS
        full: dict[tuple[str, str], float] = {}
        for row in rows():
            kind, name = row["scope"]
            scope = (kind, name if kind != "user" else "*")
            used = (row["limit"] - row["remaining"]) / row["limit"] if row["limit"] else 1.0
            full[scope] = max(used, full.get(scope, 0.0))
        for (kind, name), used in full.items():
            self._of("scope", kind, "name", name)["budget_utilization"].record(used)

    def _repeated(self, attempts: Sequence[Attempt], call: Call) -> None:
        """Count the attempts after the first: with the provider asked before, or with another one."""
        for before, attempt in pairwise(attempts):
            series = self._of("provider", attempt.provider, "model", attempt.model, "agent", call.asked.agent)
            series["llm_retry" if attempt.provider == before.provider else "llm_fallback"].record(1.0)

    def _asked(self, call: Call, result: str, latency: float) -> None:
        agent = call.asked.agent
        self._of("agent", agent)["agent_response_time"].record(latency)
        self._of("model", call.target.model, "agent", agent, "result", result)["llm_cache"].record(1.0)

    def _of(self, *names_and_values: str) -> _Tagged:
        found = self._tagged.get(names_and_values)
        if found is None:
            if len(self._tagged) >= _REMEMBERED:
                self._tagged.clear()
            tags = dict(zip(names_and_values[::2], names_and_values[1::2], strict=True))
            found = self._tagged[names_and_values] = _Tagged(self._tracker, tags)
        return found
