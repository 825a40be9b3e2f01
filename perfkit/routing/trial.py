"""One attempt at one provider, under way: what was sent, since when, and whether the caller has seen anything of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from perfkit.values import ChatRequest

if TYPE_CHECKING:
    from perfkit.clock import Clock
    from perfkit.routing.health import Candidate
    from perfkit.values import ChatResponse

__all__ = ["Reservation", "Reserve", "Trial"]


class Reservation(Protocol):
    """Money held for one attempt; `max_tokens`, if it has that, is the bound of the answer that it covers."""

    def settle(self, response: ChatResponse) -> Mapping[str, Any] | None:
        """Pay what `response` cost; what is returned are fields of the answer to change, such as its `cost`."""

    def write_off(self, response: ChatResponse) -> None:
        """Pay for an answer that is not used: another one came first, or it was not good enough."""

    def release(self, error: BaseException | None) -> None:
        """Give back what is not due for an attempt that ended with `error`; None: the caller left the stream."""


Reserve = Callable[[ChatRequest, str], Reservation]  # request of the attempt, name of the provider


class Trial:
    """An attempt; made and ended by the `Call` it belongs to.

    Attributes:
        candidate: who is asked.
        permit: of its breaker.
        request: what is sent; `timeout` is the attempt's share of the time.
        reason: why this provider.
        pauses: seconds the caller of a stream spent between two deltas.
        shown: output was handed out, so the user would notice another provider.
        left: the caller left the stream.
        hold: money held for it.
    """

    pauses = 0.0
    shown = left = False
    hold: Reservation | None = None

    def __init__(
        self,
        candidate: Candidate,
        permit: int,
        request: ChatRequest,
        reason: str,
        clock: Clock,
        began: float | None = None,
    ) -> None:
        self.candidate, self.permit, self.request, self.reason = candidate, permit, request, reason
        self._clock = clock
        self.began = clock.now() if began is None else began
        self.began_wall = clock.wall()

    def reserve(self, reserve: Reserve) -> None:
        """Hold the money for it, which may bound its answer; raises as `reserve` does."""
        self.hold = reserve(self.request, self.candidate.name)
        bound = getattr(self.hold, "max_tokens", None)
        if bound is not None:
            self.request = self.request.evolve(max_tokens=bound)

    @property
    def seconds(self) -> float:
        """How long it has taken, without the caller's pauses."""
        return self._clock.now() - self.began - self.pauses
