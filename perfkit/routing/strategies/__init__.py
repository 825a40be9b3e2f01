"""How one of several usable providers is chosen: by name from `STRATEGIES`, or by any callable.

A strategy is called with the candidates (two or more) and what was asked, a ChatRequest or whatever
`route_request` was given, and returns the candidate it wants, its name, or several of them with the best first. A class
in the registry is constructed once for each router, so it may keep state. It may say why in `reason(candidate)`, take
the router's settings in `configure(settings)`, and hear what came of each attempt in
`learn(candidate, request, seconds, response, score)`, where the response is None for a failure. Candidates with little
room left in their limits are kept from it for a growing part of the calls, unless it says `heeds_room = True`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from perfkit._registry import Registry, load
from perfkit.errors import ConfigError

if TYPE_CHECKING:
    from perfkit.routing.health import Candidate

__all__ = ["STRATEGIES", "Strategy", "called", "choose", "model_of", "named", "reasons", "strategy_named", "text_of"]

Strategy = Callable[["Sequence[Candidate]", Any], "Candidate | str | Iterable[Candidate | str]"]

STRATEGIES = Registry(
    "routing strategy",
    {
        "priority": "perfkit.routing.strategies.ranked:Priority",
        "least_latency": "perfkit.routing.strategies.ranked:LeastLatency",
        "latency": "perfkit.routing.strategies.ranked:LeastLatency",  # RecoAgent's name of it
        "round_robin": "perfkit.routing.strategies.shares:RoundRobin",
        "weighted": "perfkit.routing.strategies.shares:Weighted",
        "random": "perfkit.routing.strategies.shares:Random",
        "p2c": "perfkit.routing.strategies.shares:TwoChoices",
        "least_busy": "perfkit.routing.strategies.ranked:LeastBusy",
        "cost": "perfkit.routing.strategies.ranked:Cheapest",
        "quality": "perfkit.routing.strategies.ranked:BestQuality",
        "manual": "perfkit.routing.strategies.ranked:Manual",
        "dynamic": "perfkit.routing.strategies.meaning:Dynamic",
        "task": "perfkit.routing.strategies.meaning:ByTask",
        "adaptive": "perfkit.routing.strategies.adaptive:Adaptive",
    },
)


def strategy_named(name: str) -> Strategy:
    """Return the strategy called `name` in the registry, or the callable that "package.module:attribute" names.

    Raises:
        UnknownNameError: the registry has none called so.
        ConfigError: there is no such attribute, or it cannot be called.
    """
    part = _attribute(name) if ":" in name and name not in STRATEGIES else STRATEGIES.get(name)
    made: Strategy = part() if isinstance(part, type) else part
    return made


def _attribute(target: str) -> Any:
    try:
        part = load(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"router.strategy {target!r} cannot be loaded: {error}", key="router.strategy") from error
    if not callable(part):
        raise ConfigError(f"router.strategy {target!r} is {part!r}, which cannot be called", key="router.strategy")
    return part


def choose(strategy: Strategy, candidates: Sequence[Candidate], request: Any) -> Candidate:
    """Return the candidate that `strategy` wants first.

    Raises:
        TypeError: it named none of the candidates.
    """
    wanted = strategy(candidates, request)
    return wanted if wanted in candidates else named(strategy, candidates, wanted)  # type: ignore[return-value]


def named(strategy: Strategy, candidates: Sequence[Candidate], wanted: Any) -> Candidate:
    """Return the candidate that a strategy's answer means: its name, or several with the best first.

    Raises:
        TypeError: none of the candidates.
    """
    by_name = {candidate.name: candidate for candidate in candidates}
    several = wanted if isinstance(wanted, Iterable) and not isinstance(wanted, str) else (wanted,)
    for one in several:
        found = by_name.get(one if isinstance(one, str) else getattr(one, "name", ""))
        if found is not None:
            return found
    raise TypeError(f"strategy {called(strategy)} returned {wanted!r}; it must return one of {', '.join(by_name)}")


def reasons(strategy: Strategy) -> Callable[[Candidate], str]:
    """Return what says why `strategy` chose a candidate, in words."""
    own: Callable[[Candidate], str] | None = getattr(strategy, "reason", None)
    return own if own is not None else lambda _: f"chosen by {called(strategy)}"


def called(strategy: Strategy) -> str:
    """Return the name of a strategy, for people."""
    return str(getattr(strategy, "__name__", type(strategy).__name__))


def model_of(request: Any) -> str | None:
    """Return the model a request asks for, in any of the forms a strategy may be given."""
    if isinstance(request, Mapping):
        return request.get("model")
    return getattr(request, "model", None)


def text_of(request: Any) -> str:
    """Return what the user says in a request: the text of the last user message, or of "query" or "message"."""
    if isinstance(request, Mapping):
        return str(request.get("query") or request.get("message") or "")
    for message in reversed(getattr(request, "messages", ())):
        if message.get("role") == "user":
            return _plain(message.get("content"))
    return ""


def _plain(content: Any) -> str:
    if isinstance(content, str) or content is None:
        return content or ""
    return " ".join(str(part.get("text", "")) for part in content)
