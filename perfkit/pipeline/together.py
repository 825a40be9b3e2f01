"""One streamed answer for all who ask for it meanwhile: nobody's call is paid twice, and nobody waits for the whole.

There is no leader whose pace the others have to keep. Whoever has heard all there is fetches the next piece, one thread
at a time, and the others find it there; the call goes on until it ends or the last listener has left.
"""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING

from perfkit import _process
from perfkit.errors import DeadlineExceeded, RecursiveCallError, StreamInterruptedError
from perfkit.resilience.singleflight import raise_again

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from perfkit.clock import Clock
    from perfkit.values import ChatResponse

    Deltas = Generator[str, None, ChatResponse]

__all__ = ["SharedStreams", "TornAwayError"]


class TornAwayError(StreamInterruptedError):
    """The thread that fetched the next piece for all was interrupted, as at the end of a worker."""


class SharedStreams:
    """Streams under way, by the key of their answer.

    Args:
        clock: tells who has waited long enough.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._after_fork()
        _process.bind(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards _live, and how many listen to each
        self._live: dict[str, _Live] = {}

    def board(self, key: str, call: object, begin: Callable[[], Deltas]) -> tuple[_Live, bool]:
        """Return the stream of `key`, and whether it was begun for this `call`, which must `hear` it."""
        with self._lock:
            live = self._live.get(key)
            mine = live is None
            if live is None:
                live = self._live[key] = _Live(begin(), call)
            live.listeners += 1
            return live, mine

    def hear(self, key: str, live: _Live, timeout: float) -> Deltas:
        """Yield the text of a stream from its beginning, and return the whole.

        Raises:
            DeadlineExceeded: another thread has been fetching the next piece for too long.
            Exception: what the provider raised, to each listener his own copy.
        """
        at, until = 0, self._clock.now() + timeout
        try:
            while True:
                if not live.has(at, until, self._clock):
                    self._fetch(key, live)
                if at == len(live.pieces):
                    return live.end()
                yield live.pieces[at]
                at += 1
        finally:
            self._leave(key, live)

    def drain(self, key: str, call: object, timeout: float | None) -> None:
        """Read the stream that was begun for a call to its end, for somebody who wants its answer whole.

        If all have left it there is nothing to read, though another one of the same key may have begun since.
        """
        with self._lock:
            live = self._live.get(key)
            if live is None or live.call is not call:
                return
            live.listeners += 1
        most = threading.TIMEOUT_MAX if timeout is None else timeout
        until = self._clock.now() + most
        with closing(self.hear(key, live, most)) as deltas:
            while self._clock.now() < until:
                if next(deltas, None) is None:
                    return

    def _fetch(self, key: str, live: _Live) -> None:
        try:
            live.fetch()
        finally:
            if live.over:
                self._forget(key, live)
            live.release()

    def _leave(self, key: str, live: _Live) -> None:
        with self._lock:
            live.listeners -= 1
            last = not live.listeners
            if last and self._live.get(key) is live:
                del self._live[key]
        if last:
            live.deltas.close()

    def _forget(self, key: str, live: _Live) -> None:
        with self._lock:
            if self._live.get(key) is live:
                del self._live[key]


class _Live:
    """One stream under way."""

    def __init__(self, deltas: Deltas, call: object) -> None:
        self.deltas, self.call = deltas, call
        self.listeners = 0
        self.pieces: list[str] = []
        self.over = False
        self._response: ChatResponse | None = None
        self._error: BaseException | None = None
        self._told = False  # of the error
        self._changed = threading.Condition()  # guards _told and _fetcher, who alone changes the rest
        self._fetcher: int | None = None

    def has(self, at: int, until: float, clock: Clock) -> bool:
        """Wait for a piece or the end; False: there is none yet, and this thread has to `fetch` it."""
        with self._changed:
            while at == len(self.pieces) and not self.over:
                if self._fetcher is None:
                    self._fetcher = threading.get_ident()
                    return False
                if self._fetcher == threading.get_ident():
                    raise RecursiveCallError("a streamed answer asks for itself; give the inner call another key")
                left = until - clock.now()
                if left <= 0:
                    raise DeadlineExceeded("another call for the same answer is not done in time")
                self._changed.wait(min(left, threading.TIMEOUT_MAX))
            return True

    def fetch(self) -> None:
        """Get the next piece; what the provider raises is told by `end`, but what tears this thread away."""
        try:
            self.pieces.append(next(self.deltas))
        except StopIteration as end:
            self._response, self.over = end.value, True
        except BaseException as error:
            self._error, self.over = error, True
            if not isinstance(error, Exception):
                raise

    def release(self) -> None:
        """Let others see what was fetched, and fetch."""
        with self._changed:
            self._fetcher = None
            self._changed.notify_all()

    def end(self) -> ChatResponse:
        """Return the whole answer, or raise why there is none."""
        error = self._error
        if isinstance(error, Exception):
            with self._changed:
                first, self._told = not self._told, True
            if first:
                raise error
            raise_again(error)
        if self._response is None:
            raise TornAwayError("the thread that read the answer was torn away", partial="".join(self.pieces))
        return self._response
