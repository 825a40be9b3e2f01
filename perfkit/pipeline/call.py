"""One call under way, and the money of its attempts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from perfkit.values import Usage

if TYPE_CHECKING:
    from perfkit.caching import Decision
    from perfkit.tokens import Hold, TokenOptimizer
    from perfkit.values import ChatRequest, ChatResponse

__all__ = ["Call", "Purse", "heard_usage"]


@dataclass(slots=True, eq=False)
class Call:
    """One call under way: what was asked, what is sent, and what becomes of it."""

    asked: ChatRequest  # `model` may be a route
    target: ChatRequest  # what a provider gets
    provider: str | None  # pinned
    decision: Decision
    key: str | None
    started: float
    budget: float | None = None  # US dollars for all attempts together
    spent: float = 0.0  # US dollars paid for attempts so far
    answered_by: str = ""
    cost: float | None = None
    first_token: float | None = None
    heard: list[str] = field(default_factory=list)
    abandoned: bool = False


class Purse:
    """The money of one attempt: held before it, settled at what it cost, released when it failed.

    A stream that the caller leaves is settled at an estimate: the counted prompt plus the text received.
    """

    __slots__ = ("_call", "_hold", "_optimizer")

    def __init__(self, optimizer: TokenOptimizer, call: Call, hold: Hold | None) -> None:
        self._optimizer = optimizer
        self._call = call
        self._hold = hold

    def settle(self, response: ChatResponse) -> None:
        """Pay what `response` cost; if that cannot be told, all that was held."""
        cost = None
        try:
            cost = self._optimizer.calculate_cost(response.usage, response.model)
            if cost is None and response.model != self._call.target.model:
                cost = self._optimizer.calculate_cost(response.usage, self._call.target.model)
        finally:
            self._call.cost = cost
            if self._hold is not None:
                self._hold.settle(cost)

    def release(self) -> None:
        """Give back what was held; for an abandoned stream, pay for what was heard."""
        call, hold = self._call, self._hold
        if not call.abandoned:
            if hold is not None:
                hold.release()
            return
        try:
            call.cost = self._optimizer.calculate_cost(heard_usage(self._optimizer, call), call.target.model)
        finally:
            if hold is not None:
                hold.settle(call.cost)


def heard_usage(optimizer: TokenOptimizer, call: Call) -> Usage:
    """Return the estimated usage of a stream that was left early."""
    model = call.target.model
    prompt = optimizer.count_tokens(call.target.messages, model)
    return Usage(prompt, optimizer.count_tokens("".join(call.heard), model), estimated=True)
