"""Strategies that read the request: how complex it is (RecoAgent's dynamic selection), or what kind of task it is."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from perfkit.routing.strategies import text_of
from perfkit.routing.strategies.ranked import BestQuality, Cheapest, LeastLatency, Priority
from perfkit.tokens.complexity import classify, classify_task
from perfkit.values import ChatRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perfkit._settings import RouterSettings
    from perfkit.routing.health import Candidate

__all__ = ["ByTask", "Dynamic"]


class Dynamic:
    """Simple questions to the cheapest, complex ones to the best, all others to the fastest."""

    def __init__(self) -> None:
        self._told = threading.local()
        self._choices: dict[str, Cheapest | LeastLatency | BestQuality] = {
            "simple": Cheapest(),
            "medium": LeastLatency(),
            "complex": BestQuality(),
        }

    def __call__(self, candidates: Sequence[Candidate], request: Any) -> Candidate:
        """Choose one of `candidates`."""
        level, why = classify(text_of(request), context_size(request))
        chosen = self._choices[level](candidates, request)
        self._told.why = f"{level} ({why}): {self._choices[level].reason(chosen)}"
        return chosen

    def reason(self, candidate: Candidate) -> str:  # asked right after the choice, in its thread
        """Say why `candidate` was chosen."""
        return str(getattr(self._told, "why", "by what is asked"))


def context_size(request: Any) -> int:
    """Return the characters of a request beyond the last question."""
    if isinstance(request, Mapping):
        return len(str(request.get("context") or ""))
    if not isinstance(request, ChatRequest):
        return 0
    metadata = len(str(dict(request.metadata))) if request.metadata else 0
    return metadata + sum(len(str(message.get("content") or "")) for message in request.messages[:-1])


class ByTask:
    """Providers by the kind of task, as `[router] tasks` names them; by priority for tasks that are not named.

    The task is `metadata["task"]` of the request (`context={"task": "code"}` of a chat), else what its words tell.
    """

    def __init__(self) -> None:
        self._tasks: Mapping[str, Any] = {}
        self._told = threading.local()
        self._otherwise = Priority()

    def configure(self, settings: RouterSettings) -> None:
        """Take the table from the settings."""
        self._tasks = settings.tasks

    def __call__(self, candidates: Sequence[Candidate], request: Any) -> Candidate:
        """Choose one of `candidates`."""
        given = request if isinstance(request, Mapping) else getattr(request, "metadata", {})
        task = given.get("task") or classify_task(text_of(request))
        listed = self._tasks.get(task, ())
        names = [listed] if isinstance(listed, str) else list(listed)
        wanted = [candidate for name in names for candidate in candidates if candidate.name == name]
        chosen = wanted[0] if wanted else self._otherwise(candidates, request)
        self._told.why = f"task {task}" if wanted else f"task {task}, {self._otherwise.reason(chosen)}"
        return chosen

    def reason(self, candidate: Candidate) -> str:  # asked right after the choice, in its thread
        """Say why `candidate` was chosen."""
        return str(getattr(self._told, "why", "by what is asked"))
