"""What all workers of an A/B test have recorded, in one Redis hash with a field for each worker.

A worker's field is written whole and over what it was, so a lost reply or a second try counts nothing twice. What a
worker that is gone has told stays.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from perfkit.errors import StateUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from perfkit.state import RedisLink

__all__ = ["Pooled"]

KEPT = 90 * 86_400  # seconds after the last result


class Pooled:
    """The results of one test in Redis.

    Args:
        name: of the test.
        link: returns the Redis to share through, None for none.
    """

    def __init__(self, name: str, link: Callable[[], RedisLink | None]) -> None:
        self._name, self._link = name, link
        self._after_fork()

    def _after_fork(self) -> None:
        self._me = f"{os.getpid()}-{os.urandom(6).hex()}"

    @property
    def shared(self) -> bool:
        """Whether there is a Redis to share through."""
        return self._link() is not None

    def exchange(self, own: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Write what this worker has recorded, and return what the others have; nothing while Redis is away."""
        link = self._link()
        if link is None:
            return []
        key = link.key("ab", self._name)
        commands = [("HSET", key, self._me, json.dumps(own)), ("EXPIRE", key, KEPT), ("HGETALL", key)]
        try:
            everybody = link.pipeline(commands)[2]
        except StateUnavailableError:
            return []
        pairs = everybody.items() if isinstance(everybody, dict) else zip(everybody[::2], everybody[1::2], strict=True)
        return [json.loads(part) for worker, part in pairs if worker != self._me.encode()]
