"""Load on providers: cases, each a provider, a model, a set of prompts and a way to send them, one after the other.

A closed loop keeps a number of requests under way: each answer lets the next one go. An open loop sends at random
moments whether or not answers come, as users do; times are then counted from the moment a request was due, so that a
provider that stalls is not spared the requests it held up. All chance comes from the seed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, repeat
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from perfkit.agents import map_bounded
from perfkit.bench.rows import SLOS, row
from perfkit.bench.sampling import Sample, ask
from perfkit.clock import SYSTEM_CLOCK, Clock
from perfkit.values import ChatRequest, finite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["PROMPTS", "Case", "Load", "Terms", "measure", "moments"]

# The AgentiCraft guide's own three (Benchmarking Script).
PROMPTS = ("What is 2+2?", "Explain quantum computing in one sentence", "Write a haiku about programming")
MOST_IN_FLIGHT = 64  # threads of an open loop
_due = attrgetter("due")


@dataclass(frozen=True, slots=True)
class Load:
    """How requests are sent: `concurrency` at a time, or `rate` a second at random moments (Poisson).

    Raises:
        TypeError, ValueError: not exactly one of them is given, or it is out of range.
    """

    concurrency: int | None = None
    rate: float | None = None

    def __post_init__(self) -> None:
        if (self.concurrency is None) == (self.rate is None):
            raise ValueError("a Load has a concurrency or a rate: Load(concurrency=4) or Load(rate=2.5)")
        finite("concurrency", 1 if self.concurrency is None else self.concurrency, least=1)
        finite("rate", 1 if self.rate is None else self.rate, above=0)

    @property
    def in_flight(self) -> int:
        """Requests that may be under way."""
        return MOST_IN_FLIGHT if self.concurrency is None else self.concurrency

    def __str__(self) -> str:
        return f"{self.concurrency} at a time" if self.rate is None else f"{self.rate:g} a second"


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured as one row.

    Attributes:
        name: of the provider, as it is shown.
        provider: an object with `stream(request)` or `chat_completion(request)`.
        model: to ask for.
        prompts: asked in turns.
        load: how.
        set_name: of the prompts, as it is shown.
    """

    name: str
    provider: Any = field(repr=False)
    model: str
    prompts: Sequence[str] = PROMPTS
    load: Load = Load(concurrency=1)
    set_name: str = "default"

    def __str__(self) -> str:
        return f"{self.name}/{self.model}, {self.set_name} prompts, {self.load}"


@dataclass(frozen=True, slots=True)
class Terms:
    """What is the same for all cases.

    Attributes:
        requests: measured ones of each case.
        warm_up: requests sent before for each that will be under way at a time (one of an open loop), not counted.
        max_tokens: of an answer.
        temperature: None leaves it to the provider.
        timeout: seconds of each request.
        seed: of the order of prompts, the moments of an open loop, and the marks of `unique`.
        unique: begin each prompt with a mark, so that no provider has it in its prefix cache.
        slos: most milliseconds by key, of SLOS; a request that keeps all of them is good.
    """

    requests: int = 30
    warm_up: int = 1
    max_tokens: int = 128
    temperature: float | None = 0.0
    timeout: float = 60.0
    seed: int = 1
    unique: bool = False
    slos: Mapping[str, float] = field(default_factory=SLOS.copy)


def moments(rate: float, number: int, seed: int) -> list[float]:
    """Return `number` ascending moments (seconds) of a Poisson process of `rate` a second."""
    chance = random.Random(seed)
    return list(accumulate(chance.expovariate(rate) for _ in range(number)))


def measure(
    cases: Sequence[Case],
    *,
    terms: Terms | None = None,
    clock: Clock | None = None,
    progress: Callable[[Case, int], Any] | None = None,
) -> list[dict[str, Any]]:
    """Run the cases one after the other and return a row of figures for each; docs/bench.md tells the keys.

    Args:
        cases: what to measure.
        terms: what all have in common; None means Terms().
        clock: None means the system's.
        progress: called with the case and the number of its requests that have ended.

    Raises:
        TypeError, ValueError: a prompt or a term cannot be sent.
    """
    settled = terms if terms is not None else Terms()
    time = clock if clock is not None else SYSTEM_CLOCK
    return [_measured(case, settled, time, progress) for case in cases]


def _measured(case: Case, terms: Terms, clock: Clock, progress: Callable[[Case, int], Any] | None) -> dict[str, Any]:
    rate, places = case.load.rate, case.load.concurrency or 1
    warm_up = terms.warm_up * places
    asked = _requests(case, terms, warm_up + terms.requests)
    list(_samples(case, clock, [(request, None) for request in asked[:warm_up]], places))
    dues: Any = repeat(None) if rate is None else moments(rate, terms.requests, terms.seed)
    told = None if progress is None else partial(progress, case)
    began = clock.now()
    samples = _samples(case, clock, list(zip(asked[warm_up:], dues, strict=False)), case.load.in_flight, told)
    return row(case, sorted(samples, key=_due), elapsed=clock.now() - began, slos=terms.slos)


def _samples(
    case: Case, clock: Clock, items: list[Any], threads: int, progress: Callable[[int], Any] | None = None
) -> Iterator[Sample]:
    """Yield samples as they are made, since one that hangs must not hold up those to be sent after it."""
    work = partial(_one, case, clock, clock.now())
    done = map_bounded(work, items, threads, ordered=False, progress=progress, fail_fast=True)
    return (result.value for result in done if result.value is not None)


def _one(case: Case, clock: Clock, began: float, item: tuple[ChatRequest, float | None]) -> Sample:
    request, due = item
    if due is None:
        due = clock.now() - began
    else:
        clock.sleep(max(0.0, began + due - clock.now()))
    return ask(case.provider, request, clock=clock, began=began, due=due)


def _requests(case: Case, terms: Terms, number: int) -> list[ChatRequest]:
    chance = random.Random(terms.seed)
    order = [place % len(case.prompts) for place in range(number)]
    chance.shuffle(order)
    texts = [case.prompts[place] for place in order]
    if terms.unique:
        texts = [f"[{chance.getrandbits(48):012x}] {text}" for text in texts]
    fixed: dict[str, Any] = {
        "temperature": terms.temperature,
        "max_tokens": terms.max_tokens,
        "timeout": terms.timeout,
        "agent": "bench",
    }
    return [ChatRequest(text, case.model, **fixed) for text in texts]
