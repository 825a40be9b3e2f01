"""The stream a caller holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType

    from perfkit.values import ChatResponse

__all__ = ["ChatStream"]


class ChatStream(Iterator[str]):
    """A streamed answer: iterate the text as it comes; afterwards `response` holds the whole.

    Leaving the `with` block or calling `close()` early cancels the request at the provider; what was received so far is
    still counted and paid.
    """

    def __init__(self, deltas: Generator[str, None, ChatResponse]) -> None:
        self._deltas = deltas
        self.response: ChatResponse | None = None

    def __next__(self) -> str:
        try:
            return next(self._deltas)
        except StopIteration as end:
            if end.value is not None:
                self.response = end.value
            raise StopIteration from None

    def close(self) -> None:
        """End the stream now."""
        self._deltas.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
