from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest

from perfkit.clock import FakeClock
from perfkit.errors import ConfigError
from perfkit.metrics import PerformanceTracker
from perfkit.providers.wire import anthropic, openai
from perfkit.tokens import TokenOptimizer
from perfkit.tokens.prefix import LaidOutRequest
from perfkit.values import ChatRequest, ChatResponse, Usage

LONG = "You help people with their questions. " * 300  # some 2,000 tokens
CLAUDE, GPT = "claude-sonnet-4-5", "gpt-5"


def made(clock: FakeClock | None = None, **settings: Any) -> TokenOptimizer:
    clock = clock if clock is not None else FakeClock()
    return TokenOptimizer(clock=clock, tracker=PerformanceTracker(clock=clock), **settings)


def tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "description": f"does {name}", "parameters": parameters}}


def ask(*messages: tuple[str, str], model: str = GPT, **more: Any) -> ChatRequest:
    said: list[dict[str, Any]] = [{"role": role, "content": content} for role, content in messages]
    return ChatRequest(said, model, **more)


def marks(request: ChatRequest) -> list[int]:
    """Return the numbers of messages that end with a breakpoint."""
    return [
        n
        for n, message in enumerate(request.messages)
        if isinstance(message["content"], list) and "cache_control" in message["content"][-1]
    ]


def test_tools_stand_in_one_order_whatever_order_they_came_in() -> None:
    tools = [tool(name, b={"type": "string"}, a={"type": "integer"}) for name in "cab"]
    shuffled = [json.loads(json.dumps(t)) for t in tools]
    random.Random(1).shuffle(shuffled)
    for t in shuffled:
        t["function"] = dict(reversed(t["function"].items()))
    one, other = (made().layout(ask(("user", "hi"), tools=t)) for t in (tools, shuffled))
    assert json.dumps(one.tools) == json.dumps(other.tools)
    assert one.tools is not None
    assert sorted(map(json.dumps, one.tools)) != sorted(map(json.dumps, tools))
    assert "tools sorted by name" in one.report.changes
    assert "keys of tool schemas sorted" in one.report.changes


def test_lists_in_schemas_keep_their_order() -> None:
    choices = {"type": "string", "enum": ["b", "a"]}
    laid = made().layout(ask(("user", "hi"), tools=[tool("t", choice=choices)]))
    assert laid.tools is not None
    assert laid.tools[0]["function"]["parameters"]["properties"]["choice"]["enum"] == ["b", "a"]


def test_request_given_is_not_changed() -> None:
    request = ask(("system", f"Now: 12:30\n{LONG}"), ("user", "hi"), tools=[tool("b"), tool("a")])
    before = json.dumps(request.to_dict())
    made().layout(request, volatile=[re.compile(r"Now: .*\n")])
    assert json.dumps(request.to_dict()) == before


def test_marked_text_moves_to_the_end_and_nothing_else_does() -> None:
    request = ask(("system", "Be kind. It is 12:30. Be brief."), ("user", "hi"), ("assistant", "ho"), ("user", "why?"))
    laid = made().layout(request, volatile=["It is 12:30."])
    assert [m["content"] for m in laid.messages] == ["Be kind.  Be brief.", "hi", "ho", "why?\n\nIt is 12:30."]
    assert laid.report.moved == ("It is 12:30.",)
    assert made().layout(request).messages == request.messages


def test_volatile_text_may_be_marked_by_the_settings_and_by_the_call() -> None:
    request = ask(("system", "A1 B2 C3"), ("user", "hi"), metadata={"volatile": ["C3"]})
    assert made(volatile=[r"A\d "]).layout(request).report.moved == ("A1 ", "C3")
    with pytest.raises(ConfigError, match="volatile"):
        made(volatile=["("])


def test_volatile_text_follows_a_tools_result_as_a_turn_of_its_own() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "t", "arguments": "{}"}}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "S now"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "42"},
    ]
    laid = made().layout(ChatRequest(messages, GPT), volatile=["now"])
    assert laid.messages[3:] == (messages[3], {"role": "user", "content": "now"})


def test_system_messages_come_first_unless_the_talk_has_begun() -> None:
    request = ask(("user", "a"), ("system", "S"), ("assistant", "b"), ("system", "late"), ("user", "c"))
    assert [m["content"] for m in made().layout(request).messages] == ["S", "a", "b", "late", "c"]


def test_next_turn_begins_exactly_like_the_one_before() -> None:
    optimizer, history = made(), [("user", "first")]
    before: list[Any] = []
    for turn in range(5):
        request = ask(("system", f"Time: {turn}\n{LONG}"), *history, model=CLAUDE, tools=[tool("b"), tool("a")])
        laid = optimizer.layout(request, volatile=[re.compile(r"Time: .*\n")])
        texts = [re.sub(r", 'cache_control': {[^}]*}", "", repr(m)) for m in laid.messages]
        plain = [m["content"] if isinstance(m["content"], str) else m["content"][0]["text"] for m in laid.messages]
        assert plain[: len(before)] == before, texts
        before = plain[:-1]
        history += [("assistant", f"answer {turn}"), ("user", f"question {turn}")]


