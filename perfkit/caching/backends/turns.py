"""Single flight among processes: a lock with a token and a short life in Redis, and messages instead of polling.

Who has the turn renews it while he computes, from a thread of its own, so a process that dies is followed within
LIFE, and after twice that a stream whose reader rests. Who waits sleeps until he is told, until the lock would end, or
until Redis is away: then he computes himself. Without any message a waiter asks Redis once in LIFE.
"""

from __future__ import annotations

import json
import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import perfkit.errors as known_errors
from perfkit.clock import SYSTEM_CLOCK
from perfkit.errors import DeadlineExceeded, PerfkitError, StateUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from perfkit.state import RedisLink

__all__ = ["RedisTurns"]

LIFE = 3.0  # seconds that a turn lives without being renewed
SLICE = 0.1  # seconds after which a waiter looks, without I/O, whether Redis is still there

# KEYS: turn   ARGV: token, milliseconds
TAKE = (
    "if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 0 end return redis.call('PTTL', KEYS[1])"
)
# KEYS: turns   ARGV: milliseconds, tokens
RENEW = """
for i, key in ipairs(KEYS) do
    if redis.call('GET', key) == ARGV[i + 1] then redis.call('PEXPIRE', key, ARGV[1]) end
end
"""
# KEYS: turn   ARGV: token, channel, message
GIVE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
redis.call('PUBLISH', ARGV[2], ARGV[3])
"""


@dataclass(slots=True)
class _Turn:
    """What asking for a turn led to."""

    mine: bool = False
    landed: bool = False
    error: Exception | None = None
    turns: RedisTurns | None = None
    key: str = ""
    token: str = ""
    resting: float | None = None  # since when

    def rest(self) -> None:
        self.resting = SYSTEM_CLOCK.now()

    def go_on(self) -> None:
        self.resting = None

    def finish(self, *, kept: bool, error: Exception | None = None) -> None:
        if self.turns is not None:
            self.turns.give(self.key, self.token, kept=kept, error=error)


class _Waiter:
    """One thread that waits, and what it is told."""

    def __init__(self) -> None:
        self.told = threading.Event()
        self.news: Mapping[str, Any] = {"kept": True}


class RedisTurns:
    """Turns at keys, taken by at most one process each.

    Args:
        link: the Redis.
        channel: where the end of a turn is announced; `heard` gets what comes there.
        key: returns the name of a key's turn.
        name: of this process in messages.
    """

    def __init__(self, link: RedisLink, channel: str, key: Callable[[str], str], name: str) -> None:
        self._link, self._channel, self._key = link, channel, key
        self._take, self._renew, self._give = link.script(TAKE), link.script(RENEW), link.script(GIVE)
        self.after_fork(name)

    def after_fork(self, name: str) -> None:
        """Forget the turns and the waiting threads of the parent."""
        self._name = name
        self._lock = threading.Lock()  # guards _held, _waiting and _thread
        self._held: dict[str, _Turn] = {}  # of this process
        self._waiting: dict[str, list[_Waiter]] = {}
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()

    def take(self, key: str, timeout: float | None) -> _Turn:
        """Take the turn at `key`, or wait until who has it is done.

        Raises:
            DeadlineExceeded: he is not done within `timeout` seconds.
        """
        waiter = _Waiter()
        with self._lock:
            self._waiting.setdefault(key, []).append(waiter)
        try:
            return self._take_or_wait(key, waiter, None if timeout is None else SYSTEM_CLOCK.now() + timeout)
        except StateUnavailableError:
            return _Turn()
        finally:
            with self._lock:
                waiting = [one for one in self._waiting.get(key, ()) if one is not waiter]
                if waiting:
                    self._waiting[key] = waiting
                else:
                    self._waiting.pop(key, None)

    def _take_or_wait(self, key: str, waiter: _Waiter, until: float | None) -> _Turn:
        name, token = self._key(key), uuid.uuid4().hex
        while True:
            left = self._take([name], [token, int(1000 * LIFE)])
            if left == 0:
                turn = _Turn(mine=True, turns=self, key=key, token=token)
                self._hold(name, turn)
                return turn
            if self._wait(waiter, max(left, 0) / 1000, until):
                return self._outcome(waiter.news)

    def _wait(self, waiter: _Waiter, seconds: float, until: float | None) -> bool:
        """Wait for news, for at most `seconds`; tell whether there are any."""
        end = SYSTEM_CLOCK.now() + seconds
        while not waiter.told.is_set() and self._link.available:
            now = SYSTEM_CLOCK.now()
            if until is not None and now >= until:
                raise DeadlineExceeded("another process's call for the same answer is not done in time")
            if now >= end:
                return False
            waiter.told.wait(min(SLICE, end - now, SLICE if until is None else until - now))
        return waiter.told.is_set()

    def _outcome(self, news: Mapping[str, Any]) -> _Turn:
        error = _read_error(news.get("error"))
        return _Turn(landed=bool(news.get("kept")) and error is None, error=error)

    def heard(self, news: Mapping[str, Any]) -> None:
        """Wake those who wait for the key a message tells of."""
        with self._lock:
            waiting = self._waiting.get(news["turn"], [])
        for waiter in waiting:
            waiter.news = news
            waiter.told.set()

    def missed(self) -> None:
        """Wake everybody: the message may have been among those lost."""
        with self._lock:
            keys = list(self._waiting)
        for key in keys:
            self.heard({"turn": key, "kept": True})

    def give(self, key: str, token: str, *, kept: bool, error: Exception | None) -> None:
        """End a turn and tell; `kept`: those who wait are to look again."""
        name = self._key(key)
        with self._lock:
            held = self._held.get(name)
            if held is not None and held.token == token:
                del self._held[name]
        message = json.dumps({"from": self._name, "turn": key, "kept": kept, "error": _error_data(error)})
        try:
            self._give([name], [token, self._channel, message])
        except StateUnavailableError:
            return  # it ends with its life

    def _hold(self, name: str, turn: _Turn) -> None:
        with self._lock:
            self._held[name] = turn
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._keep_renewing, name="perfkit-turns", daemon=True)
            with suppress(RuntimeError):  # no more threads: the turn lives for LIFE, and the next one tries again
                thread.start()
                self._thread = thread

    def _keep_renewing(self) -> None:
        while True:
            self._wake.wait(LIFE / 3)
            with self._lock:
                if not self._held:
                    self._thread = None
                    return
                held = {name: turn.token for name, turn in self._held.items() if not _lapses(turn)}
            try:
                if held:
                    self._renew(list(held), [int(1000 * LIFE), *held.values()])
            except StateUnavailableError:
                continue


def _lapses(turn: _Turn) -> bool:
    """Tell whether who has a turn rests so long that nobody should wait for him."""
    resting = turn.resting
    return resting is not None and SYSTEM_CLOCK.now() - resting > LIFE


def _error_data(error: Exception | None) -> dict[str, Any] | None:
    """Return one of perfkit's own errors as JSON, None for any other: no class is loaded by name."""
    if not isinstance(error, PerfkitError) or type(error).__name__ not in known_errors.__all__:
        return None
    data = {name: value for name, value in vars(error).items() if isinstance(value, str | int | float | None)}
    return {"type": type(error).__name__, "message": str(error), "data": data}


def _read_error(data: Any) -> Exception | None:
    """Return the error that a message tells of, None where it cannot be read, as of another version."""
    with suppress(Exception):
        if data["type"] in known_errors.__all__:
            error: Exception = getattr(known_errors, data["type"])(data["message"], **data["data"])
            return error
    return None
