"""The router on a simulated day: its own code, unchanged, on a clock that jumps, against modelled providers.

The router is driven as an application drives it, one blocking call after the other, thousands of them side by side.
The two places where it waits for another thread instead of its clock, a bulkhead's queue and a hedged race, are given
the simulated world's queue and events for as long as the simulation runs.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from perfkit.bench.models import Model, Modelled
from perfkit.bench.report import Outcome, Simulation
from perfkit.bench.world import Event, Pool, Queue, World
from perfkit.errors import PerfkitError
from perfkit.metrics import PerformanceTracker
from perfkit.routing import ProviderRouter
from perfkit.values import ChatRequest, finite

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["simulate"]

MODEL = "simulated"
_OFF = {"probe_interval": None}  # probes run on a real thread, which is not of the simulated world


def simulate(  # noqa: PLR0913 - a trace, and what is compared on it
    providers: Sequence[Model],
    strategies: Mapping[str, Any] | Sequence[str],
    *,
    rate: float = 100.0,
    seconds: float = 60.0,
    seed: int = 1,
    timeout: float = 60.0,
    settings: Mapping[str, Any] | None = None,
    arrivals: Sequence[float] | None = None,
) -> Simulation:
    """Run the router with each strategy on the same calls and the same providers, and return what came of it.

    Args:
        providers: the models.
        strategies: names of strategies, or labels with a name, a callable, or a mapping of settings of the router, such
            as {"hedged": {"strategy": "p2c", "hedge": True}}. A callable is made new by `strategy=MyClass`.
        rate: calls a simulated second, at random moments (Poisson).
        seconds: simulated time in which calls begin.
        seed: of the calls, of the durations and of the strategies' own chance.
        timeout: of each call, seconds.
        settings: of the router, for all strategies.
        arrivals: seconds at which calls begin, in the place of `rate` and `seconds`.

    Raises:
        ModuleNotFoundError: the extra `simulate` is not installed.
    """
    labelled = strategies if isinstance(strategies, Mapping) else {name: name for name in strategies}
    moments = list(arrivals) if arrivals is not None else _moments(rate, seconds, seed)
    outcomes: dict[str, list[Outcome]] = {}
    asked: dict[str, dict[str, int]] = {}
    for label, strategy in labelled.items():
        own: dict[str, Any] = dict(strategy) if isinstance(strategy, Mapping) else {"strategy": strategy}
        if isinstance(own.get("strategy"), type):
            own["strategy"] = own["strategy"]()
        day = _Day(providers, {**_OFF, **(settings or {}), **own}, seed, timeout)
        outcomes[label] = day.run(moments)
        asked[label] = {modelled.name: modelled.asked for modelled in day.providers}
    return Simulation(outcomes, asked)


def _moments(rate: float, seconds: float, seed: int) -> list[float]:
    chance = random.Random(seed)
    finite("rate", rate, above=0)
    moments, at = [], chance.expovariate(rate)
    while at < seconds:
        moments.append(at)
        at += chance.expovariate(rate)
    return moments


class _Day:
    """One strategy's run."""

    def __init__(self, models: Sequence[Model], settings: Mapping[str, Any], seed: int, timeout: float) -> None:
        self.world = World()
        self.providers = [Modelled(model, self.world, seed, number) for number, model in enumerate(models)]
        self._seed, self._timeout = seed, timeout
        self._outcomes: list[Outcome] = []
        self._router = ProviderRouter(clock=self.world, tracker=PerformanceTracker(), **settings)
        for modelled in self.providers:
            self._router.register_provider(modelled.name, modelled, **dict(modelled.model.terms))

    def run(self, moments: Sequence[float]) -> list[Outcome]:
        """Return the outcomes of calls that begin at `moments`, in their order."""
        before = random.getstate()
        random.seed(self._seed)
        with _waiting_here(self._router, self.world):
            self.world.spawn(self._arrive, moments)
            self.world.run()
        random.setstate(before)
        self._router.reset()
        return sorted(self._outcomes)

    def _arrive(self, moments: Sequence[float]) -> None:
        for number, at in enumerate(moments):
            self.world.sleep(at - self.world.now())
            self.world.spawn(self._call, number)

    def _call(self, number: int) -> None:
        began = self.world.now()
        request = ChatRequest(_MESSAGES, MODEL, timeout=self._timeout, user=str(number))
        try:
            response = self._router.execute_with_fallback(request)
            quality = (response.raw or {}).get("quality", 1.0)
            told: tuple[Any, ...] = (response.provider, len(response.attempts), quality)
        except PerfkitError as error:
            told = (None, len(error.attempts), 0.0)
        self._outcomes.append(Outcome(began, self.world.now() - began, *told))


_MESSAGES: tuple[dict[str, str], ...] = ({"role": "user", "content": "hi"},)


@contextmanager
def _waiting_here(router: ProviderRouter, world: World) -> Iterator[None]:
    """Let the router's waits for other threads be waits in the world."""
    events = SimpleNamespace(**vars(threading))
    events.Event = lambda: Event(world)
    with ExitStack() as stack:
        for module, name, value in (
            ("perfkit.resilience.bulkhead", "threading", events),
            ("perfkit.routing.hedge", "SimpleQueue", lambda: Queue(world)),
        ):
            if module in sys.modules:
                stack.enter_context(_swapped(sys.modules[module], name, value))
        racer = getattr(router, "_racer", None)
        if racer is not None:
            racer._pool = Pool(world)  # noqa: SLF001 - the threads of its races
        yield


@contextmanager
def _swapped(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
