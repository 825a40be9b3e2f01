"""Whether the answer of a call is known already: the exact question first, then one that means the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from perfkit.caching import request_digest, scoped_key
from perfkit.pipeline.call import Meaning

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit.caching import Cached, Decision, ResponseCache
    from perfkit.caching.entry import Entry
    from perfkit.caching.semantic import Found, Question, SemanticCache
    from perfkit.clock import Clock
    from perfkit.pipeline.call import Call
    from perfkit.values import ChatRequest, ChatResponse

__all__ = ["Known", "meaning_of"]

LONGEST = 1000  # characters of a question: many an embedder reads no more than 256 tokens, and overlooks the rest


def meaning_of(asked: ChatRequest, decision: Decision, *, provider: str | None, target: str | None) -> Meaning | None:
    """Return what of a request a semantic cache looks for; None if its last message is no short question of a user.

    Args:
        asked: the request, with that context only that makes another question.
        decision: whose answer it is.
        provider: the pinned one.
        target: the model a route stands for; None where no route was asked for.
    """
    *before, last = asked.messages
    text = last.get("content")
    plain = last.get("role") == "user" and len(last) == len(("role", "content"))
    if not plain or not isinstance(text, str) or len(text) > LONGEST:
        return None
    rest = asked.evolve(messages=(*before, {"role": "user", "content": ""}))
    digest = request_digest(rest, provider=provider, target=target)
    return Meaning(scoped_key(digest, decision.user, decision.tenant), asked.model, text)


class Known:
    """The caches in front of the providers.

    Args:
        cache: keeps the answers.
        clock: tells how old they are.
    """

    def __init__(self, cache: ResponseCache, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock

    def answer(
        self, call: Call, ask: Callable[[], ChatResponse], again: Callable[[], ChatResponse], timeout: float
    ) -> Cached | Entry:
        """Return the known answer of a call, or ask once for all who want it now.

        Args:
            call: has a key.
            ask: gets the answer from a provider.
            again: the same, in the background, for the next who asks while this one is served a stale answer.
            timeout: seconds to wait for another one who asks the same.
        """
        search = self._search(call)
        if search is not None:
            meant = search.serve()
            if meant is not None:
                return meant
        found = self._cache.fetch(str(call.key), ask, timeout=timeout, refresh=again, **call.life)
        if found.stored_at is None:
            self.landed(search, found.value)
        return found

    def landed(self, search: _Search | None, fresh: ChatResponse) -> None:
        """Tell a search of the answer that a provider gave."""
        if search is not None:
            search.landed(fresh)

    def look(self, call: Call, again: Callable[[], ChatResponse]) -> tuple[Entry | None, _Search | None]:
        """Return the known answer of a call, and the search to tell (`landed`) where it is not."""
        if call.key is None:
            return None, None
        search = self._search(call)
        if search is not None:
            meant = search.serve()
            if meant is not None:
                return meant, None
        return self._cache.lookup(call.key, refresh=again, **call.life), search

    def _search(self, call: Call) -> _Search | None:
        """Begin to look for what means the same, if that is wanted and the exact question is not known."""
        if call.meaning is None or self._cache.peek(str(call.key)) is not None:
            return None
        semantic = _chosen(call.policy.semantic)
        semantic.attend(self._cache)
        question = semantic.ask(*call.meaning)
        return _Search(self._cache, self._clock, semantic, call, question) if question is not None else None


def _chosen(semantic: Any) -> SemanticCache:
    if semantic is not True:
        chosen: SemanticCache = semantic
        return chosen
    from perfkit.caching.semantic import SemanticCache

    return SemanticCache.instance()


class _Match(NamedTuple):
    """What was found, and its answer."""

    found: Found
    answer: ChatResponse


class _Search:
    """One question put to a semantic cache."""

    def __init__(
        self, cache: ResponseCache, clock: Clock, semantic: SemanticCache, call: Call, question: Question
    ) -> None:
        self._cache, self._clock, self._semantic = cache, clock, semantic
        self._call, self._question = call, question
        self._match: _Match | None = None

    def serve(self) -> Entry | None:
        """Return the entry of a question that means the same, if it may be served."""
        found = self._semantic.search(self._question)
        if found is None:
            return None
        entry = self._cache.peek(found.key)
        if entry is None:
            self._semantic.gone(self._question, found)
            return None
        ttl = self._call.decision.ttl
        if ttl is not None and self._clock.wall() - entry.stored_at > ttl:
            return None  # too old for this question, though not for the one it answered
        if found.action == "serve":
            self._semantic.served()
            self._call.by_meaning = True
            return self._cache.lookup(found.key)
        self._match = _Match(found, entry.answer())
        return None

    def landed(self, fresh: ChatResponse) -> None:
        """Remember the question with its answer, and learn from what would have been served in its place."""
        if self._call.unkept:
            return
        like = None
        if self._match is not None:
            found, answer = self._match
            like = found if self._semantic.learn(self._question, found, answer, fresh) else None
        ttl = self._call.decision.ttl
        kept = self._cache.settings.ttl if ttl is None else ttl
        self._semantic.add(self._question, str(self._call.key), like=like, ttl=kept)
