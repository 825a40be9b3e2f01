"""The stream a caller holds.

Closing the generator behind it takes locks, which the collector must never do: it would run inside a thread that holds
them. So the generator is kept out of the stream's own garbage, and closed from `deferred` when the stream is forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, Self

from perfkit._process import deferred
from perfkit.errors import BudgetExceededError

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager
    from types import TracebackType

    from perfkit.clock import Clock
    from perfkit.pipeline.call import Call
    from perfkit.values import ChatResponse

__all__ = ["ChatStream", "begun_within", "listen", "noted", "replayed"]

_PIECES = re.compile(r".{1,40}(?:\s+|$)|.{1,40}", re.DOTALL)


def replayed(text: str) -> Iterator[str]:
    """Yield a kept answer in pieces of some words, as a provider sends them, but at once."""
    return (piece[0] for piece in _PIECES.finditer(text))


def begun_within(
    measured: AbstractContextManager[object], deltas: Generator[str, None, ChatResponse]
) -> Generator[str, None, ChatResponse]:
    """Do as `yield from deltas` does, with the wait for the first text inside of a block."""
    with closing(deltas):
        with measured:
            try:
                first = next(deltas)
            except StopIteration as end:
                response: ChatResponse = end.value
                return response
        yield first
        return (yield from deltas)


class ChatStream(Iterator[str]):
    """A streamed answer: iterate the text as it comes; afterwards `response` holds the whole.

    Leaving the `with` block or calling `close()` early cancels the request at the provider; what was received so far is
    still counted and paid. The same happens within a second to a stream that is forgotten.
    """

    def __init__(self, deltas: Generator[str, None, ChatResponse]) -> None:
        self._deltas = deltas
        self._forgotten: weakref.finalize[..., Any] | None = None  # set once there is something to close
        self.response: ChatResponse | None = None

    def __next__(self) -> str:
        if self._forgotten is None:
            self._forgotten = deferred.when_gone(self, self._deltas.close)
        try:
            return next(self._deltas)
        except StopIteration as end:
            self._forgotten.detach()
            if end.value is not None:
                self.response = end.value
            raise StopIteration from None

    def close(self) -> None:
        """End the stream now."""
        self._deltas.close()
        if self._forgotten is not None:
            self._forgotten.detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def listen(
    call: Call, begin: Callable[[BudgetExceededError | None], Generator[str, None, ChatResponse]], clock: Clock
) -> Generator[str, None, ChatResponse]:
    """Pass the text of a call on, and note it; closing this closes the router's stream at once.

    Args:
        call: notes it.
        begin: begins the router's stream; is told why if a budget refused the last one.
        clock: times the first text.
    """
    deltas = begin(None)
    while True:
        try:
            delta = next(deltas)
            if call.first_token is None:
                call.first_token = clock.now() - call.started
            call.heard.append(delta)
            yield delta
        except StopIteration as end:
            response: ChatResponse = end.value
            return response
        except BudgetExceededError as refusal:
            deltas = begin(refusal)
        except GeneratorExit:
            call.abandoned = True
            deltas.close()
            raise


def noted(call: Call, deltas: Generator[str, None, ChatResponse]) -> Generator[str, None, ChatResponse]:
    """Pass on the text of a stream that another call pays for, and note it."""
    with closing(deltas):
        try:
            while True:
                delta = next(deltas)
                call.heard.append(delta)
                yield delta
        except StopIteration as end:
            response: ChatResponse = end.value
            return response
