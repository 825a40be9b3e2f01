"""What a caller may say about caching: the named policies, and CachePolicy with all that can be chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from perfkit.values import finite

if TYPE_CHECKING:
    from perfkit.values import ChatRequest

__all__ = ["CachePolicy"]


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How a call uses the cache; `cache="always"` is `CachePolicy()`, "never" is `CachePolicy(exact=False)`.

    Args:
        exact: keep the answer and serve it to the same question again.
        scope: whose the answer is: "user", "tenant" (of `context["tenant"]`) or "public"; None means the user's if one
            is given, else public.
        ttl: seconds; None means the kind's own under the smart rules, else the cache's.
        smart: decide by the rules of `perfkit.caching.freshness` whether to keep it at all.
        cacheable: under the smart rules, keep answers whatever the temperature.
        semantic: where the exact question is not known, look for one that means the same: True takes the shared
            semantic cache, or give one of your own. Needs `exact`.
        stale_ttl: seconds after `ttl` during which the old answer is served while a new one is fetched.
        context: names of the call's context that make another question; None means all but the ones that only identify
            an occasion (`perfkit.caching.keys.IGNORED_CONTEXT`).
        time_bucket: seconds; questions of one bucket share an answer, those of the next do not (UTC; 21600 gives the
            night, morning, afternoon and evening of RAAF guide 3.3).

    Raises:
        TypeError, ValueError: one of them is not what it has to be.
    """

    exact: bool = True
    scope: Literal["user", "tenant", "public"] | None = None
    ttl: float | None = None
    smart: bool = False
    cacheable: bool | None = None
    semantic: Any = False
    stale_ttl: float | None = None
    context: tuple[str, ...] | None = None
    time_bucket: float | None = None

    def __post_init__(self) -> None:
        for name in ("exact", "smart", "cacheable"):
            value = getattr(self, name)
            if not isinstance(value, bool) and not (name == "cacheable" and value is None):
                raise TypeError(f"{name} must be True or False, not {value!r}")
        if self.scope not in (None, "user", "tenant", "public"):
            raise ValueError(f"scope must be 'user', 'tenant', 'public' or None, not {self.scope!r}")
        for name in ("ttl", "stale_ttl", "time_bucket"):
            if getattr(self, name) is not None:
                finite(name, getattr(self, name), above=0)
        self._check_semantic()
        self._check_context()

    def _check_semantic(self) -> None:
        if not isinstance(self.semantic, bool) and not hasattr(self.semantic, "search"):
            raise TypeError(f"semantic must be True, False or a SemanticCache, not {self.semantic!r}")
        if self.semantic is not False and not self.exact:
            raise ValueError("semantic needs exact=True: what means the same is served from what was kept exactly")

    def _check_context(self) -> None:
        if self.context is None:
            return
        names: Any = self.context
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"context must be several names, as in ('location',), not {names!r}")
        object.__setattr__(self, "context", tuple(names))

    @property
    def by_context(self) -> bool:
        """Whether chosen context, not all of it, makes the question."""
        return self.context is not None or self.time_bucket is not None

    @classmethod
    def of(cls, cache: CachePolicy | str) -> CachePolicy:
        """Return the policy called "smart", "always" or "never", or the policy itself.

        Raises:
            ValueError: there is no such policy.
        """
        if isinstance(cache, CachePolicy):
            return cache
        if not isinstance(cache, str) or cache not in _NAMED:
            raise ValueError(f"cache must be {', '.join(map(repr, _NAMED))} or a CachePolicy, not {cache!r}")
        return _NAMED[cache]


PolicyOf = Callable[["ChatRequest"], CachePolicy | str]  # a caller's own policy
_NAMED = {"smart": CachePolicy(smart=True), "always": CachePolicy(), "never": CachePolicy(exact=False)}
