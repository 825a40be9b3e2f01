"""The one choice of a model by constraints, of the optimizer and of the router.

Under a budget it is the best model, else the fastest, and never one that does not keep to all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

from perfkit.errors import NoModelFitsError
from perfkit.values import finite

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Choice", "Constraints", "best", "cheapest", "select"]

PERCENT: Final = 100.0
UNKNOWN: Final = float("inf")
MEANT: Final = {"budget": "cost", "max_latency": "seconds", "min_quality": "quality", "max_cost_per_1k": "cost_per_1k"}


@dataclass(frozen=True, slots=True)
class Constraints:
    """What a model must keep to; None: no matter.

    Attributes:
        budget: US dollars for the request.
        max_latency: seconds for the whole answer.
        min_quality: 0 to 1.
        max_cost_per_1k: US dollars for 1,000 tokens.
    """

    budget: float | None = None
    max_latency: float | None = None
    min_quality: float | None = None
    max_cost_per_1k: float | None = None

    @classmethod
    def of(cls, **given: float | None) -> Constraints:
        """Return checked constraints; a quality above 1 is taken as percent.

        Raises:
            TypeError, ValueError: one is no number of at least 0.
        """
        known = {name: finite(name, value, least=0) for name, value in given.items() if value is not None}
        if known.get("min_quality", 0) > 1:
            known["min_quality"] /= PERCENT
        return cls(**known)

    def given(self) -> dict[str, float]:
        """Return those that are set."""
        return {one.name: value for one in fields(self) if (value := getattr(self, one.name)) is not None}

    def __bool__(self) -> bool:
        return bool(self.given())


@dataclass(frozen=True, slots=True)
class Choice:
    """A model that may be asked, and what is expected of it; None: not known.

    Attributes:
        model: its name.
        cost: US dollars of the request.
        seconds: until the whole answer is there.
        quality: 0 to 1.
        cost_per_1k: US dollars for 1,000 tokens.
        provider: who is asked; empty where that is left open.
    """

    model: str
    cost: float | None = None
    seconds: float | None = None
    quality: float | None = None
    cost_per_1k: float | None = None
    provider: str = ""

    @property
    def name(self) -> str:
        """The model, after its provider if there is one."""
        return f"{self.provider}/{self.model}" if self.provider else self.model

    def broken(self, constraints: Constraints) -> list[str]:
        """Return the constraints it does not keep to, or is not known to keep to."""
        return [
            name for name, limit in constraints.given().items() if not _kept(getattr(self, MEANT[name]), name, limit)
        ]


def _kept(value: float | None, name: str, limit: float) -> bool:
    return value is not None and (value >= limit if name.startswith("min_") else value <= limit)


def select(choices: Sequence[Choice], constraints: Constraints) -> Choice:
    """Return the model to ask.

    Under a budget it is the one of the highest quality (RAAF guide 5.1), else the fastest that is good enough
    (AgentiCraft guide, "Smart Model Selection"), the cheaper of equals.

    Raises:
        NoModelFitsError: none keeps to the constraints.
    """
    fit = [choice for choice in choices if not choice.broken(constraints)]
    if not fit:
        raise _nobody(choices, constraints)
    return best(fit) if constraints.budget is not None else min(fit, key=_slowness)


def cheapest(choices: Sequence[Choice]) -> Choice:
    """Return the choice of the lowest known cost."""
    return min(choices, key=lambda choice: _or(choice.cost, UNKNOWN))


def best(choices: Sequence[Choice]) -> Choice:
    """Return the choice of the highest known quality, the cheaper of equals."""
    return max(choices, key=lambda choice: (_or(choice.quality, -1), -_or(choice.cost, 0)))


def _slowness(choice: Choice) -> tuple[float, float, float]:
    cost = choice.cost if choice.cost is not None else choice.cost_per_1k
    return _or(choice.seconds, UNKNOWN), -_or(choice.quality, 0), _or(cost, UNKNOWN)


def _or(value: float | None, default: float) -> float:
    return value if value is not None else default


def _nobody(choices: Sequence[Choice], constraints: Constraints) -> NoModelFitsError:
    broken = {choice: choice.broken(constraints) for choice in choices}
    reasons = {choice.name: ", ".join(_lack(choice, name) for name in names) for choice, names in broken.items()}
    if not choices:
        return NoModelFitsError("no model to choose from: no provider names its models, and no candidates are given")
    # What binds is what alone keeps a model out; if nothing does, those that keep out the model with the fewest.
    fewest = min(len(names) for names in broken.values())
    binding = sorted({name for names in broken.values() if len(names) == fewest for name in names})
    wanted = constraints.given()
    told = "; ".join(f"{name}={wanted[name]:g} keeps them out, {_nearest(choices, name)}" for name in binding)
    each = ", ".join(f"{choice.name} ({', '.join(names)})" for choice, names in broken.items())
    return NoModelFitsError(f"no model meets the constraints: {told}: {each}", reasons=reasons, binding=binding)


def _word(name: str) -> str:
    return "cost" if name == "budget" else name.partition("_")[2]


def _lack(choice: Choice, name: str) -> str:
    value = getattr(choice, MEANT[name])
    return f"{_word(name)} is unknown" if value is None else f"{_word(name)} is {value:g}"


def _nearest(choices: Sequence[Choice], name: str) -> str:
    known = {choice: value for choice in choices if (value := getattr(choice, MEANT[name])) is not None}
    if not known:
        return f"{_word(name)} is unknown of all"
    nearest = (max if name.startswith("min_") else min)(known, key=known.__getitem__)
    return f"nearest is {nearest.name} with {known[nearest]:g}"
