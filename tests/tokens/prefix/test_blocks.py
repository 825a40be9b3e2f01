"""Requests as series of blocks, in the order and size in which a vendor looks for what it has seen."""

from __future__ import annotations

from typing import Any

import pytest

from perfkit.tokens.prefix import CacheRule, Prompt, prompt_of, rule_of, simulate
from perfkit.values import ChatRequest

TOOL = {"type": "function", "function": {"name": "now"}}
CALL = {"id": "c", "type": "function", "function": {"name": "now", "arguments": "{}"}}
BRIEF = "Be brief. " * 200


def rule(model: str) -> CacheRule:
    found = rule_of(model)
    assert found is not None
    return found


def blocks(model: str, *messages: dict[str, Any], tools: Any = None, at: float = 0.0) -> Prompt:
    request = ChatRequest(list(messages), model, tools=tools)
    return prompt_of(request, rule(model), at=at, count=lambda text: len(text) // 4)


def said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def test_tools_come_first_where_the_vendor_has_them_first() -> None:
    prompt = blocks("claude-sonnet-4-5", said("user", "Hi"), said("system", BRIEF), tools=[TOOL])
    kinds = [str(block.content).split("\n")[0] for block in prompt.blocks]
    assert kinds[0].startswith('{"type": "function"')
    assert kinds[1:] == ["system", "user"]


def test_a_mark_is_kept_with_its_life_and_calls_are_blocks_too() -> None:
    marked = {"type": "text", "text": BRIEF, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    plain = {"type": "text", "text": BRIEF, "cache_control": {"type": "ephemeral"}}
    prompt = blocks(
        "claude-sonnet-4-5",
        said("system", [marked, plain]),
        said("assistant", None, tool_calls=[CALL]),
        said("user", "?"),
    )
    claude = rule("claude-sonnet-4-5")
    assert [block.ttl for block in prompt.blocks] == ["1h", claude.ttl, None, None]
    assert "arguments" in str(prompt.blocks[2].content)


@pytest.mark.parametrize("model", ["gpt-4o", "claude-sonnet-4-5"])
def test_the_same_beginning_is_read_the_second_time(model: str) -> None:
    head = (
        BRIEF * 8
        if model == "gpt-4o"
        else [{"type": "text", "text": BRIEF * 8, "cache_control": {"type": "ephemeral"}}]
    )
    prompts = [blocks(model, said("system", head), said("user", f"Question {n}?"), at=n) for n in range(2)]
    first, second = simulate(prompts, rule(model))
    assert first.read == 0
    assert second.read > 0.9 * len(BRIEF * 8) / 4


def test_pieces_have_the_tokens_of_their_whole() -> None:
    prompt = blocks("gpt-4o", said("system", BRIEF))
    assert len(prompt.blocks) > 10
    assert sum(block.tokens for block in prompt.blocks) == len("system\n" + BRIEF) // 4
