"""What the routers of several processes tell one another: whose circuit opened, who is to be left alone, who is back.

News goes out through a Redis channel, so that siblings know at once; beside it a key that expires with the news tells
those who start later, or have missed something. Times travel as seconds that are left, so clocks need not agree. While
Redis is away every process goes by what it sees itself.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from perfkit.errors import StateUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perfkit.routing.health import Candidate
    from perfkit.state import RedisLink, StateHub

__all__ = ["Sharing"]

KINDS = ("open", "cooldown")  # what lasts, and is kept for those who come later


class Sharing:
    """News of one router to and from its siblings.

    Args:
        link: to share through; None means that of the shared StateHub, if one is configured.
        named: returns the candidate of a name, None if there is none.
        everybody: returns all candidates.
    """

    def __init__(
        self,
        link: RedisLink | None,
        named: Callable[[str], Candidate | None],
        everybody: Callable[[], Iterable[Candidate]],
    ) -> None:
        self._given, self._named, self._everybody = link, named, everybody
        self._hub: StateHub | None = None
        self._after_fork()

    def _after_fork(self) -> None:
        self._me = f"{os.getpid()}-{os.urandom(4).hex()}"
        self._lock = threading.Lock()  # guards _listening
        self._listening: RedisLink | None = None

    def link(self) -> RedisLink | None:
        """Return the connection to share through, None for none."""
        if self._given is not None:
            return self._given
        if self._hub is None:
            from perfkit.state import StateHub

            self._hub = StateHub.instance()
        return self._hub.redis

    def listen(self) -> None:
        """Hear what siblings tell from now on, and learn what lasts; does nothing when it hears already."""
        link = self.link()
        if link is None or link is self._listening:
            return
        with self._lock:
            if link is self._listening:
                return
            self._listening = link
        with suppress(StateUnavailableError):
            link.subscribe(link.key("health"), self._heard, on_gap=self._catch_up)

    def tell(self, name: str, kind: str, seconds: float = 0.0, model: str | None = None) -> None:
        """Tell siblings that provider `name` is "open", in "cooldown" or lacks a `model` for `seconds`, or "closed"."""
        link = self.link()
        if link is None:
            return
        news = json.dumps({"from": self._me, "name": name, "kind": kind, "seconds": seconds, "model": model})
        with suppress(StateUnavailableError):
            if kind in KINDS and seconds > 0:
                link.call("SET", link.key("health", name, kind), self._me, "PX", int(seconds * 1000) + 1)
            elif kind == "closed":
                link.call("DEL", link.key("health", name, "open"))
            link.publish(link.key("health"), news)

    def _heard(self, message: bytes) -> None:
        news: dict[str, Any] = json.loads(message)
        candidate = self._named(news["name"])
        if candidate is not None and news["from"] != self._me:
            candidate.learn(news["kind"], float(news["seconds"]), news["model"])

    def _catch_up(self) -> None:
        link = self._listening
        if link is None:
            return
        asked = [(candidate, kind) for candidate in self._everybody() for kind in KINDS]
        with suppress(StateUnavailableError):
            left = link.pipeline([("PTTL", link.key("health", candidate.name, kind)) for candidate, kind in asked])
            for (candidate, kind), milliseconds in zip(asked, left, strict=True):
                if milliseconds > 0:
                    candidate.learn(kind, milliseconds / 1000)
