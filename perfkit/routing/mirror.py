"""Mirrored traffic: a share of the requests goes to a second provider too, after the answer, for comparison only.

The caller pays for putting a request in a queue, and for nothing else: a thread of the mirror's own asks the shadow.
When that thread cannot keep up, or the budget is spent, requests are left out and counted.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from perfkit import _process
from perfkit.clock import SYSTEM_CLOCK, Clock
from perfkit.routing.sequential import Moments
from perfkit.values import finite

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit.values import ChatRequest, ChatResponse

__all__ = ["Mirror"]

log = logging.getLogger("perfkit.routing")

DAY = 86_400.0  # seconds
LONGEST = 100  # requests that wait
IDLE = 5.0  # seconds without a request after which the thread ends


class Mirror:
    """One shadow; made by `ProviderRouter.mirror`.

    Args:
        provider: name of the shadow.
        share: 0..1 of the answered requests.
        budget: dollars a day for the shadow's answers; None bounds nothing. A shadow whose price is unknown gets no
            requests under a budget.
        on_result: called with the request, the answer that was given and the shadow's, or its error, in the mirror's
            thread.
        router: the ProviderRouter that knows the shadow and what it costs.
        clock: None means the system's.

    Attributes:
        sent: requests the shadow was asked.
        failed: of them, that it did not answer.
        left_out: requests of the share that were not sent: the queue was full or the budget spent.
    """

    def __init__(
        self,
        provider: str,
        *,
        share: float,
        budget: float | None,
        on_result: Callable[[ChatRequest, ChatResponse, ChatResponse | Exception], None] | None,
        router: Any,
        clock: Clock | None = None,
    ) -> None:
        self.provider, self.share, self.budget = provider, finite("share", share, above=0), budget
        self.sent = self.failed = self.left_out = 0
        self._on_result, self._router = on_result, router
        self._clock = clock if clock is not None else SYSTEM_CLOCK
        self._spent, self._day = 0.0, 0
        self._seconds = Moments()
        self._after_fork()
        _process.bind(self)

    def _after_fork(self) -> None:
        # The condition's lock guards the queue, the thread, the counts and the money; what was queued is the parent's.
        self._changed = threading.Condition()
        self._queue: deque[tuple[ChatRequest, ChatResponse]] = deque()
        self._thread: threading.Thread | None = None
        self._busy = False

    def offer(self, request: ChatRequest, response: ChatResponse) -> None:
        """Mirror an answered request if its turn comes; returns at once."""
        if response.provider == self.provider or random.random() >= self.share:
            return
        with self._changed:
            if len(self._queue) >= LONGEST or self._is_spent():
                self.left_out += 1
                return
            self._queue.append((request, response))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="perfkit-mirror", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _is_spent(self) -> bool:
        day = int(self._clock.wall() // DAY)
        if day != self._day:
            self._day, self._spent = day, 0.0
        return self.budget is not None and self._spent >= self.budget

    def _run(self) -> None:
        while (next_one := self._taken()) is not None:
            try:
                self._ask(*next_one)
            except Exception:  # on_result is the user's code
                log.exception("mirror to %s: on_result failed", self.provider)
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _taken(self) -> tuple[ChatRequest, ChatResponse] | None:
        """Return the next request; None when there was none for long, or this thread is no longer the mirror's."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or not self._is_ours(), IDLE)
            if self._is_ours() and self._is_spent():
                self.left_out += len(self._queue)
                self._queue.clear()
            if self._is_ours() and self._queue:
                self._busy = True
                return self._queue.popleft()
            if self._is_ours():
                self._thread = None
            self._changed.notify_all()
            return None

    def _is_ours(self) -> bool:
        return self._thread is threading.current_thread()

    def _ask(self, request: ChatRequest, given: ChatResponse) -> None:
        began = self._clock.now()
        answer: ChatResponse | Exception
        try:
            answer = self._router.get_provider(self.provider).chat_completion(request)
        except Exception as error:  # the shadow's trouble is a result
            answer = error
        self._count(answer, self._clock.now() - began)
        if self._on_result is not None:
            self._on_result(request, given, answer)

    def _count(self, answer: ChatResponse | Exception, seconds: float) -> None:
        cost: float | None = 0.0
        if not isinstance(answer, Exception):
            cost = self._router.get_request_cost(self.provider, answer.usage, answer.model)
        with self._changed:
            self.sent += 1
            if isinstance(answer, Exception):
                self.failed += 1
            else:
                self._seconds.add(seconds)
            self._spent += cost if cost is not None else (self.budget or 0.0)  # an unknown price spends all there is

    def wait(self, timeout: float = 10.0) -> bool:
        """Wait until everything that was offered is dealt with; return whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._busy, timeout)

    def stats(self) -> dict[str, Any]:
        """Return sent, failed, left_out, waiting, avg_response_time (seconds) and spent_today (dollars)."""
        with self._changed:
            return {
                "provider": self.provider,
                "sent": self.sent,
                "failed": self.failed,
                "left_out": self.left_out,
                "waiting": len(self._queue),
                "avg_response_time": self._seconds.mean if self._seconds.count else None,
                "spent_today": self._spent,
            }

    def close(self) -> None:
        """Drop what waits; what is at the shadow ends by itself."""
        with self._changed:
            self._queue.clear()
            self._thread = None
            self._changed.notify_all()

    def __repr__(self) -> str:
        return f"<Mirror to {self.provider}: {self.sent} sent, {self.failed} failed, {self.left_out} left out>"
