"""Answers in Redis or Valkey, behind the memory of each process: two tiers, kept in step by messages.

What one process stores, removes or clears it announces, and the others drop their copies; where messages may have been
missed they drop all. While Redis is away nobody waits for it (see perfkit.state) and each process lives on its memory.

Every value begins with the epoch it was written in, a random word under a key of its own. `clear` changes the word, and
no older value is read any more; should Redis evict the word, none is either. No command here looks at keys that are not
ours but SCAN, which asks for our prefix, and nothing but our keys is ever removed.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from typing import TYPE_CHECKING, Any

from perfkit import _process
from perfkit.caching.backends.turns import RedisTurns
from perfkit.caching.matching import Match
from perfkit.clock import SYSTEM_CLOCK
from perfkit.errors import ConfigError
from perfkit.state import RedisLink, StateHub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perfkit.caching.backends import Setup
    from perfkit.caching.entry import Entry

__all__ = ["RedisBackend"]

AT_ONCE = 500  # keys in one SCAN or UNLINK: well below a millisecond of the server's time
EPOCH = 32  # characters
PATIENCE = 0.2  # seconds at most; a server that is away or silent is known to be so after half of it

# KEYS: epoch, entry, tags...   ARGV: new epoch, value, milliseconds, key, channel, message
PUT = """
local epoch = redis.call('GET', KEYS[1])
if not epoch then epoch = ARGV[1]; redis.call('SET', KEYS[1], epoch) end
redis.call('SET', KEYS[2], epoch .. ARGV[2], 'PX', ARGV[3])
for i = 3, #KEYS do
    redis.call('SADD', KEYS[i], ARGV[4])
    if redis.call('PTTL', KEYS[i]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[i], ARGV[3]) end
end
redis.call('PUBLISH', ARGV[5], ARGV[6])
"""


class RedisBackend:
    """The `redis` backend of the cache."""

    announces = True

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        url = setup.settings.url
        self._own = None if url is None else RedisLink(url, tracker=setup.tracker)
        self._link: RedisLink | None = None
        self._stop: Callable[[], None] | None = None
        self._after_fork()
        _process.bind(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards the change of _link
        self._subscribed = threading.Event()
        self._name = uuid.uuid4().hex  # of this process in messages
        if self._link is not None:
            self._turns.after_fork(self._name)

    def _listening(self) -> RedisLink:
        """Return the link, once what others announce is heard here."""
        link = self._own if self._own is not None else StateHub.instance().redis
        if link is None:
            raise ConfigError('the cache backend "redis" needs [cache] url or [state] url = "redis://<host>"')
        if self._link is not link:
            self._take(link)
        if not self._subscribed.is_set():
            self._await_subscription(link)
        return link

    def _take(self, link: RedisLink) -> None:
        with self._lock:
            if self._link is link:
                return
            self._turns = RedisTurns(link, self._channel(link), lambda key: self._key(link, "turn", key), self._name)
            self._put, self._link = link.script(PUT), link
        self._stop = link.subscribe(self._channel(link), self._heard, self._missed)

    def _await_subscription(self, link: RedisLink) -> None:
        """Wait, once: what begins before the subscription would count as overtaken when it comes."""
        end = SYSTEM_CLOCK.now() + PATIENCE
        while link.available and SYSTEM_CLOCK.now() < end and not self._subscribed.wait(PATIENCE / 20):
            pass
        if link.available:
            self._subscribed.set()

    def listen(self) -> None:
        """Hear of what others change."""
        self._listening()

    @property
    def turns(self) -> RedisTurns | None:
        """One computation per key among all processes."""
        self._listening()
        return self._turns

    def _key(self, link: RedisLink, kind: str, name: str = "") -> str:
        return link.key("cache", self._setup.settings.generation, kind, name)

    def _channel(self, link: RedisLink) -> str:
        return self._key(link, "news")

    def get(self, key: str) -> Entry | None:
        """Return what is kept and not gone."""
        link = self._listening()
        epoch, value = link.call("MGET", self._key(link, "epoch"), self._key(link, "entry", key))
        if epoch is None or value is None or not value.startswith(epoch):
            return None
        return self._setup.codec.decode(key, value[EPOCH:])

    def put(self, entry: Entry) -> None:
        """Keep an entry, and tell the others that theirs is old."""
        link = self._listening()
        tags = [self._key(link, "tag", tag) for tag in entry.tags]
        self._put(
            [self._key(link, "epoch"), self._key(link, "entry", entry.key), *tags],
            [
                uuid.uuid4().hex,
                self._setup.codec.encode(entry),
                max(1, int(1000 * entry.life.whole)),
                entry.key,
                self._channel(link),
                self._news(gone=entry.key, exact=True),
            ],
        )

    def delete(self, key: str) -> bool:
        """Remove one key and tell whether it was there."""
        link = self._listening()
        removed = link.call("UNLINK", self._key(link, "entry", key))
        self._tell(link, gone=key, exact=True)
        return bool(removed)

    def invalidate(self, match: Match) -> int:
        """Remove what matches, and return how many."""
        link = self._listening()
        tag = self._key(link, "tag", match.wanted)
        found = {member.decode() for member in link.call("SMEMBERS", tag)}
        found.update(name for name in self._names(link) if match.covers(name, frozenset()))
        removed = self._unlink(link, [self._key(link, "entry", name) for name in found if _is_tagged(name, match)])
        link.call("UNLINK", tag)
        self._tell(link, gone=match.wanted, exact=False)
        return removed

    def _names(self, link: RedisLink) -> Iterable[str]:
        """Yield the keys of all entries; SCAN, so that nobody else waits for this."""
        prefix, cursor = self._key(link, "entry"), b"0"
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", prefix) + "*"
        while True:
            cursor, names = link.call("SCAN", cursor, "MATCH", pattern, "COUNT", AT_ONCE)
            for name in names:
                yield name.decode("utf-8", "surrogatepass").removeprefix(prefix)
            if int(cursor) == 0:
                return

    def _unlink(self, link: RedisLink, keys: list[str]) -> int:
        chunks = [keys[start : start + AT_ONCE] for start in range(0, len(keys), AT_ONCE)]
        return sum(link.call("UNLINK", *chunk) for chunk in chunks)

    def clear(self) -> None:
        """Make all entries unreadable; they end with their time."""
        link = self._listening()
        link.call("SET", self._key(link, "epoch"), uuid.uuid4().hex)
        self._tell(link, all=True)

    def count(self) -> None:
        """Counting would mean to look at every key."""

    def _news(self, **what: Any) -> str:
        return json.dumps({"from": self._name, **what})

    def _tell(self, link: RedisLink, **what: Any) -> None:
        link.publish(self._channel(link), self._news(**what))

    def _heard(self, message: bytes) -> None:
        news = json.loads(message)
        if news.get("from") == self._name:
            return
        if "turn" in news:
            self._turns.heard(news)
        elif "all" in news:
            self._setup.departed(None)
        else:
            self._setup.departed(Match(news["gone"], exact=news["exact"]))

    def _missed(self) -> None:
        self._setup.departed(None)
        self._turns.missed()
        self._subscribed.set()

    def close(self) -> None:
        """End the subscription, and the connections that are the cache's own."""
        stop, self._stop, self._link = self._stop, None, None
        if stop is not None:
            stop()
        if self._own is not None:
            self._own.close()


def _is_tagged(name: str, match: Match) -> bool:
    """Tell whether a key may be removed by this match: answers of models only by globs that say so."""
    return match.covers(name, frozenset({match.wanted}))
