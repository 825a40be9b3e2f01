"""Laying a request out so that the next one begins the same way: what changes goes last, order is always the same.

Nothing is reworded. Tools are sorted by name and their schemas written with sorted keys; text moves only where the
caller has marked it as volatile, from the system prompt to the end of the last message. Breakpoints, where the vendor
wants them marked, come before it: at the end of the tools, of the system prompt, of the history, and between.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from perfkit.values import ChatRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from perfkit.tokens.prefix.rules import CacheRule

__all__ = ["LaidOutRequest", "LayoutReport", "lay_out"]

SYSTEM: Final = ("system", "developer")
APART: Final = 15  # blocks between two breakpoints: vendors look back 20
BUSY: Final = 15.0  # requests a minute above which OpenAI spreads one prompt_cache_key over several machines
Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LayoutReport:
    """What was changed, in words, and what stays the same from one request to the next.

    Attributes:
        changes: one line each; empty when nothing had to be changed.
        moved: the volatile texts that stand at the end now.
        breakpoints: where they were set.
        rule: name of the vendor's rule; None for a model without one.
        prefix_tokens: estimated tokens before the volatile part.
    """

    changes: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    breakpoints: tuple[str, ...] = ()
    rule: str | None = None
    prefix_tokens: int = 0


@dataclass(frozen=True, slots=True)
class LaidOutRequest(ChatRequest):
    """A request as it should be sent, with a `report` of what differs from the one given."""

    report: LayoutReport = field(default_factory=LayoutReport)

    def to_dict(self) -> dict[str, Any]:
        """Return a dict of JSON types."""
        return {**ChatRequest.to_dict(self), "report": asdict(self.report)}


@dataclass(slots=True)
class _Draft:
    """A request being laid out."""

    messages: list[Message]
    tools: list[Mapping[str, Any]] | None
    changes: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    breakpoints: list[str] = field(default_factory=list)


def lay_out(
    request: ChatRequest,
    rule: CacheRule | None,
    *,
    volatile: Iterable[str | re.Pattern[str]] = (),
    ttl: str | None = None,
    key: str | None = None,
    count: Callable[[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]] | None], int] = lambda *_: 0,
) -> LaidOutRequest:
    """Return `request` laid out for prefix caching; the one given stays as it is.

    Args:
        request: with messages in OpenAI's form.
        rule: of the vendor; None: only order is made.
        volatile: texts, or patterns of texts, of system messages that change from request to request.
        ttl: name of the time to live of breakpoints; None: none are set.
        key: what keeps requests with one prefix together, where the vendor has a parameter for it.
        count: returns the tokens of messages and tools, to leave out breakpoints below the vendor's minimum.
    """
    draft = _Draft([dict(message) for message in request.messages], list(request.tools) if request.tools else None)
    _order_tools(draft)
    _system_first(draft)
    _take_out(draft, [re.compile(re.escape(v)) if isinstance(v, str) else v for v in volatile])
    tokens = count(draft.messages, draft.tools)
    if rule is not None and rule.mark is not None and ttl is not None and tokens >= rule.minimum:
        _mark(draft, rule, ttl, count)
    _append(draft)
    extra = dict(request.extra)
    if rule is not None and rule.key is not None and key is not None and rule.key not in extra:
        extra[rule.key] = key
        draft.changes.append(f"{rule.key} set")
    name = rule.name if rule is not None else None
    told = (tuple(draft.changes), tuple(draft.moved), tuple(draft.breakpoints))
    values = {field: getattr(request, field) for field in ChatRequest.__dataclass_fields__}
    values |= {"messages": draft.messages, "tools": draft.tools, "extra": extra}
    return LaidOutRequest(**values, report=LayoutReport(*told, name, tokens))


def tool_name(tool: Mapping[str, Any]) -> str:
    """Return the name of a tool in OpenAI's or Anthropic's form."""
    inner = tool.get("function")
    return str((inner if isinstance(inner, dict) else tool).get("name", ""))


def ordered(value: Any) -> Any:
    """Return JSON with the keys of all its objects sorted; lists keep their order, which may mean something."""
    if isinstance(value, dict):
        return {key: ordered(value[key]) for key in sorted(value)}
    return [ordered(item) for item in value] if isinstance(value, list) else value


def _order_tools(draft: _Draft) -> None:
    if draft.tools is None:
        return
    given = draft.tools
    draft.tools = sorted((ordered(dict(tool)) for tool in given), key=tool_name)
    if [tool_name(tool) for tool in given] != [tool_name(tool) for tool in draft.tools]:
        draft.changes.append("tools sorted by name")
    if sorted(map(repr, given)) != sorted(map(repr, draft.tools)):
        draft.changes.append("keys of tool schemas sorted")


def _system_first(draft: _Draft) -> None:
    """Move system messages that stand before the first answer to the front; later ones belong to the talk."""
    end = next((n for n, m in enumerate(draft.messages) if m["role"] == "assistant"), len(draft.messages))
    head = draft.messages[:end]
    front = [m for m in head if m["role"] in SYSTEM] + [m for m in head if m["role"] not in SYSTEM]
    if front != head:
        draft.messages[:end] = front
        draft.changes.append("system messages put first")


def _take_out(draft: _Draft, patterns: Sequence[re.Pattern[str]]) -> None:
    for message in draft.messages if patterns else ():
        if message["role"] in SYSTEM:
            message["content"] = _without(message["content"], patterns, draft.moved)
    kept = [m for m in draft.messages if m["role"] not in SYSTEM or _said(m["content"])]
    if draft.moved and any(m["role"] not in SYSTEM for m in kept):
        draft.messages = kept
    if draft.moved:
        draft.changes.append(f"{len(draft.moved)} volatile texts moved to the end")


def _without(content: Any, patterns: Sequence[re.Pattern[str]], moved: list[str]) -> Any:
    if not isinstance(content, str):
        return [
            {**part, "text": _without(part["text"], patterns, moved)} if "text" in part else part
            for part in content or ()
        ]
    for pattern in patterns:
        moved.extend(match[0] for match in pattern.finditer(content) if match[0])
        content = pattern.sub("", content)
    return content


def _said(content: Any) -> bool:
    return bool(content.strip()) if isinstance(content, str) else bool(content)


def _append(draft: _Draft) -> None:
    """Put what was taken out behind the last words of the user, or after all if those are not the last."""
    if not draft.moved:
        return
    text, last = "\n".join(draft.moved), draft.messages[-1]
    if last["role"] != "user":
        draft.messages.append({"role": "user", "content": text})
    elif isinstance(last["content"], str):
        last["content"] = f"{last['content']}\n\n{text}"
    else:
        last["content"] = [*last["content"], {"type": "text", "text": text}]


def _mark(draft: _Draft, rule: CacheRule, ttl: str, count: Callable[..., int]) -> None:
    """Set breakpoints, the one nearest to the end first: at most as many as the vendor takes."""
    assert rule.mark is not None
    value = {"type": "ephemeral"} if rule.mark == "cache_control" else {"mode": "explicit"}
    if ttl != rule.ttl:
        value["ttl"] = ttl
    for place in _places(draft)[: rule.breakpoints]:
        if place < 0:
            _mark_tools(draft, rule.mark, value)
        elif count(draft.messages[: place + 1], draft.tools) >= rule.minimum:
            message = draft.messages[place]
            message["content"] = _marked(message["content"], rule.mark, value)
            draft.breakpoints.append(f"messages[{place}]")


def _places(draft: _Draft) -> list[int]:
    """Return the messages to end a prefix with, most useful first; -1 stands for the tools.

    A last message that gets volatile text, or begins a talk that may never go on, is not read again.
    """
    again = not draft.moved and any(m["role"] == "assistant" for m in draft.messages)
    stable = draft.messages if again else draft.messages[:-1]
    texts = [n for n, m in enumerate(stable) if m.get("content") and m["role"] != "tool"]
    system = [n for n in texts if draft.messages[n]["role"] in SYSTEM][-1:]
    places = [*texts[-1:], *system]
    if texts and system and texts[-1] - system[0] > APART:
        places.insert(1, max(n for n in texts if n <= texts[-1] - APART))
    if draft.tools:
        places.append(-1)
    return list(dict.fromkeys(places))


def _marked(content: Any, mark: str, value: Mapping[str, str]) -> list[Any]:
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    return [*parts[:-1], {**parts[-1], mark: value}]


def _mark_tools(draft: _Draft, mark: str, value: Mapping[str, str]) -> None:
    """Mark the last tool, in Anthropic's form: OpenAI takes no breakpoint there."""
    if mark != "cache_control" or not draft.tools:
        return
    *others, last = draft.tools
    function = last.get("function")
    if isinstance(function, dict):
        kept = {key: function[key] for key in ("name", "description", "strict") if function.get(key) is not None}
        last = {**kept, "input_schema": function.get("parameters") or {"type": "object", "properties": {}}}
    draft.tools = [*others, ordered({**last, mark: dict(value)})]
    draft.breakpoints.append("tools")
