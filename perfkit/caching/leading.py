"""The lead of an answer that comes piece by piece, as a stream does: who else wants it waits, here and elsewhere.

The lead is a flight of this process (see SingleFlight) and, where processes share the answers, the turn among them. It
ends with what was kept, with the error that all are told, or with nothing: then one of those waiting takes over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from types import TracebackType

    from perfkit.caching.backends import Turn
    from perfkit.caching.entry import Entry
    from perfkit.values import ChatResponse

    Deltas = Generator[str, None, ChatResponse]

__all__ = ["Lead"]


class Lead:
    """Held while a stream is read, as a context manager; it ends there, however that goes.

    Args:
        heard: the text that came; an error after text is nobody else's.
        end: ends the flight with an entry, an error, or neither; None: nobody else may want this answer.
        turn: the turn among processes, if there is one.
        limits: errors that are of one caller only.
        instead: what serves where there is no answer, if anything.
    """

    def __init__(
        self,
        heard: Sequence[str],
        end: Callable[[Entry | None, Exception | None], None] | None = None,
        turn: Turn | None = None,
        limits: tuple[type[Exception], ...] = (),
        instead: Callable[[Exception], Entry | None] | None = None,
    ) -> None:
        self._heard, self._end, self._turn, self._limits, self._instead = heard, end, turn, limits, instead
        self._entry: Entry | None = None
        self._kept = True  # those elsewhere are to look again

    def paced(self, deltas: Deltas) -> Deltas:
        """Pass a stream on; while its reader rests too long, other processes do not wait for him."""
        return deltas if self._turn is None else _resting(deltas, self._turn)

    def land(self, entry: Entry, *, kept: bool) -> None:
        """Give the answer to those who wait; if it was not `kept`, those elsewhere have to ask themselves."""
        self._entry, self._kept = entry, kept

    def instead(self, error: Exception) -> Entry | None:
        """Return the old answer that serves in place of one that failed before its first text, to all who wait."""
        if self._instead is None or self._heard:
            return None
        self._entry = self._instead(error)
        return self._entry

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        told = error if isinstance(error, Exception) and not isinstance(error, self._limits) else None
        if self._heard:
            told = None
        if self._end is not None:
            self._end(self._entry, told)
        if self._turn is not None:
            self._turn.finish(kept=self._kept and told is None, error=told)


def _resting(deltas: Deltas, turn: Turn) -> Deltas:
    try:
        while True:
            delta = next(deltas)
            turn.rest()
            try:
                yield delta
            finally:
                turn.go_on()
    except StopIteration as end:
        response: ChatResponse = end.value
        return response
    finally:
        deltas.close()
