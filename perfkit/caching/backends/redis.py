"""Answers in Redis or Valkey, behind the memory of each process: two tiers, kept in step by messages.

What one process stores, removes or clears it announces, and the others drop their copies; where messages may have been
missed they drop all. While Redis is away nobody waits for it (see perfkit.state) and each process lives on its memory.

Every value begins with the epoch it was written in, a random word under a key of its own. `clear` changes the word, and
no older value is read any more; should Redis evict the word, none is either. An index, a sorted set by the time when
entries are gone, names all of them and their tags, so that an invalidation looks at nothing else in the database.
Should Redis evict it or the set of a tag, the word changes: what nobody can find to invalidate must not be served. No
command here looks at keys that are not ours, and nothing but our keys is ever removed.
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
    from collections.abc import Callable, Iterator

    from perfkit.caching.backends import Setup
    from perfkit.caching.entry import Entry

__all__ = ["RedisBackend"]

AT_ONCE = 500  # names in one ZSCAN or UNLINK: well below a millisecond of the server's time
EPOCH = 32  # characters
LARGEST = 8 * 2**20  # bytes of a value: a tenth of a second of a gigabit network, and of everybody's time
PATIENCE = 0.2  # seconds at most; a server that is away or silent is known to be so after half of it

# KEYS: epoch, index, entry, tags...   ARGV: new epoch, value, milliseconds, key, channel, message, tags...
PUT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = now + tonumber(ARGV[3])
local epoch = redis.call('GET', KEYS[1])
if not epoch or not redis.call('ZSCORE', KEYS[2], '') then
    epoch = ARGV[1]
    redis.call('SET', KEYS[1], epoch)
    redis.call('ZADD', KEYS[2], 'inf', '')
end
redis.call('SET', KEYS[3], epoch .. ARGV[2], 'PX', ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZADD', KEYS[2], ends, ARGV[4])
for i = 4, #KEYS do
    redis.call('SADD', KEYS[i], ARGV[4])
    if redis.call('PTTL', KEYS[i]) < tonumber(ARGV[3]) then
        redis.call('PEXPIRE', KEYS[i], ARGV[3])
        redis.call('ZADD', KEYS[2], ends, 'tag:' .. ARGV[i + 3])
    end
end
redis.call('PUBLISH', ARGV[5], ARGV[6])
"""

# KEYS: index, tag   ARGV: the tag's name in the index   Returns the tag's entries, or false where some are unknown.
TAGGED = """
if not redis.call('ZSCORE', KEYS[1], '') then return false end
if redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('EXISTS', KEYS[2]) == 0 then
    local time = redis.call('TIME')
    local ends = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]))
    if ends > time[1] * 1000 + math.floor(time[2] / 1000) then return false end
end
return redis.call('SMEMBERS', KEYS[2])
"""


class RedisBackend:
    """The `redis` backend of the cache."""

    announces = True

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        url = setup.settings.url
        timeout = StateHub.instance().settings.timeout
        self.own = None if url is None else RedisLink(url, timeout=timeout, tracker=setup.tracker)
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
        link = self.own if self.own is not None else StateHub.instance().redis
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
            self._put, self._tagged, self._link = link.script(PUT), link.script(TAGGED), link
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
        """Keep an entry, and tell the others that theirs is old; one that would hold up everybody stays in memory."""
        link, value = self._listening(), self._setup.codec.encode(entry)
        if len(value) > LARGEST:
            self.delete(entry.key)
            return
        tags = sorted(entry.tags)
        keys = [self._key(link, "epoch"), self._key(link, "index"), self._key(link, "entry", entry.key)]
        self._put(
            [*keys, *(self._key(link, "tag", tag) for tag in tags)],
            [
                uuid.uuid4().hex,
                value,
                max(1, int(1000 * entry.life.whole)),
                entry.key,
                self._channel(link),
                self._news(gone=entry.key, exact=True),
                *tags,
            ],
        )

    def delete(self, key: str) -> bool:
        """Remove one key and tell whether it was there."""
        link = self._listening()
        removed = self._remove(link, [key])
        self._tell(link, gone=key, exact=True)
        return bool(removed)

    def invalidate(self, match: Match) -> int:
        """Remove what matches, and return how many; first of all nobody is to keep what he computes now."""
        link = self._listening()
        self._tell(link, gone=match.wanted, exact=False)
        tag = self._key(link, "tag", match.wanted)
        tagged = self._tagged([self._key(link, "index"), tag], ["tag:" + match.wanted])
        removed = 0
        if tagged is None:
            self._renew(link)
        else:
            found = {_text(member) for member in tagged}
            found.update(name for name in self._names(link, match) if match.covers(name, frozenset()))
            removed = self._remove(link, [name for name in found if _is_tagged(name, match)])
            link.call("UNLINK", tag)
        self._tell(link, gone=match.wanted, exact=False)
        return removed

    def _names(self, link: RedisLink, match: Match) -> Iterator[str]:
        """Yield the keys of entries that may match; little by little, so that nobody else waits for this."""
        literal = re.split(r"[*?\[]", match.wanted, maxsplit=1)[0].replace("\\", "\\\\").replace("]", "\\]")
        cursor = b"0"
        while True:
            cursor, found = link.call(
                "ZSCAN", self._key(link, "index"), cursor, "MATCH", f"*{literal}*", "COUNT", AT_ONCE
            )
            names = (_text(name) for name, _ in found)
            yield from (name for name in names if name and not name.startswith("tag:"))
            if int(cursor) == 0:
                return

    def _remove(self, link: RedisLink, names: list[str]) -> int:
        removed = 0
        for start in range(0, len(names), AT_ONCE):
            some = names[start : start + AT_ONCE]
            removed += link.call("UNLINK", *(self._key(link, "entry", name) for name in some))
            link.call("ZREM", self._key(link, "index"), *some)
        return removed

    def _renew(self, link: RedisLink) -> None:
        """Make all entries unreadable; they end with their time."""
        link.call("UNLINK", self._key(link, "index"))
        link.call("SET", self._key(link, "epoch"), uuid.uuid4().hex)

    def clear(self) -> None:
        """Make all entries unreadable."""
        link = self._listening()
        self._renew(link)
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
        if self.own is not None:
            self.own.close()


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")


def _is_tagged(name: str, match: Match) -> bool:
    """Tell whether a key may be removed by this match: answers of models only by globs that say so."""
    return match.covers(name, frozenset({match.wanted}))
