"""A whole request made cheaper (RAAF guide 5.1, optimize_request): a copy of the agent, and a report."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from perfkit.errors import UnknownNameError
from perfkit.tokens.prefix.detect import volatile_spans
from perfkit.tokens.prefix.layout import ordered, tool_name
from perfkit.tokens.reporting import Reporting
from perfkit.values import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["OptimizedAgent", "RequestReport", "Rewriting"]

STYLES: Final = ("lossless", "three_sentences")
SMALL_MODELS: Final = ("gpt-4o-mini", "gpt-3.5-turbo")  # RAAF guide 5.1, optimize_instructions
CONSTRAINTS: Final = ("budget", "max_latency", "min_quality", "candidates")


@dataclass(frozen=True, slots=True)
class RequestReport:
    """What `optimize_request` changed and what it saves.

    Attributes:
        changes: one line each; empty when nothing had to be changed.
        warnings: what only the author of the instructions can mend, such as a time that stands in them.
        saved_tokens: of the prompt.
        cost_before: US dollars the request would have cost; None where a price is unknown.
        cost_after: US dollars it will cost.
        context: the context as it is to be sent, compressed.
    """

    changes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    saved_tokens: int = 0
    cost_before: float | None = None
    cost_after: float | None = None
    context: str = ""

    @property
    def saved(self) -> float | None:
        """US dollars saved; None where a price is unknown."""
        if self.cost_before is None or self.cost_after is None:
            return None
        return self.cost_before - self.cost_after


class OptimizedAgent:
    """An agent with some attributes of its own, and all others, methods too, of the one it was made from.

    For agents that can be neither copied nor changed.
    """

    def __init__(self, agent: Any, changed: Mapping[str, Any]) -> None:
        self.__dict__.update(changed, _agent=agent)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_agent"], name)


@dataclass(slots=True)
class _Draft:
    """An agent being optimized."""

    values: dict[str, Any]
    changes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Rewriting(Reporting):
    """Requests made cheaper."""

    def optimize_instructions(self, text: str, model: str | None = None, *, style: str = "lossless") -> str:
        """Return instructions with fewer tokens and the same meaning.

        JSON in them loses its spaces, lines that stand twice are told once. Nothing is left out unless asked for by
        name: "three_sentences" cuts the instructions of small models to three sentences, as RAAF guide 5.1 does.

        Args:
            text: the instructions.
            model: that will read them.
            style: "lossless" or "three_sentences".

        Raises:
            UnknownNameError: `style` is something else.
        """
        if style not in STYLES:
            raise UnknownNameError.of("style", style, STYLES)
        if style == "three_sentences" and model in SMALL_MODELS:
            return ".".join(text.split(".")[:3]).rstrip(".") + "."
        return self.compress(text, model=model, steps=("json", "lines")).text

    def optimize_request(
        self, agent: Any, message: str, context: Mapping[str, Any] | None = None, *, style: str = "lossless"
    ) -> Any:
        """Return a copy of `agent` that costs less for `message`, with a `.report`; the original is never changed.

        The model is chosen by `budget`, `max_latency`, `min_quality` and `candidates` in the context, and stays if none
        of them is there. Instructions are shortened without loss, tools put into one order, the rest of the context
        compressed (`report.context`).

        Args:
            agent: any object with `instructions` and `model`, perhaps `tools`.
            message: what the user says.
            context: constraints, and whatever is sent along as JSON.
            style: as for `optimize_instructions`.

        Raises:
            ValueError: no model keeps to the constraints.
        """
        given = dict(context) if context is not None else {}
        sent = {key: value for key, value in given.items() if key not in CONSTRAINTS}
        before = self.estimate_tokens(agent, message, sent)
        draft = _Draft({})
        model = self._chosen(draft, getattr(agent, "model", None), before, given)
        instructions = getattr(agent, "instructions", None)
        if isinstance(instructions, str):
            self._instruct(draft, instructions, model, style)
        if tools := getattr(agent, "tools", None):
            _order(draft, tools)
        written = self.compress(json.dumps(sent, default=str), model=model) if sent else None
        if written is not None and written.saved_tokens:
            draft.changes.append(f"context: {written.saved_tokens} tokens less by {', '.join(written.steps)}")
        return self._reported(agent, draft, message, before, written.text if written is not None else "")

    def _chosen(self, draft: _Draft, model: str | None, tokens: Mapping[str, int], given: Mapping[str, Any]) -> Any:
        constraints = {key: given[key] for key in CONSTRAINTS if given.get(key) is not None}
        if not constraints:
            return model
        chosen = self.select_optimal_model(tokens, **constraints)
        if chosen != model:
            draft.values["model"] = chosen
            draft.changes.append(f"model {chosen} in the place of {model}")
        return chosen

    def _instruct(self, draft: _Draft, text: str, model: str | None, style: str) -> None:
        shorter = self.optimize_instructions(text, model, style=style)
        if shorter != text:
            draft.values["instructions"] = shorter
            saved = self.count_tokens(text, model) - self.count_tokens(shorter, model)
            draft.changes.append(f"instructions: {saved} tokens less ({style})")
        for cause, span in volatile_spans(shorter):
            draft.warnings.append(f"the instructions have a {cause}, {span!r}: no vendor can cache what comes after it")

    def _cost_of(self, agent: Any, tokens: Mapping[str, int]) -> float | None:
        model = getattr(agent, "model", None)
        usage = Usage(tokens["prompt_tokens"], tokens["completion_tokens"])
        return self.calculate_cost(usage, model) if model is not None else None

    def _reported(self, agent: Any, draft: _Draft, message: str, before: Mapping[str, int], context: str) -> Any:
        optimized = _copied(agent, draft.values)
        after = self.estimate_tokens(optimized, message)
        if context:
            after["prompt_tokens"] += self.count_tokens(context, getattr(optimized, "model", None))
        costs = self._cost_of(agent, before), self._cost_of(optimized, after)
        saved = before["prompt_tokens"] - after["prompt_tokens"]
        report = RequestReport(tuple(draft.changes), tuple(draft.warnings), max(0, saved), *costs, context)
        return _copied(agent, {**draft.values, "report": report})


def _order(draft: _Draft, tools: Iterable[Any]) -> None:
    """Put tool schemas into one order; tools that are objects are left to their agent."""
    given = list(tools)
    if not all(isinstance(tool, Mapping) for tool in given):
        return
    put = sorted((ordered(dict(tool)) for tool in given), key=tool_name)
    if json.dumps(put, default=str) != json.dumps(given, default=str):
        draft.values["tools"] = put
        draft.changes.append("tools sorted by name, their keys too")


def _copied(agent: Any, changed: Mapping[str, Any]) -> Any:
    """Return a copy with attributes changed; a view of the original where that cannot be."""
    try:
        made = copy.copy(agent)
        for name, value in changed.items():
            setattr(made, name, value)
    except Exception:  # frozen, with slots, or not to be copied
        return OptimizedAgent(agent, changed)
    return made
