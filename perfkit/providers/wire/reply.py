"""What a provider said, between its wire format and ChatResponse, and how a format says that there is no answer."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perfkit.values import Usage

__all__ = [
    "MISSHAPEN",
    "UNREADABLE",
    "ErrorReply",
    "Event",
    "Reader",
    "Reply",
    "ToolCall",
    "number",
    "tool_call",
    "why",
]

ToolCall = dict[str, Any]
_BEYOND = 2**53  # tokens; where floats stop counting
UNREADABLE = (ValueError, RecursionError)  # what json raises for what is no JSON, or endless brackets
MISSHAPEN = (LookupError, TypeError, AttributeError, ValueError)  # what reading JSON of another shape raises


@dataclass(slots=True)
class Reply:
    """One answer; `usage` is None when the provider reported none."""

    text: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    usage: Usage | None = None
    model: str | None = None
    finish_reason: str | None = None
    id: str | None = None


class ErrorReply(Exception):  # noqa: N818 - a signal between a format and the provider, never seen by callers
    """A reply or event with status 200 that is an error; `document` is what the provider wrote."""

    def __init__(self, document: Any) -> None:
        super().__init__("error in a reply with status 200")
        self.document = document


class Event(Protocol):
    """A server-sent event, as far as a format needs it."""

    @property
    def event(self) -> str:
        """Its type."""
        ...

    @property
    def data(self) -> str:
        """Its data lines, joined."""
        ...


class Reader(Protocol):
    """Reads one stream, event by event.

    Attributes:
        said: the answer so far; without its text until `finish`.
        done: the format's own last event was there, the answer is whole.
    """

    said: Reply
    done: bool

    def feed(self, event: Event) -> str:
        """Take one event and return the text it adds.

        Raises:
            ErrorReply: the event is an error.
            LookupError, TypeError, AttributeError, ValueError: it is not of this format.
        """
        ...

    def finish(self, text: str) -> Reply:
        """Return the whole answer with `text`, all that `feed` returned.

        Raises:
            ValueError: the stream ended before the answer did.
        """
        ...


def tool_call(call_id: str, name: str, arguments: str) -> ToolCall:
    """Return a tool call as OpenAI writes it, which is perfkit's own form."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def number(told: Mapping[str, Any], key: str) -> int:
    """Return a count, 0 where it is missing, null, not a whole number or more than can be."""
    value = told.get(key)
    return value if type(value) is int and 0 < value < _BEYOND else 0


def why(error: Exception) -> str:
    """Say what was wrong with a document, without the document."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error.msg}, character {error.pos})"
    return f"no {error}" if isinstance(error, KeyError) else str(error)
