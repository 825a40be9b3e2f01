"""Blobs as the fields of one hash in Redis, for processes on several hosts."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from perfkit._registry import load
from perfkit.errors import StateUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["Link", "RedisStore"]

_KEPT = 40 * 86_400  # seconds after the last write until Redis forgets all
_TURN = 10_000  # milliseconds until a folder that stays silent has lost its turn
_COMMIT = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
return 1
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


class Link(Protocol):
    """What is needed of `perfkit.state.RedisLink`."""

    def key(self, *parts: object) -> str:
        """Return the name of a key."""
        ...

    def call(self, *command: Any) -> Any:
        """Send one command and return its reply."""
        ...


class RedisStore:
    """Keeps blobs in the application's Redis.

    Args:
        link: None means the one that `[state] url` configures.
    """

    def __init__(self, link: Link | None = None) -> None:
        self._given = link

    def _link(self) -> Link:
        if self._given is None:
            self._given = load("perfkit.state:StateHub").instance().redis
        if self._given is None:
            raise StateUnavailableError('metrics.store is "redis", so state.url must say where it is')
        return self._given

    def names(self) -> list[str]:
        """Return the names of all blobs."""
        link = self._link()
        return [name.decode() for name in link.call("HKEYS", link.key("metrics"))]

    def read(self, names: Sequence[str]) -> list[bytes | None]:
        """Return blobs, None in the place of those that are gone."""
        link = self._link()
        found: list[bytes | None] = link.call("HMGET", link.key("metrics"), *names) if names else []
        return found

    def write(self, name: str, data: bytes) -> None:
        """Keep a blob."""
        link = self._link()
        link.call("HSET", link.key("metrics"), name, data)
        link.call("EXPIRE", link.key("metrics"), _KEPT)

    def remove(self, names: Iterable[str]) -> None:
        """Forget blobs, also those that are gone."""
        link, gone = self._link(), list(names)
        if gone:
            link.call("HDEL", link.key("metrics"), *gone)

    @contextmanager
    def folding(self) -> Iterator[Callable[[str, bytes], bool] | None]:
        """Keep others from folding for at most 10 s; who takes longer cannot commit any more."""
        link, token = self._link(), os.urandom(8).hex()
        turn = link.key("metrics", "folding")
        if link.call("SET", turn, token, "NX", "PX", _TURN) is None:
            yield None
            return

        def commit(name: str, data: bytes) -> bool:
            return bool(link.call("EVAL", _COMMIT, 2, link.key("metrics"), turn, token, name, data))

        try:
            yield commit
        finally:
            with suppress(OSError):  # then it runs out by itself
                link.call("EVAL", _RELEASE, 1, turn, token)

    def __repr__(self) -> str:
        return "RedisStore()"
