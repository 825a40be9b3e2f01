"""Which of an application's processes watches, and what it has seen: one seat, and the notes left on it.

Every worker could evaluate the rules, and then every alert would be told as often as there are workers. So the watcher
holds a lock (a file's, which the kernel lets go of when the process dies, or a key in Redis, which expires), and writes
the alerts' states down before it tells anybody: whoever takes the seat next goes on from there.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from perfkit.errors import StateUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    from perfkit.state import RedisLink

__all__ = ["FileSeat", "LocalSeat", "RedisSeat", "Seat"]


class Seat(Protocol):
    """The right to evaluate; used by one thread at a time."""

    def take(self) -> bool:
        """Return whether this process has it now."""
        ...

    def read(self) -> dict[str, Any] | None:
        """Return the notes, None when there are none."""
        ...

    def write(self, notes: dict[str, Any]) -> None:
        """Replace the notes."""
        ...

    def leave(self) -> None:
        """Give it up."""
        ...

    def renew(self) -> None:
        """Forget, in a forked child, that the parent has it."""
        ...


class LocalSeat:
    """For one process alone."""

    def __init__(self) -> None:
        self._notes: dict[str, Any] | None = None

    def take(self) -> bool:
        """Return True."""
        return True

    def read(self) -> dict[str, Any] | None:
        """Return the notes."""
        return self._notes

    def write(self, notes: dict[str, Any]) -> None:
        """Keep the notes."""
        self._notes = notes

    def leave(self) -> None:
        """Nobody else waits for it."""

    def renew(self) -> None:
        """Forget the parent's notes."""
        self._notes = None


class FileSeat:
    """For the processes of one host: a locked file, and the notes beside it.

    Args:
        directory: shared by them; made if it is not there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock: int | None = None  # descriptor of the locked file

    def take(self) -> bool:
        """Return whether this process has the lock; a disk that fails counts as no."""
        if self._lock is not None:
            return True
        with suppress(OSError):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._directory / "alerts.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
            else:
                self._lock = descriptor
        return self._lock is not None

    def read(self) -> dict[str, Any] | None:
        """Return the notes; torn or foreign ones count as none."""
        try:
            return _notes((self._directory / "alerts.json").read_bytes())
        except OSError:
            return None

    def write(self, notes: dict[str, Any]) -> None:
        """Replace the notes in one step."""
        made = self._directory / f"alerts.{os.getpid()}.tmp"
        with suppress(OSError):
            made.write_text(json.dumps(notes))
            made.replace(self._directory / "alerts.json")

    def leave(self) -> None:
        """Unlock the file."""
        if self._lock is not None:
            descriptor, self._lock = self._lock, None
            os.close(descriptor)

    def renew(self) -> None:
        """Close the descriptor; the parent's own keeps the lock."""
        self.leave()


_TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_LEAVE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class RedisSeat:
    """For the processes of all hosts; while Redis is away, one process of each host takes its place.

    Args:
        link: to Redis.
        ttl: seconds after which the seat of a process that does not renew it is free.
        meanwhile: the seat used while Redis is away.
    """

    def __init__(self, link: RedisLink, ttl: float, meanwhile: Seat) -> None:
        self._link = link
        self._ttl = max(1, int(ttl * 1000))
        self._meanwhile = meanwhile
        self._keys = [link.key("alerts", "seat"), link.key("alerts", "notes")]
        self.renew()

    def take(self) -> bool:
        """Return whether this process has the key, or the host's seat while Redis is away."""
        try:
            taken = self._link.script(_TAKE)(keys=self._keys[:1], args=[self._token, self._ttl])
        except StateUnavailableError:
            return self._meanwhile.take()
        self._meanwhile.leave()
        return bool(taken)

    def read(self) -> dict[str, Any] | None:
        """Return the notes."""
        try:
            found = self._link.call("GET", self._keys[1])
        except StateUnavailableError:
            return self._meanwhile.read()
        return _notes(found) if found is not None else None

    def write(self, notes: dict[str, Any]) -> None:
        """Replace the notes; they are kept for a day."""
        self._meanwhile.write(notes)
        with suppress(StateUnavailableError):
            self._link.call("SET", self._keys[1], json.dumps(notes), "EX", 86400)

    def leave(self) -> None:
        """Give the key up."""
        self._meanwhile.leave()
        with suppress(StateUnavailableError):
            self._link.script(_LEAVE)(keys=self._keys[:1], args=[self._token])

    def renew(self) -> None:
        """Be another process than the parent."""
        self._token = uuid.uuid4().hex
        self._meanwhile.renew()


def _notes(data: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(data)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
