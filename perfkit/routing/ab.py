"""A/B tests between providers: who gets which is computed, not stored, and a difference is said only when it is one.

A user's arm is a stable hash of the test's name and the user, so it is the same in every worker and after every
restart, and no list of users grows. What is kept are the moments of each arm: count, mean, variance; with a Redis in
`[state]` those of all workers.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from perfkit import _process
from perfkit._process import background
from perfkit.clock import SYSTEM_CLOCK, Clock
from perfkit.errors import StateUnavailableError, UnknownNameError
from perfkit.routing.sequential import Comparison, Moments, compare
from perfkit.values import finite

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit.routing.quality import Score
    from perfkit.state import RedisLink
    from perfkit.values import ChatRequest, ChatResponse

__all__ = ["ABTest"]

METRICS = ("response_time", "quality_score", "cost", "error_rate")
KEPT = 90 * 86_400  # seconds after the last result until Redis forgets what a worker told
TOLD_EVERY = 2.0  # seconds between what the other workers are told
_SPACE = 2**64
Snapshot = Mapping[str, Mapping[str, Mapping[str, Any]]]


class ABTest:
    """One test; made by `ProviderRouter.ab`.

    Args:
        name: of the test; part of what users are assigned by, so that two tests do not share their halves.
        arms: arm to the name of its provider; the first one is the measure of the others.
        shares: arm to its part of the users, in any unit; None shares evenly.
        router: the ProviderRouter that `execute` asks.
        alpha: how often a difference may be seen where there is none, all looks and arms together.
        clock: None means the system's.
        link: returns the Redis through which workers share results, None for none.

    Raises:
        TypeError, ValueError: there are fewer than two arms, or shares of other arms or not above 0.
    """

    def __init__(  # noqa: PLR0913 - wired by the router
        self,
        name: str,
        arms: Mapping[str, str],
        shares: Mapping[str, float] | Sequence[float] | None = None,
        *,
        router: Any,
        alpha: float = 0.05,
        clock: Clock | None = None,
        link: Callable[[], RedisLink | None] = lambda: None,
    ) -> None:
        if not isinstance(arms, Mapping) or len(arms) < 2:  # noqa: PLR2004 - one arm is no test
            raise ValueError(f"a test needs two arms or more, as {{'A': 'openai', 'B': 'anthropic'}}, not {arms!r}")
        self.name, self.arms, self.alpha = name, dict(arms), alpha
        self.shares = _shares(self.arms, shares)
        self._ends = list(accumulate(share * _SPACE for share in self.shares.values()))
        self._router = router
        self._clock = clock if clock is not None else SYSTEM_CLOCK
        self._pooled = _Pooled(name, link)
        self._lock = threading.Lock()  # guards the moments in _seen, and _told
        self._begin()
        _process.bind(self)

    def _begin(self) -> None:
        self._seen = {arm: {metric: Moments() for metric in METRICS} for arm in self.arms}
        self._told = True  # whether Redis has all of it

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._pooled._after_fork()
        self._begin()  # what was recorded is the parent's to tell

    def close(self) -> None:
        """Tell the other workers what they do not know yet."""
        self._tell()

    def _tell(self) -> None:
        if not self._told:
            self._everything()

    # --- who gets which

    def assign(self, user: object) -> str:
        """Return the arm of a user: always the same one, in every process."""
        digest = hashlib.blake2b(f"{self.name}\0{user}".encode(), digest_size=8).digest()
        place = int.from_bytes(digest, "big")
        return next((arm for arm, end in zip(self.arms, self._ends, strict=True) if place < end), [*self.arms][-1])

    def provider(self, user: object) -> str:
        """Return the name of the user's provider, for `perfkit.chat(..., provider=...)`."""
        return self.arms[self.assign(user)]

    def execute(self, request: ChatRequest, user: object = None, *, score: Score | None = None) -> ChatResponse:
        """Ask the user's provider, once and no other, and record how it went.

        Args:
            request: what is asked.
            user: whose arm counts; None means the request's `user`.
            score: callable(request, response) -> 0..1, how good the answer is; see `perfkit.routing.quality`.

        Raises:
            PerfkitError: of the provider; it is recorded, too.
        """
        user = user if user is not None else request.user
        arm, began = self.assign(user), self._clock.now()
        try:
            response: ChatResponse = self._router.execute_with_fallback(
                request, provider=self.arms[arm], max_attempts=1
            )
        except Exception:
            self.record(user, error=True)
            raise
        cost = self._router.get_request_cost(self.arms[arm], response.usage, response.model)
        seconds = self._clock.now() - began
        self.record(user, response_time=seconds, cost=cost, quality=score(request, response) if score else None)
        return response

    # --- how it went

    def record(
        self,
        user: object,
        *,
        response_time: float | None = None,
        quality: float | None = None,
        cost: float | None = None,
        error: bool | None = None,
    ) -> None:
        """Take one result of a user; what is not known is left out.

        Args:
            user: whose arm it belongs to; need not have been assigned before.
            response_time: seconds. With it the call counts as one that succeeded.
            quality: 0..1; may come later, by itself.
            cost: dollars.
            error: whether the call failed.
        """
        failed = error if error is not None else False if response_time is not None else None
        values = (response_time, quality, cost, None if failed is None else float(failed))
        told = {
            metric: finite(metric, value) for metric, value in zip(METRICS, values, strict=True) if value is not None
        }
        seen = self._seen[self.assign(user)]
        with self._lock:
            for metric, value in told.items():
                seen[metric].add(value)
            first, self._told = self._told, False
        if first and self._pooled.shared:
            background.every(TOLD_EVERY, self._tell)
            background.ensure()

    def results(self) -> dict[str, dict[str, Any]]:
        """Return for each arm RecoAgent's keys and more; None where nothing was recorded.

        Keys: avg_response_time (seconds), avg_quality_score, provider, sample_size (calls, failed ones included),
        avg_cost (dollars), error_rate (0..1), intervals (bounds of each mean that hold at all looks together).
        """
        return {arm: self._result(arm, seen) for arm, seen in self._everything().items()}

    def _everything(self) -> dict[str, dict[str, Moments]]:
        """Return what all workers recorded, having told them what this one did."""
        with self._lock:
            self._told = True
        own = self.snapshot()
        everything = _moments(own)
        for others in self._pooled.exchange(own):
            _add(everything, others)
        return everything

    def _result(self, arm: str, seen: Mapping[str, Moments]) -> dict[str, Any]:
        means = {metric: moments.mean if moments.count else None for metric, moments in seen.items()}
        return {
            "avg_response_time": means["response_time"],
            "avg_quality_score": means["quality_score"],
            "provider": self.arms[arm],
            "sample_size": seen["error_rate"].count,
            "avg_cost": means["cost"],
            "error_rate": means["error_rate"],
            "intervals": {metric: moments.interval(self.alpha) for metric, moments in seen.items()},
        }

    def compare(self, metric: str = "response_time") -> dict[str, Comparison]:
        """Return how each further arm differs from the first; may be asked at any time, as often as one likes.

        Args:
            metric: "response_time", "quality_score", "cost" or "error_rate".

        Raises:
            UnknownNameError: it is another one.
        """
        if metric not in METRICS:
            raise UnknownNameError.of("metric of a test", metric, METRICS)
        first, *others = self.arms
        alpha, events = self.alpha / len(others), metric == "error_rate"  # Bonferroni: all arms together
        seen = self._everything()
        measure = seen[first][metric]
        return {arm: compare(measure, seen[arm][metric], alpha=alpha, events=events) for arm in others}

    # --- over several workers

    def snapshot(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return what was recorded in this process, in JSON types, for another one's `merge`."""
        with self._lock:
            return {
                arm: {metric: asdict(moments) for metric, moments in seen.items()} for arm, seen in self._seen.items()
            }

    def merge(self, snapshot: Snapshot) -> None:
        """Add what another process recorded, where no Redis does it; arms that are not of this test are passed over."""
        with self._lock:
            _add(self._seen, snapshot)

    def __repr__(self) -> str:
        told = ", ".join(f"{arm} {seen['error_rate'].count}" for arm, seen in self._seen.items())
        return f"<ABTest {self.name!r}: {told}>"


class _Pooled:
    """The results of one test in one Redis hash, with a field for each worker.

    A worker's field is written whole and over what it was, so a lost reply or a second try counts nothing twice. What a
    worker that is gone has told stays.

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


def _moments(snapshot: Snapshot) -> dict[str, dict[str, Moments]]:
    return {arm: {metric: Moments(**of) for metric, of in seen.items()} for arm, seen in snapshot.items()}


def _add(seen: Mapping[str, Mapping[str, Moments]], snapshot: Snapshot) -> None:
    for arm in seen.keys() & snapshot.keys():
        for metric, moments in seen[arm].items():
            moments.merge(Moments(**snapshot[arm].get(metric, {})))


def _shares(arms: Mapping[str, str], given: Mapping[str, float] | Sequence[float] | None) -> dict[str, float]:
    """Return each arm's part of 1."""
    if given is None:
        given = [1.0] * len(arms)
    if not isinstance(given, Mapping):
        if len(given) != len(arms):
            raise ValueError(f"{len(arms)} arms need {len(arms)} shares, not {len(given)}")
        given = dict(zip(arms, given, strict=True))
    if given.keys() != arms.keys():
        raise ValueError(f"shares are of {', '.join(given)}, arms are {', '.join(arms)}")
    total = sum(finite(f"share of {arm!r}", given[arm], above=0) for arm in arms)
    return {arm: given[arm] / total for arm in arms}
