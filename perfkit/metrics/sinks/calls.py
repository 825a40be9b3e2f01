"""One finished chat call, as sinks get it that want more than numbers: for spans, and for metrics named by others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perfkit.values import Attempt, ChatRequest, ChatResponse

__all__ = ["CallSink", "FinishedCall"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedCall:
    """What was asked, and what became of it.

    Attributes:
        request: as it was sent: its model is the one asked for, after routes.
        response: the answer, None when there is an error.
        error: what ended it, None when there is an answer.
        ended: epoch seconds.
        seconds: how long it took.
        first_token: seconds to the first text of a stream, None without.
        chunks: pieces of text a stream came in, 0 when it was none.
    """

    request: ChatRequest
    response: ChatResponse | None = None
    error: BaseException | None = None
    ended: float = 0.0
    seconds: float = 0.0
    first_token: float | None = None
    chunks: int = 0

    @property
    def attempts(self) -> Sequence[Attempt]:
        """Each try at a provider, in order."""
        found: Sequence[Attempt] = getattr(self.response if self.error is None else self.error, "attempts", ())
        return found


@runtime_checkable
class CallSink(Protocol):
    """A sink that is told of calls too, in the thread of the caller; it must not block."""

    def finished(self, call: FinishedCall) -> None:
        """Take a call that has just ended."""
        ...
