"""How good an answer is, 0..1: a callable(request, response), and what follows when it is not good enough.

The built-in checks are cheap and blunt, as is meant: an empty answer, a refusal, JSON that breaks its schema, words
that are not in the given text. Anything better (another model as the judge) is a callable of the application's. Scores
go to the metric `quality`, to the provider's own quality (which the strategies "quality", "dynamic" and "adaptive"
read), to the optimizer's history of the route and model (`predict_quality`, `choose_model`), and to whoever looks for a
better answer.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perfkit._process import deferred

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perfkit.metrics import PerformanceTracker
    from perfkit.routing.health import Candidate
    from perfkit.tokens import TokenOptimizer
    from perfkit.values import ChatRequest, ChatResponse

__all__ = ["Quality", "Score", "all_of", "grounded", "matches_schema", "no_refusal", "not_empty"]

Score = Callable[["ChatRequest", "ChatResponse"], float]
REFUSALS = (
    r"\bI(?:'m| am) (?:sorry|unable|not able)\b",
    r"\bI (?:can(?:'|no)t|cannot|won't) (?:help|assist|provide|comply|do|answer)",
    r"\bas an AI\b",
    r"\bI must decline\b",
)
_REFUSAL = re.compile("|".join(REFUSALS), re.IGNORECASE)
_OPENING = 200  # characters a refusal is looked for in; later it is mostly a quotation
_WORD = re.compile(r"[^\W_]{4,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What is expected of an answer.

    Attributes:
        score: 0..1 for a request and its response.
        threshold: with less, somebody better is asked, if there is anybody; 0 only measures.
        sample: part of the answers that is looked at.
        blocking: look before the answer is returned; else soon after, which cannot change it.
        tracker: gets the metric `quality`; None means the shared one.
        optimizer: learns from the scores, per route and model; None means the shared one.
    """

    score: Score
    threshold: float = 0.5
    sample: float = 1.0
    blocking: bool = True
    tracker: PerformanceTracker | None = None
    optimizer: TokenOptimizer | None = None

    def judge(self, candidate: Candidate, request: ChatRequest, response: ChatResponse) -> float | None:
        """Return the score, None if this answer is not looked at now."""
        if self.sample < 1.0 and random.random() >= self.sample:
            return None
        if self.blocking:
            return self._scored(candidate, request, response)
        deferred.add(lambda: self._scored(candidate, request, response))
        return None

    def _scored(self, candidate: Candidate, request: ChatRequest, response: ChatResponse) -> float:
        score = max(0.0, min(1.0, float(self.score(request, response))))
        candidate.judged(score)
        tracker = self.tracker
        if tracker is None:
            from perfkit.metrics import PerformanceTracker

            tracker = PerformanceTracker.instance()
        tracker.record_metric("quality", score, {"provider": candidate.name, "model": request.model})
        optimizer = self.optimizer
        if optimizer is None:
            from perfkit.tokens import TokenOptimizer

            optimizer = TokenOptimizer.instance()
        optimizer.feedback(response, score, request=request)
        return score


def not_empty(request: ChatRequest, response: ChatResponse) -> float:  # noqa: ARG001 - a score's form
    """Return 0 for an answer without text and tool calls."""
    return 1.0 if response.text.strip() or response.tool_calls else 0.0


def no_refusal(request: ChatRequest, response: ChatResponse) -> float:  # noqa: ARG001
    """Return 0 for an answer that begins as refusals do, or that a content filter ended."""
    refused = response.finish_reason == "content_filter" or _REFUSAL.search(response.text[:_OPENING]) is not None
    return 0.0 if refused else 1.0


def matches_schema(request: ChatRequest, response: ChatResponse) -> float:
    """Return 1 for JSON that keeps the schema in the request's `response_format`; any JSON if there is no schema."""
    try:
        value = json.loads(response.text)
    except ValueError:
        return 0.0
    asked: Mapping[str, Any] = request.response_format or {}
    schema = asked.get("json_schema", {}).get("schema", {})
    return 1.0 if _keeps(value, schema) else 0.0


_KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


def _keeps(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value has the types, required keys and enumerated values of a schema; other rules are not looked at."""
    wanted = schema.get("type")
    kinds = (wanted,) if isinstance(wanted, str) else tuple(wanted or ())
    if kinds and not any(_is(value, kind) for kind in kinds):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if isinstance(value, dict):
        parts = schema.get("properties", {})
        return set(schema.get("required", ())) <= set(value) and all(
            _keeps(value[name], part) for name, part in parts.items() if name in value
        )
    return not isinstance(value, list) or all(_keeps(item, schema.get("items", {})) for item in value)


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _KINDS.get(kind, (object,)))


def grounded(request: ChatRequest, response: ChatResponse) -> float:
    """Return the part of the answer's words (of four letters and more) that the messages have, too."""
    said = set(_WORD.findall(response.text.lower()))
    if not said:
        return 1.0
    given = " ".join(str(message.get("content")) for message in request.messages).lower()
    return len(said & set(_WORD.findall(given))) / len(said)


def all_of(*scores: Score) -> Score:
    """Return a score that is the lowest of several."""
    checks: Iterable[Score] = scores

    def lowest(request: ChatRequest, response: ChatResponse) -> float:
        return min(score(request, response) for score in checks)

    return lowest
