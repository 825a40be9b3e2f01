"""Which parts of a request are compressed, and which stay as they are.

Compressed are results of tools, and texts of users that are one JSON document. All else is somebody's words: it stays,
but for UUIDs that stand for the same thing as in a result before it, which get the same short name. What comes before
the last breakpoint the caller has set (`cache_control`) is not touched at all. Each message is written by what came
before it, so a conversation that grows is sent with the same beginning every time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from perfkit.tokens.compression.compact import is_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from perfkit.tokens.compression.aliases import Aliases
    from perfkit.values import ChatRequest

__all__ = ["compressed"]

Message = Mapping[str, Any]


def compressed(request: ChatRequest, aliases: Aliases, shorter: Callable[[str], str]) -> ChatRequest:
    """Return `request` with fewer tokens.

    Args:
        request: as the application made it.
        aliases: new ones.
        shorter: compresses a text, with these aliases.
    """
    messages, first = request.messages, _after_breakpoint(request.messages)
    aliases.choose(text for value in (messages, request.tools) for text in _texts(value))
    for text in (*_texts(request.tools), *_texts(messages[:first])):
        aliases.spare(text)

    def words(text: str) -> str:
        repeated = aliases.repeat(text)
        aliases.spare(repeated)
        return repeated

    def of_user(text: str) -> str:
        return shorter(text) if is_json(text) else words(text)

    ways = {"tool": shorter, "user": of_user}
    rest = [_rewritten(message, ways.get(message["role"], words), words, shorter) for message in messages[first:]]
    return request.evolve(messages=(*messages[:first], *rest))


def _after_breakpoint(messages: Sequence[Message]) -> int:
    """Return the number of messages that the caller wants cached as they are."""
    marked = [number for number, message in enumerate(messages) if _is_marked(message)]
    return marked[-1] + 1 if marked else 0


def _is_marked(message: Message) -> bool:
    content = message.get("content")
    parts = content if isinstance(content, list | tuple) else ()
    return "cache_control" in message or any("cache_control" in part for part in parts)


def _rewritten(
    message: Message, text: Callable[[str], str], words: Callable[[str], str], result: Callable[[str], str]
) -> Message:
    changed = dict(message)
    content = message.get("content")
    if isinstance(content, str):
        changed["content"] = text(content)
    elif content is not None:
        changed["content"] = [_part(part, text, result) for part in content]
    if message.get("tool_calls"):
        changed["tool_calls"] = [_call(call, words) for call in message["tool_calls"]]
    return changed


def _part(part: Any, text: Callable[[str], str], result: Callable[[str], str]) -> Any:
    if isinstance(part.get("text"), str):
        return {**part, "text": text(part["text"])}
    if part.get("type") == "tool_result" and isinstance(part.get("content"), str):
        return {**part, "content": result(part["content"])}
    return part


def _call(call: Message, words: Callable[[str], str]) -> Message:
    function = call.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    return {**call, "function": {**function, "arguments": words(function["arguments"])}}


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts inside a value."""
    if isinstance(value, str):
        yield value
    elif value is not None and not isinstance(value, int | float):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)
