"""The semantic cache: whether a question that means the same was answered already, and how sure that is.

It holds questions and their vectors; the answers stay in the ResponseCache (in Redis or wherever that keeps them) and
are found by the exact key. An answer that has left it is never served from here.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from perfkit._shared import Shared
from perfkit.caching.matching import Match as Invalidation
from perfkit.caching.semantic.bound import ErrorBound, Evidence, upper_bound
from perfkit.caching.semantic.embedders import Embed, make_embedder
from perfkit.caching.semantic.guards import disagreement
from perfkit.caching.semantic.index import unit
from perfkit.caching.semantic.sharing import LEARNED, Ground, Sharing, ground_of, identity_of, packed, unpacked
from perfkit.caching.semantic.store import Match, Questions
from perfkit.metrics import PerformanceTracker

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit.caching.response import ResponseCache
    from perfkit.caching.semantic.index import Vector
    from perfkit.values import ChatResponse

    Judge = Callable[[ChatResponse, ChatResponse], bool]

__all__ = ["Found", "Question", "SemanticCache", "same_text"]

log = logging.getLogger("perfkit.caching")
CARE = 2.0  # how many times more is verified where the evidence is just enough


class Question(NamedTuple):
    """A question as it is looked for."""

    partition: str  # all that must be the same
    route: str  # whose error bound it belongs to
    text: str
    vector: Vector


class Found(NamedTuple):
    """A match, and what to do with it.

    Its `action` is "serve" the answer; "verify" it, by asking all the same and comparing; or "learn", which is the same
    for a match that would not have been served, at the price of the comparison only.
    """

    match: Match
    action: Literal["serve", "verify", "learn"]

    @property
    def key(self) -> str:
        """The exact key of the answer."""
        return self.match.answer.key


def same_text(cached: ChatResponse, fresh: ChatResponse) -> bool:
    """Tell whether two answers are equal but for case and white space: the strictest judge, and the default."""
    return cached.text.casefold().split() == fresh.text.casefold().split()


class SemanticCache(Shared):
    """Finds questions that mean the same as one asked before. Off unless a policy or route says `semantic`.

    Without `max_error_rate` a match is served when its similarity is at least `threshold` and every guard agrees.
    With it, `threshold` is not used: what may be served is learned from verified matches, so that at most that share of
    what is served is wrong; until a few hundred are verified, nothing is served.

    Args:
        embed: texts to vectors; None means the `embedder` of the settings.
        judge: `judge(cached, fresh)` tells whether two answers say the same; None compares their texts, which takes
            every rewording for a wrong answer: safe, but little is served. What it raises counts as wrong.
        tracker: None means the shared one.
        rng: chooses what is verified; None means one of its own.
        **settings: keys of the `[semantic]` table.
    """

    _table = "semantic"

    def __init__(
        self,
        *,
        embed: Embed | None = None,
        judge: Judge | None = None,
        tracker: PerformanceTracker | None = None,
        rng: random.Random | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(settings)
        self._given, self._judge, self._tracker = embed, judge, tracker
        self._rng = rng if rng is not None else random.Random()
        self._embed: Embed | None = embed
        self._questions = Questions(self.settings.max_entries)
        self._cache: ResponseCache | None = None
        self._sharing: Sharing | None = None
        self._ground: Ground | None = None
        self._identity = identity_of(self.settings, embed, judge)
        self._renew()
        self._forget()

    def _renew(self) -> None:
        self._lock = threading.Lock()  # guards _bounds, _counts, _cost, _told and _dimensions
        self._moving = threading.Lock()  # guards the change of _cache, _ground and _sharing

    def _forget(self) -> None:
        self._bounds: dict[str, ErrorBound] = {}
        self._counts: Counter[str] = Counter()
        self._cost = 0.0
        self._told: set[type[Exception]] = set()
        self._dimensions: int | None = None

    def _apply(self) -> None:
        self._questions.max_entries = self.settings.max_entries
        if self._given is None:
            self._embed = None
            self._empty()  # vectors of two embedders cannot be compared
        self._identity = identity_of(self.settings, self._given, self._judge)
        with self._lock:
            for bound in self._bounds.values():
                bound.aim(self.settings.max_error_rate or bound.max_error_rate)

    def _after_fork(self) -> None:
        self._renew()
        whole = self._questions.renew()
        for bound in self._bounds.values():
            bound.renew()
        if not whole and self._sharing is not None:
            self._bounds = {}  # all of it is in the log
            self._sharing.begin_again()

    def use(self, *, embed: Embed | None = None, judge: Judge | None = None) -> None:
        """Take another embedder or judge from now on; a new embedder begins without questions."""
        if embed is not None:
            self._given = self._embed = embed
            self._empty()
        if judge is not None:
            self._judge = judge
        self._identity = identity_of(self.settings, self._given, self._judge)

    def attend(self, cache: ResponseCache) -> None:
        """Lead to the answers of this cache, the first one that asks, and share what is learned where it says so."""
        ground = ground_of(self._cache if self._cache is not None else cache, self._identity)
        if ground == self._ground and self._cache is not None:
            return
        with self._moving:
            if self._cache is None:
                self._cache = cache
                cache.shelf.watch(self._departed)
            if ground != self._ground:
                self._move(ground)

    def _move(self, ground: Ground | None) -> None:
        if self._sharing is not None:
            self._leave()
        self._ground = ground
        if ground is not None:
            self._sharing = ground.sharing(self._take, most=self.settings.max_entries)
            self._sharing.start()

    def _leave(self) -> None:
        """Share no more, and forget what came from there: it is read again where the sharing goes on."""
        sharing, self._sharing, self._ground = self._sharing, None, None
        if sharing is not None:
            sharing.end()
        self._empty()
        with self._lock:
            self._bounds = {}

    def _departed(self, match: Invalidation) -> None:
        """Forget the questions whose answers the application has made invalid, everywhere."""
        self._questions.drop(match)
        if self._sharing is not None:
            self._sharing.drop(match)

    def _take(self, record: dict[str, Any]) -> None:
        """Learn what another process has."""
        partition = record["partition"]
        if "drop" in record:
            self._questions.drop(Invalidation(partition))
        elif "text" in record:
            vector = unpacked(record["vector"])
            if self._dimensions in (None, len(vector)) and self._ground is not None and self._ground.answers:
                self._questions.add(partition, record["text"], vector, record["key"], like=record["like"])
        else:
            evidence, right = Evidence(*record["evidence"]), record["right"]
            if self.settings.max_error_rate is not None:
                self._bound(record["route"]).learn(evidence, right=right, risk=record["risk"])
            self._questions.judge(partition, record["key"], evidence.similarity, right=right)

    def ask(self, partition: str, route: str, text: str) -> Question | None:
        """Return a question ready to be looked for; None when it has no vector: it is then asked as without a cache."""
        try:
            if self._embed is None:
                self._embed = make_embedder(self.settings.embedder, self.settings.embedder_options)
            vector = unit(self._embed([text])[0], self._dimensions)
        except Exception as error:
            self._tell(error)
            return None
        self._dimensions = len(vector)
        return Question(partition, route, text, vector)

    def _tell(self, error: Exception) -> None:
        kind = type(error)
        with self._lock:
            known = kind in self._told
            self._told.add(kind)
        self._count("semantic_error")
        if not known:
            log.warning("questions are answered without the semantic cache: %s: %s", kind.__name__, error)

    def search(self, question: Question) -> Found | None:
        """Return the nearest known question that every guard lets pass, and what to do with it."""
        least = self.settings.threshold if self.settings.max_error_rate is None else self.settings.explore
        for match in self._questions.matches(question.partition, question.text, question.vector, least):
            guard = disagreement(question.text, match.text)
            if guard is None:
                return Found(match, self._action(question, match))
            self._count("semantic_refused", {"guard": guard})
        return None

    def _action(self, question: Question, match: Match) -> Literal["serve", "verify", "learn"]:
        settings = self.settings
        if settings.max_error_rate is None:
            trusted = match.evidence.similarity > match.answer.worst
        else:
            own = match.evidence.similarity > match.answer.worst or match.answer.right > match.answer.wrong
            trusted = own and self._is_up_to_date() and self._bound(question.route).trusts(match.evidence)
        if not trusted:
            return "learn"
        verified = settings.shadow or self._rng.random() < settings.verify * self._care(question.route)
        if settings.shadow:
            self._count("semantic_shadow")
        return "verify" if verified else "serve"

    def _care(self, route: str) -> float:
        """Return how many times more often than usual a match is verified: the less sure, the more."""
        return 1.0 if self.settings.max_error_rate is None else 1 + CARE * self._bound(route).doubt

    def _is_up_to_date(self) -> bool:
        """Tell whether all that other processes had learned when this one began is known here."""
        return self._sharing is None or self._sharing.ready

    def _bound(self, route: str) -> ErrorBound:
        with self._lock:
            found = self._bounds.get(route)
            if found is None:
                found = self._bounds[route] = ErrorBound(self.settings.max_error_rate, window=self.settings.window)
            return found

    def served(self) -> None:
        """Count that an answer was served."""
        self._count("semantic_hit")

    def gone(self, question: Question, found: Found) -> None:
        """Forget an answer that the exact cache no longer has."""
        self._questions.forget(question.partition, found.match.answer)

    def learn(self, question: Question, found: Found, cached: ChatResponse, fresh: ChatResponse) -> bool:
        """Compare what was or would have been served with a fresh answer, and learn from it; tell whether it was right.

        The judge runs without any lock held; the cost of second calls is counted in `semantic_verification_cost`.
        """
        right, (match, key) = self._judged(cached, fresh), (found.match, found.key)
        risk = 0.0
        if self.settings.max_error_rate is not None:
            bound = self._bound(question.route)
            risk = bound.risk(match.evidence)
            bound.learn(match.evidence, right=right, risk=risk)
        self._questions.judge(question.partition, key, match.evidence.similarity, right=right)
        if self._sharing is not None:
            told = {"partition": question.partition, "key": key, "evidence": list(match.evidence)}
            self._sharing.tell({**told, "route": question.route, "risk": risk, "right": right}, life=LEARNED)
        self._count("semantic_judged", {"right": str(right).lower()})
        if found.action == "verify":
            self._count("semantic_verified", {"right": str(right).lower()})
            self._pay(fresh.cost)
        return right

    def _pay(self, cost: float | None) -> None:
        if cost and not self.settings.shadow:  # in shadow mode the call would have been made anyway
            with self._lock:
                self._cost += cost
            self._shared_tracker().record_metric("semantic_verification_cost", cost)

    def _judged(self, cached: ChatResponse, fresh: ChatResponse) -> bool:
        try:
            return bool((self._judge if self._judge is not None else same_text)(cached, fresh))
        except Exception as error:
            self._tell(error)
            return False

    def add(self, question: Question, key: str, *, like: Found | None = None, ttl: float = LEARNED) -> None:
        """Remember a question and the exact key of its answer.

        Args:
            question: what was asked.
            key: where its answer is kept.
            like: a match verified to be right: the question stands for the same answer, which is now this one.
            ttl: seconds that the answer is kept.
        """
        partition, text, other = question.partition, question.text, None if like is None else like.key
        self._questions.add(partition, text, question.vector, key, like=other)
        if self._sharing is not None and self._ground is not None and self._ground.answers:
            told = {"partition": partition, "text": text, "vector": packed(question.vector), "key": key, "like": other}
            self._sharing.tell(told, life=ttl)

    def _count(self, name: str, tags: dict[str, str] | None = None) -> None:
        with self._lock:
            self._counts[":".join((name, *(tags.values() if tags is not None else ())))] += 1
        self._shared_tracker().increment(name, tags=tags)

    def _shared_tracker(self) -> PerformanceTracker:
        if self._tracker is None:
            self._tracker = PerformanceTracker.instance()
        return self._tracker

    def stats(self) -> dict[str, Any]:
        """Return what was served, verified and refused, the rate of wrong answers, and what each route has learned.

        `wrong_rate` is that of verified matches that were, or in shadow mode would have been, served;
        `wrong_rate_bound` is above the true rate with a confidence of 95 %; `verification_cost` is in US dollars.
        """
        with self._lock:
            counts, cost, bounds = dict(self._counts), self._cost, dict(self._bounds)
        wrong = counts.get("semantic_verified:false", 0)
        verified = wrong + counts.get("semantic_verified:true", 0)
        return {
            "questions": len(self._questions),
            "served": counts.get("semantic_hit", 0),
            "would_serve": counts.get("semantic_shadow", 0),
            "verified": verified,
            "wrong": wrong,
            "wrong_rate": wrong / verified if verified else None,
            "wrong_rate_bound": upper_bound(wrong, verified),
            "verification_cost": cost,
            "refused": {k.split(":")[1]: n for k, n in counts.items() if k.startswith("semantic_refused:")},
            "errors": counts.get("semantic_error", 0),
            "routes": {route: bound.stats() for route, bound in bounds.items()},
        }

    def clear(self) -> None:
        """Forget all questions, in all processes that share them; what was learned about similarity stays."""
        self._departed(Invalidation("chat:*"))
        self._empty()

    def _empty(self) -> None:
        self._questions.clear()
        with self._lock:
            self._dimensions = None

    def close(self) -> None:
        """Tell the others what they do not know yet."""
        if self._sharing is not None:
            self._sharing.close()

    def reset(self) -> None:
        """Forget questions, counts and all that was learned here; what is shared is read again."""
        self._leave()
        with self._lock:
            self._forget()

    def __len__(self) -> int:
        return len(self._questions)

    def __repr__(self) -> str:
        served = self._counts["semantic_hit"]
        return f"SemanticCache({len(self)} questions, {served} served, shadow={self.settings.shadow})"