def test_breakpoints_stand_before_the_volatile_text() -> None:
    request = ask(
        ("system", f"Time: 1\n{LONG}"),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
        model=CLAUDE,
        tools=[tool("t")],
    )
    laid = made().layout(request, volatile=[re.compile(r"Time: .*\n")])
    assert marks(laid) == [0, 2]
    assert laid.report.breakpoints == ("messages[2]", "messages[0]", "tools")
    body = anthropic.payload(laid, stream=False, max_tokens=10)
    assert body["tools"][-1]["cache_control"] == {"type": "ephemeral"}
    assert body["system"][-1]["cache_control"] == {"type": "ephemeral"}
    assert json.dumps(body).count("cache_control") == 3


def test_without_volatile_text_a_talk_is_kept_to_its_end() -> None:
    talk = ask(("system", LONG), ("user", "a"), ("assistant", "b"), ("user", "c"), model=CLAUDE)
    assert marks(made().layout(talk)) == [0, 3]
    assert marks(made().layout(ask(("system", LONG), ("user", "a"), model=CLAUDE))) == [0]


def test_long_talk_gets_a_breakpoint_between_and_never_more_than_four() -> None:
    turns = [("user" if n % 2 == 0 else "assistant", f"{n}") for n in range(61)]
    laid = made().layout(ask(("system", LONG), *turns, model=CLAUDE, tools=[tool("t")]))
    assert marks(laid) == [0, 46, 61]
    assert json.dumps(laid.to_dict()).count("cache_control") == 4


@pytest.mark.parametrize(("model", "marked"), [("claude-sonnet-4-5", True), ("claude-haiku-4-5", False)])
def test_prompts_below_the_vendors_minimum_are_not_marked(model: str, marked: bool) -> None:
    laid = made().layout(ask(("system", LONG), ("user", "hi"), model=model, tools=[tool("t")]))
    assert bool(laid.report.breakpoints) is marked


def used(optimizer: TokenOptimizer, clock: FakeClock, request: ChatRequest, gap: float, times: int) -> None:
    for _ in range(times):
        optimizer.observe(request, ChatResponse("x", Usage(2000, 5), request.model, "p"))
        clock.advance(gap)


@pytest.mark.parametrize(
    ("gap", "control"),
    [(60, {"type": "ephemeral"}), (1200, {"type": "ephemeral", "ttl": "1h"}), (3601, {"type": "ephemeral"})],
)
def test_time_to_live_follows_the_rhythm_of_the_route(gap: float, control: dict[str, str]) -> None:
    clock = FakeClock()
    optimizer, request = made(clock), ask(("system", LONG), ("user", "hi"), model=CLAUDE)
    used(optimizer, clock, request, gap, 5)
    assert optimizer.layout(request).messages[0]["content"][-1]["cache_control"] == control


def test_nothing_is_marked_where_writing_never_pays() -> None:
    clock = FakeClock()
    optimizer, request = made(clock), ask(("system", LONG), ("user", "hi"), model=GPT.replace("5", "5.6"))
    for _ in range(3):
        used(optimizer, clock, request, 3000, 1)
    assert "prompt_cache_breakpoint" in json.dumps(optimizer.layout(request).to_dict())
    marked = optimizer.layout(request).messages[0]["content"][-1]["prompt_cache_breakpoint"]
    assert marked == {"mode": "explicit", "ttl": "12h"}


def test_openai_gets_a_key_for_the_route_unless_the_caller_gave_one() -> None:
    request = ask(("system", LONG), ("user", "hi"), agent="shop")
    laid = made().layout(request)
    assert openai.payload(laid, stream=False)["prompt_cache_key"] == "shop:0"
    mine = request.evolve(extra={"prompt_cache_key": "mine"})
    assert made().layout(mine).extra == {"prompt_cache_key": "mine"}
    assert made().layout(request.evolve(model=CLAUDE)).extra == {}


def test_busy_route_spreads_its_conversations_over_keys() -> None:
    clock = FakeClock()
    optimizer = made(clock)
    used(optimizer, clock, ask(("user", "hi")), 1.0, 10)
    keys = {optimizer.layout(ask(("user", f"talk {n}"))).extra["prompt_cache_key"] for n in range(100)}
    assert keys == {f"default:{n}" for n in range(5)}  # 60 a minute, 15 for each


def test_model_without_a_rule_gets_order_only() -> None:
    laid = made().layout(ask(("system", LONG), ("user", "hi"), model="tiny", tools=[tool("b"), tool("a")]))
    assert (laid.report.rule, laid.report.breakpoints, laid.extra) == (None, (), {})
    assert isinstance(laid.evolve(timeout=1.0), LaidOutRequest)


def test_laying_out_twice_changes_nothing_more() -> None:
    request = ask(("system", f"Now 1\n{LONG}"), ("user", "hi"), model=CLAUDE, tools=[tool("b"), tool("a")])
    once = made().layout(request, volatile=[re.compile(r"Now \d\n")])
    twice = made().layout(ChatRequest(once.messages, once.model, tools=once.tools), volatile=[re.compile(r"Now \d\n")])
    assert twice.report.changes == ()
    assert twice.messages == once.messages
