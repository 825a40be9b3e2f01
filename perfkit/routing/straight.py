"""The way of a call when all is well, written out: somebody is chosen, asked, and answers.

A `Call`, which knows what to do when something goes wrong, is made only when it does. Most of a router's time is spent
here, where the caches of the processor are cold from the provider's own work, so that what counts is how little is
touched: half as many instructions took a third of the time.
"""

from __future__ import annotations

import sys
from threading import get_ident
from typing import TYPE_CHECKING

from perfkit.metrics.operations import operations
from perfkit.routing import audit
from perfkit.routing.attempts import Call
from perfkit.routing.course import Options, Setup, latencies
from perfkit.routing.strategies import named
from perfkit.routing.streams import checked
from perfkit.routing.trial import Trial
from perfkit.values import Attempt

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit.metrics import PerformanceTracker
    from perfkit.routing.health import Candidate
    from perfkit.routing.trial import Reserve
    from perfkit.values import ChatRequest, ChatResponse

__all__ = ["straight"]


def straight(
    setup: Setup,
    request: ChatRequest,
    offers: list[Candidate],
    now: float,
    reserve: Reserve | None,
    tracker: Callable[[], PerformanceTracker],
) -> ChatResponse | Call:
    """Return the answer to a plain request, or the call to go on with: it has failed once, or is not so plain.

    Args:
        setup: of the router.
        request: what is asked; raises what the attempt raises, where nobody else is to be asked after it.
        offers: who may be asked; not changed.
        now: monotonic second.
        reserve: holds money for the attempt.
        tracker: returns what gets the metrics.
    """
    trial = _first(setup, request, offers, now)
    if trial is None:
        return Call(setup, request, offers, tracker(), Options(reserve=reserve), now)
    candidate, model, thread = trial.candidate, request.model, get_ident()
    name = candidate.name
    try:
        if reserve is not None:
            trial.reserve(reserve)
        operations.open[trial] = "provider", name, thread, now
        response = checked(candidate.provider.chat_completion(trial.request), name)
    except BaseException as error:
        call = Call(setup, request, offers, tracker(), Options(reserve=reserve), now)
        if not call.take_over(trial, error):
            raise
        return call
    finally:
        operations.open.pop(trial, None)
    end = setup.clock.now()
    seconds = end - now
    operations.finished.append(("provider", name, thread, now, end))
    candidate.served(trial.permit, request, response, seconds, end)
    (candidate.handles.get(model) or latencies(candidate, model, tracker())).record(seconds)
    if setup.learn is not None:
        setup.learn(candidate, trial.request, seconds, response, None)
    setup.retries.earn()
    attempt = Attempt.made(name, model, trial.began_wall, seconds, "ok", None, trial.reason)
    if audit.TRACE in sys.modules:
        audit.note(attempt)
    if trial.hold is not None:
        response = response.evolve(**trial.hold.settle(response) or {})
    return response.but((attempt,), name)


def _first(setup: Setup, request: ChatRequest, offers: list[Candidate], now: float) -> Trial | None:
    """Begin an attempt, if nothing is to be said against anybody."""
    for one in offers:
        if one.clouded > now or one.breaker.permit is None:
            return None
    settings, others = setup.settings, len(offers) > 1
    if others:
        if request.metadata and "warm_provider" in request.metadata:
            return None
        wanted = setup.pick(offers[:], request)
        chosen = wanted if wanted in offers else named(setup.strategy, offers, wanted)
        reason, others = setup.reason(chosen), settings.max_attempts > 1
    else:
        chosen, reason = offers[0], "only candidate"
    permit = chosen.enter(now)
    if permit is None:
        return None
    left = request.timeout
    if left is None:
        left = settings.timeout
    sent = request.but(setup.share(left, others=others))
    return Trial(chosen, permit, sent, reason, setup.clock, now)
