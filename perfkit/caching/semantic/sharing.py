"""One semantic cache in many processes: what one learns the others learn too, and a new one begins with all of it.

Each process writes what it learns to a log (see `logs`) and reads there what the others wrote, on the background thread
and never in a call: a question may be known elsewhere half a second later. While the log is away each goes on with what
it knows, and tells the others afterwards. Records are in the envelope of the cache's backends, encrypted where those
are, and name their log, so that none is taken for another's.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import threading
import uuid
from collections import OrderedDict, deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from perfkit import _process
from perfkit.caching.codec import Codec
from perfkit.caching.entry import Entry, Life, keep
from perfkit.caching.semantic.logs import log_in
from perfkit.clock import SYSTEM_CLOCK
from perfkit.errors import StateUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit._settings import CacheSettings, SemanticSettings
    from perfkit.caching.matching import Match
    from perfkit.caching.response import ResponseCache
    from perfkit.caching.semantic.index import Vector
    from perfkit.caching.semantic.logs import Log, Place
    from perfkit.clock import Clock
    from perfkit.state import RedisLink, SqliteFile

    Record = dict[str, Any]

__all__ = ["LEARNED", "Ground", "Sharing", "ground_of", "identity_of", "packed", "unpacked"]

log = logging.getLogger("perfkit.caching")

LEARNED = 30 * 86_400.0  # seconds that what was learned says something
EVERY = 0.5  # seconds between two looks
PATIENCE = 1.0  # seconds to wait for another thread that sends
AT_ONCE = 200  # records in one command
BUSY = 0.1  # seconds of reading after which the rest waits for the next look
UNSENT = 10_000  # records kept while the log is away
AUTHORS = 4096  # processes whose last record is remembered


class Sharing:
    """What one process knows of a log, and has to tell it.

    Args:
        to: the log.
        codec: writes and reads its envelopes.
        clock: tells the age of records.
        name: of the log.
        take: called with each record of another process, in the order they were written.
        most: records that the log keeps.
    """

    def __init__(
        self, to: Log, codec: Codec, clock: Clock, *, name: str, take: Callable[[Record], None], most: int
    ) -> None:
        self._log, self._codec, self._clock = to, codec, clock
        self._key, self._take, self._most = f"semantic:{name}", take, most
        self._unsent: deque[bytes] = deque(maxlen=UNSENT)
        self._erasing: deque[Match] = deque()
        self._heard: OrderedDict[str, int] = OrderedDict()  # the last record of each author
        self._renew()
        self.begin_again()
        _process.bind(self)

    def _renew(self) -> None:
        self._lock = threading.Lock()  # guards _unsent, _erasing and _told
        self._reading = threading.Lock()  # held by the one thread that reads and sends
        self._name, self._told = uuid.uuid4().hex, 0

    def _after_fork(self) -> None:
        self._heard[self._name] = self._told  # what the parent learned until now is known here
        self._renew()
        self._unsent.clear()  # the parent sends it
        self._erasing.clear()

    def begin_again(self) -> None:
        """Read the log from its beginning: what was known of it is lost."""
        self._place: Place = self._log.start
        self._heard = OrderedDict()
        self.ready = False  # whether it was read to its end once, or cannot be

    def start(self) -> None:
        """Begin to read and send; asking again makes sure of the thread, in a forked child too."""
        _process.background.every(EVERY, self.sync)

    def tell(self, record: Record, *, life: float) -> None:
        """Let the others know, within a second.

        Args:
            record: a JSON value.
            life: seconds after which it says nothing any more.
        """
        with self._lock:
            self._told += 1
            whole = {**record, "by": self._name, "n": self._told}
            now, wall = self._clock.now(), self._clock.wall()
            entry = Entry(self._key, keep(whole), Life(life), now=now, stored_at=wall)
            self._unsent.append(self._codec.encode(entry))
        _process.background.ensure()

    def drop(self, match: Match) -> None:
        """Have all forget the questions of some partitions, and remove them from the log."""
        with self._lock:
            self._erasing.append(match)
        self.tell({"drop": True, "partition": match.wanted}, life=LEARNED)

    def sync(self) -> None:
        """Send what is to be told, and take what the others have; what the log cannot take now it gets later."""
        if not self._reading.acquire(blocking=False):
            return
        try:
            self._send()
            self._erase()
            self._read()
        except StateUnavailableError:
            self.ready = True  # nothing to wait for
        finally:
            self._reading.release()

    def _send(self) -> None:
        while self._unsent:
            with self._lock:
                some = list(self._unsent)[:AT_ONCE]
            self._log.append(some, self._most)
            with self._lock:
                for _ in some:
                    self._unsent.popleft()

    def _read(self) -> None:
        begun = self._clock.now()
        self.ready &= self._place != self._log.start
        while rows := self._log.read(self._place, AT_ONCE):
            for place, data in rows:
                self._hear(data)
                self._place = place
            if len(rows) < AT_ONCE:
                break
            if self._clock.now() - begun > BUSY:
                return
        self.ready = True

    def _hear(self, data: bytes) -> None:
        record = self._record(data)
        if record is None:
            return
        by, number = record["by"], record["n"]
        if by == self._name or number <= self._heard.get(by, 0):  # sent twice, when its first answer was lost
            return
        self._heard[by] = number
        self._heard.move_to_end(by)
        if len(self._heard) > AUTHORS:
            self._heard.popitem(last=False)
        try:
            self._take(record)
        except Exception:
            log.debug("a record of another process is passed over", exc_info=True)

    def _record(self, data: bytes) -> Record | None:
        entry = self._codec.decode(self._key, data)
        record = None if entry is None else entry.value
        known = isinstance(record, dict) and isinstance(record.get("by"), str) and isinstance(record.get("n"), int)
        return record if known else None

    def _erase(self) -> None:
        while self._erasing:
            match, place = self._erasing[0], self._log.start
            while rows := self._log.read(place, AT_ONCE):
                self._log.remove([at for at, data in rows if self._is_of(data, match)])
                place = rows[-1][0]
            with self._lock:
                self._erasing.popleft()

    def _is_of(self, data: bytes, match: Match) -> bool:
        record = self._record(data)
        return record is not None and "text" in record and match.covers(str(record.get("partition")), frozenset())

    def close(self) -> None:
        """Send what is left to tell, unless that is under way."""
        if self._reading.acquire(timeout=PATIENCE):
            try:
                with suppress(StateUnavailableError):
                    self._send()
            finally:
                self._reading.release()

    def end(self) -> None:
        """Send what is left, and neither send nor read any more."""
        _process.background.cancel(self.sync)
        self.close()


def packed(vector: Vector) -> str:
    """Return a vector as text, at half its precision: no cosine changes by more than 0.001."""
    return base64.b85encode(vector.astype("<f2").tobytes()).decode()


def unpacked(text: str) -> Vector:
    """Return what `packed` was given, roughly, with length 1.

    Raises:
        ValueError: it is no such text.
    """
    import numpy as np

    from perfkit.caching.semantic.index import unit

    return unit(np.frombuffer(base64.b85decode(text), dtype="<f2").astype(np.float32))


@dataclass(frozen=True, slots=True)
class Ground:
    """Where something is shared, and how it is written there."""

    link: RedisLink | SqliteFile
    name: str
    answers: bool  # whether the answers are shared too: questions are of no use without
    form: tuple[Any, ...] = field(repr=False)  # what of the settings shows in the envelope
    settings: CacheSettings = field(repr=False, compare=False)

    def sharing(self, take: Callable[[Record], None], *, most: int) -> Sharing:
        """Return what keeps a process in step with the others."""
        codec, name = Codec.of(self.settings, SYSTEM_CLOCK), self.name
        return Sharing(log_in(self.link, name), codec, SYSTEM_CLOCK, name=name, take=take, most=most)


def ground_of(cache: ResponseCache, identity: str | None) -> Ground | None:
    """Return where what is learned about a cache's answers is shared; None: nowhere.

    Args:
        cache: the answers.
        identity: of who learns; None if he cannot be told from others.
    """
    link = cache.shelf.link
    if link is None or identity is None:
        return None
    settings = cache.settings
    name = hashlib.sha256(f"{settings.generation}\n{identity}".encode()).hexdigest()[:32]
    form = (settings.compression, settings.compress_above, settings.encryption_key, settings.max_bytes)
    return Ground(link, name, cache.shelf.far is not None, form, settings)


def identity_of(settings: SemanticSettings, embed: object, judge: object) -> str | None:
    """Return what tells semantic caches apart whose vectors or judgements do not go together, None for unknown.

    That is their configured name; else the embedder and the judge, if these are functions that can be named.
    """
    if settings.name:
        return "name " + settings.name
    names = [_name_of(embed), _name_of(judge)]
    if None in names:
        return None
    options = {name: repr(value) for name, value in settings.embedder_options.items() if name != "api_key"}
    return json.dumps([settings.embedder, options, *names], sort_keys=True)


def _name_of(call: object) -> str | None:
    """Return where a function stands, "" for None; no name for one of a script, or that is made anew with each use."""
    if call is None:
        return ""
    name, module = getattr(call, "__qualname__", None), call.__module__
    known = name is not None and "<" not in name and module != "__main__" and not hasattr(call, "__self__")
    return f"{module}.{name}" if known else None
