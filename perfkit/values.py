"""What crosses the borders of perfkit: requests, responses, usage and attempts, as frozen dataclasses.

Every value is JSON-able by `to_dict()` and built back by `from_dict()`. A ChatRequest that exists is valid: bad input
is refused here, before any I/O.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, Self

from perfkit._copied import Value, copied, names_of

__all__ = ["AgentResult", "Attempt", "ChatRequest", "ChatResponse", "Usage", "finite"]

type_error = "{} must be {}, not {!r}"


def finite(name: str, value: Any, *, above: float | None = None, least: float | None = None) -> float:
    """Return `value` if it is a finite number inside its bounds.

    Raises:
        TypeError: it is not a number.
        ValueError: it is NaN, infinite or out of bounds.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(type_error.format(name, "a number", value))
    if not _is_finite(value) or (above is not None and value <= above) or (least is not None and value < least):
        bound = f" above {above:g}" if above is not None else f" of at least {least:g}" if least is not None else ""
        raise ValueError(f"{name} must be a finite number{bound}, not {value!r}")
    return value


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond any float
        return False


@copied()
@dataclass(frozen=True, slots=True)
class Usage(Value):
    """Tokens of one call.

    `prompt_tokens` always includes `cached_tokens` and `cache_write_tokens`, and `completion_tokens` always includes
    `reasoning_tokens`, whatever the provider reports (Anthropic's input_tokens exclude cached ones, Gemini reports
    thoughts beside the candidates).

    Attributes:
        estimated: True when the provider reported none and perfkit counted.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False

    @property
    def total_tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens

    @classmethod
    def total(cls, usages: Iterable[Usage]) -> Usage:
        """Return the sum of several calls; estimated when one of them is."""
        every = list(usages)
        names = ("prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
        counts = {name: sum(getattr(usage, name) for usage in every) for name in names}
        return cls(**counts, estimated=any(usage.estimated for usage in every))


@copied()
@dataclass(frozen=True, slots=True)
class Attempt(Value):
    """One try at one provider.

    Attributes:
        started: epoch seconds.
        seconds: how long it took.
        outcome: "ok", "error", or "abandoned" when the caller left a stream early.
        error: class name of the error.
        reason: why this provider was chosen.
    """

    provider: str
    model: str
    started: float
    seconds: float
    outcome: str
    error: str | None = None
    reason: str = ""


_PLAIN = ("role", "content")
# The concrete types first: they spare most values the look through the abstract class.
_MAPPING = (dict, Mapping)
_SEQUENCE = (list, tuple, Sequence)


def _messages(value: Any) -> tuple[Mapping[str, Any], ...]:
    if isinstance(value, str):
        value = ({"role": "user", "content": value},)
    if not isinstance(value, _SEQUENCE) or isinstance(value, bytes):
        hint = ": put it into a list" if isinstance(value, Mapping) else ""
        raise TypeError(type_error.format("messages", "a string or a list of messages", value) + hint)
    if not value:
        raise ValueError("messages is empty; pass a string or at least one {'role': ..., 'content': ...}")
    for number, message in enumerate(value):
        if not _is_plain(message):
            _check_message(number, message)
    return tuple(value)


def _is_plain(message: Any) -> bool:
    """Tell whether a message is a dict of role and text, as most are: it needs no further look."""
    if type(message) is not dict or len(message) != len(_PLAIN):
        return False
    role, content = message.get("role"), message.get("content")
    return type(role) is str and type(content) is str and role != "" and content != ""


def _check_message(number: int, message: Any) -> None:
    where = f"messages[{number}]"
    if not isinstance(message, Mapping):
        raise TypeError(type_error.format(where, "a mapping with 'role' and 'content'", message))
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise ValueError(f"{where} needs a 'role' such as 'user', 'assistant' or 'system', not {role!r}")
    calls = message.get("tool_calls")
    if calls is not None and not (isinstance(calls, list | tuple) and all(isinstance(call, Mapping) for call in calls)):
        raise TypeError(type_error.format(f"{where}['tool_calls']", "a list of mappings", calls))
    content = message.get("content")
    if content is None and role != "user":
        return  # an assistant's turn may be tool calls only
    if not isinstance(content, str | list | tuple):
        raise TypeError(type_error.format(f"{where}['content']", "a string or a list of parts", content))
    if role == "user" and not content:
        raise ValueError(f"{where}['content'] is empty")
    if not isinstance(content, str):
        _check_parts(f"{where}['content']", content)


def _check_parts(where: str, parts: Sequence[Any]) -> None:
    for number, part in enumerate(parts):
        if not isinstance(part, Mapping):
            raise TypeError(type_error.format(f"{where}[{number}]", "a mapping with 'type'", part))
        if not isinstance(part.get("text", ""), str):
            raise TypeError(type_error.format(f"{where}[{number}]['text']", "a string", part["text"]))


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(type_error.format(name, "a string", value))
    if not value:
        raise ValueError(f"{name} is empty")


@copied("timeout")
@dataclass(frozen=True, slots=True)
class ChatRequest(Value):
    """One question to a model, checked when made.

    Attributes:
        messages: a string (one user message) or a list of messages; kept as a tuple.
        model: model or route asked for.
        temperature: None means the provider's own default.
        max_tokens: bound of the answer, None means the provider's own.
        timeout: seconds for the whole call, waiting, retries and body included.
        user: whose request it is; scopes the cache and budgets.
        metadata: free labels, never sent to a provider.
        extra: further parameters of the wire format, sent as they are.
        agent: who in the application asks; a tag of metrics and usage reports.
        first_token_timeout: seconds until the first text of a stream; None means `timeout`.
        min_tokens_per_second: a stream that is slower than that for 5 s is given up.

    Raises:
        TypeError: a value has the wrong type.
        ValueError: a value is empty, not finite or out of range.
    """

    messages: Sequence[Any]  # of mappings, once made: a string is a sequence too
    model: str
    temperature: float | None = None
    max_tokens: int | None = None
    tools: Sequence[Mapping[str, Any]] | None = None
    response_format: Mapping[str, Any] | None = None
    timeout: float | None = None
    user: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    agent: str = "default"
    first_token_timeout: float | None = None
    min_tokens_per_second: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "messages", _messages(self.messages))
        self._check_texts()
        self._check_numbers()
        if self.tools is not None:
            if not isinstance(self.tools, list | tuple) or not all(isinstance(t, Mapping) for t in self.tools):
                raise TypeError(type_error.format("tools", "a list of tool schemas", self.tools))
            object.__setattr__(self, "tools", tuple(self.tools))
        for name in ("response_format", "metadata", "extra"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, _MAPPING):
                raise TypeError(type_error.format(name, "a mapping", value))

    def _check_texts(self) -> None:
        _check_text("model", self.model)
        _check_text("agent", self.agent)
        if self.user is not None:
            _check_text("user", self.user)

    def _check_numbers(self) -> None:
        if self.temperature is not None:
            finite("temperature", self.temperature, least=0)
        if self.timeout is not None:
            finite("timeout", self.timeout, above=0)
        if self.first_token_timeout is not None:
            finite("first_token_timeout", self.first_token_timeout, above=0)
        if self.max_tokens is not None:
            if isinstance(self.max_tokens, bool) or not isinstance(self.max_tokens, int):
                raise TypeError(type_error.format("max_tokens", "a whole number", self.max_tokens))
            finite("max_tokens", self.max_tokens, least=1)


class _OfSDKs:
    """What the answer of an SDK has and a ChatResponse has not; `__getattr__` would slow every reading of a field."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, answer: object, _: object) -> NoReturn:
        told = f"a ChatResponse has no {self._name!r}; its text is .text, to_dict() is for JSON"
        raise AttributeError(told, name=self._name, obj=answer)


