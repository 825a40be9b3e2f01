"""Comparing providers on real traffic: A/B tests and mirrors of a router."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from perfkit.errors import UnknownNameError
from perfkit.routing.ab import ABTest
from perfkit.routing.catalogue import Catalogue
from perfkit.routing.mirror import Mirror

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perfkit.values import ChatRequest, ChatResponse

__all__ = ["Experiments"]


class Experiments(Catalogue):
    """The experiments that run on a router."""

    _tests: Mapping[str, tuple[Any, ABTest]] = {}  # by name, with the words each was asked for in
    _mirrors: tuple[Mirror, ...] = ()  # replaced, never changed: read without a lock

    def ab(
        self,
        name: str,
        arms: Mapping[str, str],
        shares: Mapping[str, float] | Sequence[float] | None = None,
        *,
        alpha: float = 0.05,
    ) -> ABTest:
        """Return a test of providers against each other; asked again in the same words, the same one.

        Users are assigned alike in every worker, and with a Redis in `[state]` the results are those of all workers.

        Args:
            name: of the test.
            arms: arm to the name of its provider; the first one is the measure of the others.
            shares: arm to its part of the users, in any unit; None shares evenly.
            alpha: how often a difference may be seen where there is none, over all looks and arms together.

        Raises:
            UnknownNameError: there is no such provider.
            ValueError: there are fewer than two arms, or the shares do not fit them.
        """
        words = (dict(arms), shares if not isinstance(shares, Mapping) else dict(shares), alpha)
        with self._lock:
            known = self._tests.get(name)
        if known is not None and known[0] == words:
            return known[1]
        made = ABTest(name, arms, shares, router=self, alpha=alpha, clock=self._clock, link=self._sharing.link)
        for provider in made.arms.values():
            self._named(provider)
        with self._lock:
            known = self._tests.get(name)
            if known is None or known[0] != words:
                known = (words, made)
                self._tests = {**self._tests, name: known}
        return known[1]

    def mirror(
        self,
        provider: str,
        share: float = 0.01,
        *,
        budget: float | None = None,
        on_result: Callable[[ChatRequest, ChatResponse, ChatResponse | Exception], None] | None = None,
    ) -> Mirror:
        """Send a share of the answered requests to `provider` too, for comparison; the callers do not wait for it.

        Args:
            provider: name of the shadow.
            share: 0..1 of the requests.
            budget: dollars a day for the shadow's answers; None bounds nothing.
            on_result: called with request, given answer, and the shadow's answer or error, in the mirror's thread.

        Raises:
            UnknownNameError: there is no such provider.
        """
        self._named(provider)
        made = Mirror(provider, share=share, budget=budget, on_result=on_result, router=self, clock=self._clock)
        with self._lock:
            self._mirrors = (*self._mirrors, made)
        return made

    def stop_mirror(self, mirror: Mirror) -> None:
        """End a mirror; what waits is dropped.

        Raises:
            UnknownNameError: it is not one of this router's.
        """
        with self._lock:
            if mirror not in self._mirrors:
                raise UnknownNameError.of("mirror", repr(mirror), map(repr, self._mirrors))
            self._mirrors = tuple(one for one in self._mirrors if one is not mirror)
        mirror.close()

    def _mirrored(self, request: ChatRequest, response: ChatResponse) -> ChatResponse:
        """Offer an answered request to the mirrors, and return the answer."""
        for mirror in self._mirrors:
            mirror.offer(request, response)
        return response

    def _forget(self) -> None:
        super()._forget()
        with self._lock:
            mirrors, self._mirrors = self._mirrors, ()
            self._tests = {}
        for mirror in mirrors:
            mirror.close()
