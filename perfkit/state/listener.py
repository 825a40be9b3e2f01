"""One thread that listens to a Redis for the whole process, and notices when one that was away is back."""

from __future__ import annotations

import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from perfkit import _process
from perfkit.clock import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit.state.outage import Outage

__all__ = ["Listener"]

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds between tries to reach a server that is away
SILENCE = 5.0  # seconds without a message after which the server is asked for a sign of life


class _Subscriber(NamedTuple):
    callback: Callable[[], Callable[[bytes], None] | None]  # a weak reference, if it is a method
    on_gap: Callable[[], Callable[[], None] | None]


class Listener:
    """Hands messages to subscribers, and ends an outage.

    The thread lives while somebody is subscribed or the server is away. New subscriptions reach it through a channel
    of its own: redis-py's subscriptions belong to one thread.

    Args:
        connect: returns the client; called in the thread.
        outage: begun and ended here.
        clock: None means the system's.
    """

    def __init__(self, connect: Callable[[], Any], outage: Outage, clock: Clock | None) -> None:
        self._connect, self._outage = connect, outage
        self._clock = clock if clock is not None else SYSTEM_CLOCK
        self._subscribers: dict[str, list[_Subscriber]] = {}
        self._late: list[tuple[str, _Subscriber]] = []  # since the thread has looked at them
        self._inherited: list[Any] = []  # the parent's connections: kept, so that nothing closes them
        self._messages: Any = None
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the parent's thread and connection."""
        self._lock = threading.Lock()  # guards _subscribers, _late and _thread
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._inherited.append(self._messages)
        self._messages = None
        self._wake_channel = f"perfkit-wake:{uuid4().hex}"

    def subscribe(
        self, channel: str, callback: Callable[[bytes], None], on_gap: Callable[[], None] | None
    ) -> Callable[[], None]:
        """Add a subscriber and return what removes it."""
        subscriber = _Subscriber(_weakly(callback), _weakly(on_gap))
        with self._lock:
            self._subscribers.setdefault(channel, []).append(subscriber)
            self._late.append((channel, subscriber))
        self.ensure()
        self._wake()

        def unsubscribe() -> None:
            with self._lock:
                remaining = [one for one in self._subscribers.get(channel, ()) if one is not subscriber]
                if remaining:
                    self._subscribers[channel] = remaining
                else:
                    self._subscribers.pop(channel, None)
            self._wake()

        return unsubscribe

    def ensure(self) -> None:
        """Start the thread if there is something for it to do and it does not run in this process."""
        if self._thread is not None or not self._needed():
            return
        _process.check()
        with self._lock:
            if self._thread is None:
                stop = self._stop = threading.Event()
                thread = threading.Thread(target=self._run, args=(stop,), name="perfkit-state", daemon=True)
                with suppress(RuntimeError):  # no more threads, or the interpreter is ending: the next call tries again
                    thread.start()
                    self._thread = thread

    def _needed(self) -> bool:
        return self._outage.lasts or bool(self._subscribers)

    def _wake(self) -> None:
        """Make the thread look at its subscribers anew."""
        if self._messages is not None and not self._outage.lasts:
            try:
                self._connect().publish(self._wake_channel, b"")
            except Exception as error:
                self._outage.begins(error)

    def _run(self, stop: threading.Event) -> None:
        pause = FIRST_PAUSE
        while not self._done(stop):
            try:
                self._listen(stop)
                pause = FIRST_PAUSE
            except Exception as error:
                if not stop.is_set():
                    self._outage.begins(error)
                stop.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            finally:
                self._hang_up()

    def _done(self, stop: threading.Event) -> bool:
        with self._lock:
            done = stop.is_set() or not self._needed()
            if done and self._stop is stop:
                self._thread = None
        return done

    def _listen(self, stop: threading.Event) -> None:
        client = self._connect()
        client.ping()
        messages = self._messages = client.pubsub()
        messages.subscribe(self._wake_channel)
        known: set[str] = set()
        asked = False  # for a sign of life
        self._follow(messages, known)
        self._outage.ends()
        while not stop.is_set() and self._subscribers:
            message = messages.get_message(timeout=SILENCE)
            if message is None:
                if asked:
                    raise TimeoutError("no sign of life")
                messages.ping()
            asked = message is None
            if message is not None:
                self._take(message, messages, known)

    def _take(self, message: dict[str, Any], messages: Any, known: set[str]) -> None:
        channel = message["channel"].decode() if message["channel"] else ""
        if message["type"] == "subscribe":
            self._tell(channel, None)
        elif message["type"] == "message" and channel == self._wake_channel:
            self._follow(messages, known)
        elif message["type"] == "message":
            self._tell(channel, message["data"])

    def _follow(self, messages: Any, known: set[str]) -> None:
        """Subscribe to what is new, and end what nobody wants any more; who joins others in a channel is told here."""
        with self._lock:
            wanted, late, self._late = set(self._subscribers), self._late, []
        for channel, subscriber in late:
            if channel in known:
                _tell_gap(subscriber)
        if wanted - known:
            messages.subscribe(*(wanted - known))
        if known - wanted:
            messages.unsubscribe(*(known - wanted))
        known.clear()
        known.update(wanted)

    def _tell(self, channel: str, data: bytes | None) -> None:
        """Hand a message to the subscribers of its channel; None: there may be a gap."""
        with self._lock:
            subscribers = list(self._subscribers.get(channel, ()))
        for subscriber in subscribers:
            if data is None:
                _tell_gap(subscriber)
            elif (callback := subscriber.callback()) is not None:
                with suppress(Exception):  # one that fails must not keep messages from the others
                    callback(data)

    def _hang_up(self) -> None:
        messages, self._messages = self._messages, None
        if messages is not None:
            with suppress(Exception):
                messages.close()

    def close(self) -> None:
        """End the thread, waiting at most 2 s; subscriptions stay and a later `ensure` serves them again."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._stop.set()
        self._wake()
        if thread is not None and thread is not threading.current_thread():
            thread.join(2.0)


def _tell_gap(subscriber: _Subscriber) -> None:
    if (on_gap := subscriber.on_gap()) is not None:
        with suppress(Exception):
            on_gap()


def _weakly(call: Any) -> Callable[[], Any]:
    """Return what returns `call`: a weak reference, if it is a bound method."""
    return weakref.WeakMethod(call) if hasattr(call, "__self__") and hasattr(call, "__func__") else lambda: call