@copied("attempts", "provider")
@dataclass(frozen=True, slots=True)
class ChatResponse(Value):
    """One answer and all that is known of it.

    Attributes:
        model: model that answered.
        provider: registered name of the provider that answered.
        tool_calls: as OpenAI writes them: {"id", "type": "function", "function": {"name", "arguments"}}.
        cost: US dollars, 0.0 when served from the cache, None when the price is unknown.
        finish_reason: "stop", "length", "tool_calls" or "content_filter"; another one as the provider wrote it.
        cached: how the cache found it, None when the answer is fresh.
        cached_at: epoch seconds when it was stored.
        age: seconds since it was stored.
        cache_decision: why it was or was not cacheable.
        latency: seconds the caller waited.
        first_token: seconds until the first text of a stream.
        attempts: every try, in order.
        id: the provider's id of the answer.
        saved_tokens: of the prompt, that compression kept from being sent.
        raw: the provider's reply as it was.
    """

    text: str
    usage: Usage
    model: str
    provider: str
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    cost: float | None = None
    finish_reason: str | None = None
    cached: Literal["exact", "semantic", "context"] | None = None
    cached_at: float | None = None
    age: float | None = None
    cache_decision: str = ""
    latency: float | None = None
    first_token: float | None = None
    attempts: tuple[Attempt, ...] = ()
    id: str | None = None
    raw: Mapping[str, Any] | None = None
    saved_tokens: int = 0

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build from `to_dict`'s form."""
        known = {name: data[name] for name in names_of(cls) if name in data}
        known["usage"] = Usage.from_dict(data["usage"])
        known["attempts"] = tuple(Attempt.from_dict(a) for a in data.get("attempts", ()))
        known["tool_calls"] = tuple(data.get("tool_calls", ()))
        return cls(**known)


for _name in ("choices", "content", "message", "model_dump", "model_dump_json", "output_text"):
    setattr(ChatResponse, _name, _OfSDKs(_name))


@copied()
@dataclass(frozen=True, slots=True)
class AgentResult(Value):
    """What a run of an agent came to (RAAF's result).

    Attributes:
        text: the last answer of the model.
        messages: the conversation, tools' messages included and instructions left out.
        usage: of all calls of the model together.
        context_variables: what the run was given, as tools left it.
        cost: US dollars of all calls, None when one has no known price.
        rounds: calls of the model.
    """

    text: str
    messages: tuple[Mapping[str, Any], ...]
    usage: Usage
    context_variables: Mapping[str, Any] = field(default_factory=dict)
    cost: float | None = None
    rounds: int = 1

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build from `to_dict`'s form."""
        return cls(**{**data, "messages": tuple(data["messages"]), "usage": Usage.from_dict(data["usage"])})
