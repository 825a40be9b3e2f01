"""The figures of one case, and what each means: definitions differ between tools, so ours go with the numbers."""

from __future__ import annotations

from collections import Counter
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from perfkit.bench.report import percentile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perfkit.bench.loading import Case
    from perfkit.bench.sampling import Sample

__all__ = ["DEFINITIONS", "SLOS", "row"]

# guidellm's for a chat: the first token within 200 ms, each further one within 50 ms.
SLOS = {"first_token_ms": 200.0, "per_token_ms": 50.0}
PERCENTS = (50, 90, 95, 99)

DEFINITIONS = {
    "requests": "sent, without warm-up; those that failed are in errors and in no time",
    "latency_ms": "end to end: from the moment a request was due (open loop) or sent (closed loop) to the last text",
    "first_token_ms": "from the same moment to the first text (TTFT)",
    "per_token_ms": "(latency - first token) / (output tokens - 1): time per output token (TPOT), as in vLLM",
    "wait_ms": "how late a request was sent because all places were taken; part of its latency (open loop)",
    "percentiles": "nearest rank: of fewer than 20 answers p95 is the slowest one, of fewer than 100 p99 is",
    "requests_per_second": "answered requests / seconds from the beginning to the last answer",
    "output_tokens_per_second": "output tokens of answered requests / the same seconds",
    "goodput": "answered requests that keep every stated SLO / the same seconds; good_share: of all sent",
    "prompt_tokens": "as the provider counts them, those from its prefix cache (cached_tokens) included",
    "estimated": "answers whose tokens the provider did not count, so that perfkit did",
    "cost": "US dollars of answered requests by perfkit's price list; unknown when one of them has no price",
}


def row(case: Case, samples: Sequence[Sample], *, elapsed: float, slos: Mapping[str, float]) -> dict[str, Any]:
    """Return the figures of a case: times in milliseconds, None where there was no answer to take them from.

    The first keys are the AgentiCraft guide's (Benchmarking Script).
    """
    answered = [sample for sample in samples if sample.error is None]
    seconds = max(elapsed, 1e-9)
    latencies = [1000 * sample.seconds for sample in answered]
    good = sum(_is_good(sample, slos) for sample in answered)
    return {
        "provider": case.name,
        "model": case.model,
        "requests": len(samples),
        "errors": len(samples) - len(answered),
        "avg_latency_ms": mean(latencies) if latencies else None,
        "std_dev_ms": stdev(latencies) if len(latencies) > 1 else 0.0 if latencies else None,
        "min_latency_ms": min(latencies, default=None),
        "max_latency_ms": max(latencies, default=None),
        "prompts": case.set_name,
        "concurrency": case.load.concurrency,
        "rate": case.load.rate,
        "seconds": elapsed,
        "error_kinds": dict(Counter(sample.error for sample in samples if sample.error is not None)),
        "error_rate": (len(samples) - len(answered)) / max(1, len(samples)),
        **_spread("latency_ms", latencies),
        **_spread("first_token_ms", [1000 * s.first_token for s in answered if s.first_token is not None]),
        **_spread("per_token_ms", [1000 * s.per_token for s in answered if s.per_token is not None]),
        **_spread("wait_ms", [1000 * sample.waited for sample in samples]),
        "requests_per_second": len(answered) / seconds,
        "goodput": good / seconds,
        "good_share": good / max(1, len(samples)),
        **_tokens(answered, seconds),
        **_cost(answered),
        "first_errors": list(dict.fromkeys(sample.message for sample in samples if sample.error is not None))[:5],
        "samples": [_told(sample) for sample in samples],
    }


def _spread(name: str, values: list[float]) -> dict[str, float | None]:
    ordered = sorted(values)
    return {f"p{percent}_{name}": percentile(ordered, percent) if ordered else None for percent in PERCENTS}


def _tokens(answered: Sequence[Sample], seconds: float) -> dict[str, float]:
    used = [sample.usage for sample in answered if sample.usage is not None]
    output = sum(usage.completion_tokens for usage in used)
    return {
        "prompt_tokens": sum(usage.prompt_tokens for usage in used),
        "cached_tokens": sum(usage.cached_tokens for usage in used),
        "completion_tokens": output,
        "estimated": sum(usage.estimated for usage in used),
        "output_tokens_per_second": output / seconds,
    }


def _cost(answered: Sequence[Sample]) -> dict[str, float | None]:
    known = [sample.cost for sample in answered if sample.cost is not None]
    total = sum(known) if answered and len(known) == len(answered) else None
    return {"cost": total, "cost_per_request": None if total is None else total / len(answered)}


def _told(sample: Sample) -> dict[str, Any]:
    """Return a sample as it is kept, for other programs and for `compare`."""
    return {
        "due_s": round(sample.due, 6),
        "wait_ms": _ms(sample.waited),
        "latency_ms": _ms(sample.seconds),
        "first_token_ms": _ms(sample.first_token),
        "per_token_ms": _ms(sample.per_token),
        "output_tokens": None if sample.usage is None else sample.usage.completion_tokens,
        "error": sample.error,
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 4)


def _is_good(sample: Sample, slos: Mapping[str, float]) -> bool:
    """Tell whether a request kept every SLO; one that has no such time (a single token) cannot break it."""
    told = _told(sample)
    return all(told[key] is None or told[key] <= most for key, most in slos.items())
