"""Strategies that want the best candidate: by the order people gave, or by the latency measured."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perfkit.routing.health import Candidate

__all__ = ["LeastLatency", "Priority"]


class Priority:
    """Priority 1 first; among equals the least busy."""

    _rank = attrgetter("priority", "in_flight")

    def __call__(self, candidates: Sequence[Candidate], request: Any) -> Candidate:  # noqa: ARG002 - a strategy's form
        """Choose one of `candidates`."""
        return min(candidates, key=self._rank)

    def reason(self, candidate: Candidate) -> str:
        """Say why `candidate` was chosen."""
        return f"priority {candidate.priority}"


class LeastLatency:
    """The least expected seconds an attempt; untried and long unused candidates are explored, one attempt at a time."""

    _rank = attrgetter("expected", "in_flight", "priority")

    def __call__(self, candidates: Sequence[Candidate], request: Any) -> Candidate:  # noqa: ARG002
        """Choose one of `candidates`."""
        return min(candidates, key=self._rank)

    def reason(self, candidate: Candidate) -> str:
        """Say why `candidate` was chosen."""
        return "untried" if candidate.latency is None else f"fastest {candidate.latency:.2f} s"
