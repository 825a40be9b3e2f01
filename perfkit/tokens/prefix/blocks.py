"""A request as the vendor's cache sees it: tools, system prompt and messages as a series of blocks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from perfkit.tokens.prefix.layout import SYSTEM
from perfkit.tokens.prefix.simulate import Block, Prompt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from perfkit.tokens.prefix.rules import CacheRule
    from perfkit.values import ChatRequest

__all__ = ["prompt_of"]

PIECE = 64  # characters: what a vendor that finds prefixes itself compares is finer than a content block


def prompt_of(request: ChatRequest, rule: CacheRule, *, at: float, count: Callable[[str], int]) -> Prompt:
    """Return the blocks of a request for `simulate`.

    Args:
        request: as it is sent.
        rule: of the vendor; one that wants breakpoints sees whole content blocks, another one pieces of them.
        at: seconds when it is sent.
        count: returns the tokens of a text.
    """
    tools = [_block(json.dumps(tool, default=str), tool, rule, count) for tool in request.tools or ()]
    system = [m for m in request.messages if m["role"] in SYSTEM]
    talk = [m for m in request.messages if m["role"] not in SYSTEM]
    heads = [block for message in system for block in _of(message, rule, count)]
    rest = [block for message in talk for block in _of(message, rule, count)]
    whole = [*heads, *tools, *rest] if rule.system_first else [*tools, *heads, *rest]
    if rule.mark is None:
        whole = [piece for block in whole for piece in _pieces(block, count)]
    return Prompt(at, tuple(whole))


def _of(message: Mapping[str, Any], rule: CacheRule, count: Callable[[str], int]) -> Iterator[Block]:
    content = message.get("content")
    for part in [content] if isinstance(content, str) else content or ():
        text = part if isinstance(part, str) else str(part.get("text", part))
        yield _block(f"{message['role']}\n{text}", part, rule, count)
    for call in message.get("tool_calls") or ():
        yield _block(json.dumps(call, default=str), call, rule, count)


def _block(text: str, part: Any, rule: CacheRule, count: Callable[[str], int]) -> Block:
    mark = part.get(rule.mark) if rule.mark is not None and not isinstance(part, str) else None
    return Block(text, count(text), None if mark is None else mark.get("ttl", rule.ttl))


def _pieces(block: Block, count: Callable[[str], int]) -> Iterator[Block]:
    """Cut a block into pieces whose tokens add up to its own."""
    text, left = str(block.content), block.tokens
    for begin in range(0, len(text), PIECE):
        piece = text[begin : begin + PIECE]
        tokens = left if begin + PIECE >= len(text) else min(left, count(piece))
        left -= tokens
        yield Block(piece, tokens)
