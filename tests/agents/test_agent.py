"""The loop between a model and tools, over real sockets."""

from __future__ import annotations

import contextvars
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

import perfkit
from perfkit.agents import Agent, Tool, tool
from perfkit.testing import FaultServer, faults

NAME = contextvars.ContextVar("NAME", default="unset")


@pytest.fixture
def model(fault: FaultServer) -> FaultServer:
    perfkit.configure(
        providers={"local": {"kind": "openai", "base_url": fault.base_url, "api_key": "sk-test"}},
        client={"default_model": "tiny"},
        tokens={"prices": {"tiny": {"input": 1_000_000.0, "output": 2_000_000.0}}},
    )
    return fault


def calling(*calls: tuple[str, Any]) -> faults.Behaviour:
    """Let the model call tools; arguments are written as JSON unless they are text."""
    told = [
        {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": name, "arguments": given if isinstance(given, str) else json.dumps(given)},
        }
        for number, (name, given) in enumerate(calls)
    ]
    message = {"role": "assistant", "content": None, "tool_calls": told}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return faults.status(200, body={"id": "1", "model": "tiny", "choices": [choice], "usage": usage})


def sent(model: FaultServer, number: int = -1) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(model.stats()["recent"][number]["body"])
    return body


def shown(model: FaultServer) -> list[str]:
    """Return what the model was told of its tools' results."""
    return [message["content"] for message in sent(model)["messages"] if message["role"] == "tool"]


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def test_an_agent_without_tools_asks_once_with_its_instructions(model: FaultServer) -> None:
    result = Agent("helper", "Be brief.", "tiny").run("hello")
    assert result.text == "echo: hello"
    assert result.messages == ({"role": "user", "content": "hello"}, {"role": "assistant", "content": "echo: hello"})
    assert sent(model)["messages"][0] == {"role": "system", "content": "Be brief."}
    assert "tools" not in sent(model)
    assert result.rounds == model.stats()["requests"] == 1


def test_what_a_tool_returns_is_shown_to_the_model(model: FaultServer) -> None:
    model.behave(calling(("add", {"a": 2, "b": 3}), ("add", {"a": 4, "b": 5})), faults.ok("5 and 9"))
    result = Agent("helper", "", "tiny", [add]).run("sums?")
    assert result.text == "5 and 9"
    assert [message["role"] for message in result.messages] == ["user", "assistant", "tool", "tool", "assistant"]
    assert shown(model) == ["5", "9"]
    assert [m["tool_call_id"] for m in result.messages if m["role"] == "tool"] == ["call_0", "call_1"]
    assert sent(model, 0)["tools"][0]["function"]["name"] == "add"


def test_usage_and_cost_are_those_of_all_rounds(model: FaultServer) -> None:
    model.behave(
        calling(("add", {"a": 1, "b": 1})), faults.ok("2", usage={"prompt_tokens": 20, "completion_tokens": 1})
    )
    result = Agent("helper", "", "tiny", [add]).run("sum?")
    assert (result.usage.prompt_tokens, result.usage.completion_tokens) == (30, 6)
    assert result.cost == pytest.approx(30 + 12)
    assert result.rounds == 2
    assert perfkit.optimizer.get_usage_report()["helper"]["tiny"]["request_count"] == 2


def test_a_conversation_goes_on_with_the_messages_of_before(model: FaultServer) -> None:
    agent = Agent("helper", "Be brief.", "tiny")
    first = agent.run("one")
    second = agent.run([*first.messages, {"role": "user", "content": "two"}])
    assert [message["content"] for message in sent(model)["messages"]] == ["Be brief.", "one", "echo: one", "two"]
    assert len(second.messages) == 4
    assert len(first.messages) == 2


def test_a_tool_reads_and_changes_the_variables_of_its_run(model: FaultServer) -> None:
    def remember(city: str, context_variables: dict[str, Any]) -> str:
        context_variables["city"] = city
        return f"noted for {context_variables['name']}"

    context = {"name": "Ada"}
    model.behave(calling(("remember", {"city": "Oslo"})), faults.ok("done"))
    result = Agent("helper", "", "tiny", [remember]).run("I live in Oslo", context)
    assert result.context_variables == {"name": "Ada", "city": "Oslo"}
    assert context == {"name": "Ada"}
    assert shown(model) == ["noted for Ada"]
    assert "context_variables" not in json.dumps(sent(model, 0)["tools"])


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("add", {"a": 1}, "TypeError: missing a required argument: 'b'"),
        ("add", {"a": 1, "b": 2, "c": 3}, "TypeError: unknown argument 'c'; known: a, b"),
        ("add", {"a": "1", "b": 2}, "TypeError: argument 'a' must be of type integer, not '1'"),
        ("add", {"a": True, "b": 2}, "TypeError: argument 'a' must be of type integer, not True"),
        ("add", "[1, 2]", "TypeError: arguments must be a JSON object, not [1, 2]"),
        ("add", '{"a": 1,', "JSONDecodeError: "),
        ("subtract", {}, "LookupError: there is no tool 'subtract'; there are: add, divide"),
        ("divide", {"n": 0}, "ZeroDivisionError: division by zero"),
    ],
)
def test_what_goes_wrong_with_a_tool_is_shown_to_the_model(
    model: FaultServer, name: str, given: Any, told: str
) -> None:
    def divide(n: float) -> float:
        return 1 / n

    model.behave(calling((name, given)), faults.ok("I see"))
    assert Agent("helper", "", "tiny", [add, divide]).run("go").text == "I see"
    assert shown(model)[0].startswith("Error: " + told)


def test_a_tool_that_takes_too_long_is_left_alone_and_the_model_told(model: FaultServer) -> None:
    go, ended = threading.Event(), threading.Event()

    def wait() -> None:
        go.wait(20)
        ended.set()

    model.behave(calling(("wait", {})), faults.ok("too slow"))
    result = Agent("helper", "", "tiny", [wait], tool_timeout=0.05).run("go")
    assert not ended.is_set()
    go.set()
    assert result.text == "too slow"
    assert shown(model) == ["Error: TimeoutError: wait gave no result within 0.05 s"]
    assert ended.wait(20)


def test_a_tool_that_takes_too_long_lets_go_of_its_connection(model: FaultServer) -> None:
    def ask() -> str:
        return perfkit.chat("slow").text

    model.behave(calling(("ask", {})), faults.hang(), faults.ok("gave up"))
    assert Agent("helper", "", "tiny", [ask], tool_timeout=1.0).run("go").text == "gave up"
    model.wait_until(lambda counters: counters["aborted_by_client"] == 1)


def test_a_tool_may_have_a_timeout_of_its_own(model: FaultServer) -> None:
    @tool(timeout=0.05)
    def wait() -> None:
        threading.Event().wait(5)

    model.behave(calling(("wait", {})), faults.ok("too slow"))
    Agent("helper", "", "tiny", [wait], tool_timeout=None).run("go")
    assert "within 0.05 s" in shown(model)[0]


@pytest.mark.parametrize(("timeout", "same"), [(None, True), (20, False)])
def test_a_tool_without_timeout_runs_in_the_callers_thread(
    model: FaultServer, timeout: float | None, same: bool
) -> None:
    seen: list[Any] = []

    def look() -> None:
        seen.extend([threading.current_thread() is threading.main_thread(), NAME.get()])

    NAME.set("caller")
    model.behave(calling(("look", {})), faults.ok("done"))
    Agent("helper", "", "tiny", [look], tool_timeout=timeout).run("go")
    assert seen == [same, "caller"]


def test_rounds_are_bounded_and_what_was_done_is_in_the_error(model: FaultServer) -> None:
    model.behave(*[calling(("add", {"a": 1, "b": 1}))] * 5)
    with pytest.raises(perfkit.MaxRoundsExceededError, match="after 3 rounds") as raised:
        Agent("helper", "", "tiny", [add], max_rounds=3).run("sum?")
    assert model.stats()["requests"] == 3
    result = raised.value.result
    assert result is not None
    assert (result.rounds, result.usage.prompt_tokens, len(result.messages)) == (3, 30, 7)


def test_what_ends_a_program_is_no_error_of_a_tool(model: FaultServer) -> None:
    def leave() -> None:
        raise SystemExit(3)

    model.behave(calling(("leave", {})), faults.ok("no"))
    with pytest.raises(SystemExit):
        Agent("helper", "", "tiny", [leave]).run("go")
    assert model.stats()["requests"] == 1


def test_options_go_to_the_model_and_user_id_scopes_the_cache(model: FaultServer) -> None:
    agent = Agent("helper", "", "tiny", options={"temperature": 0, "max_tokens": 9})
    texts = [agent.run("same", {"user_id": user}).cost for user in ("a", "a", "b")]
    assert texts[1] == 0.0
    assert model.stats()["requests"] == 2
    assert sent(model)["max_tokens"] == 9


def test_a_tool_that_writes_a_value_json_cannot_express_is_shown_as_text(model: FaultServer) -> None:
    def look() -> dict[str, Any]:
        return {"when": threading, "é": 1}

    model.behave(calling(("look", {})), faults.ok("done"))
    Agent("helper", "", "tiny", [look]).run("go")
    assert json.loads(shown(model)[0])["é"] == 1


def test_tools_are_measured_by_agent_tool_and_outcome(model: FaultServer) -> None:
    model.behave(calling(("add", {"a": 1, "b": 1}), ("add", {}), ("made up", {})), faults.ok("done"))
    Agent("helper", "", "tiny", [add]).run("go")
    seen = [("add", "ok"), ("add", "TypeError"), ("unknown", "LookupError")]
    for name, outcome in seen:
        tags = {"agent": "helper", "tool": name, "outcome": outcome}
        assert perfkit.tracker.get_stats("tool_duration", tags=tags)["count"] == 1


def test_any_client_that_can_chat_may_be_asked() -> None:
    asked: list[dict[str, Any]] = []

    class Parrot:
        def chat(self, messages: Any, **options: Any) -> perfkit.ChatResponse:
            asked.append(options)
            return perfkit.ChatResponse(messages[-1]["content"], perfkit.Usage(1, 1), "m", "parrot")

    result = Agent("helper", "", None, client=Parrot()).run("hello")
    assert (result.text, result.cost) == ("hello", None)
    assert asked[0]["agent"] == "helper"


def test_one_agent_serves_many_threads(model: FaultServer) -> None:
    agent = Agent("helper", "", "tiny", [add])
    results = list(perfkit.agents.map_bounded(lambda n: agent.run(f"number {n}").text, range(16), 8))
    assert [result.value for result in results] == [f"echo: number {n}" for n in range(16)]


def test_a_result_is_json_and_comes_back(model: FaultServer) -> None:
    result = Agent("helper", "", "tiny").run("hello", {"a": 1})
    again = perfkit.AgentResult.from_dict(json.loads(json.dumps(result.to_dict())))
    assert again == result


def test_a_result_is_kept_by_a_cached_agent(model: FaultServer) -> None:
    agent = perfkit.CachedAgent(Agent("helper", "", "tiny"))
    first, second, other = (agent.run("hello", {"user_id": user}) for user in "aab")
    assert first == second
    assert other.context_variables == {"user_id": "b"}
    assert isinstance(second, perfkit.AgentResult)
    assert model.stats()["requests"] == 2


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda: Agent("a", "", None, [add, Tool(**{**_tool(), "name": "add"})]), ValueError, "have one name"),
        (lambda: Agent("a", "", None, max_rounds=0), ValueError, "max_rounds"),
        (lambda: Agent("a", "", None, tool_timeout=0), ValueError, "tool_timeout"),
        (lambda: Agent("a", "", None, ["nobody knows it"]), KeyError, "no tool 'nobody knows it'"),
    ],
)
def test_a_wrong_argument_is_refused_when_the_agent_is_made(
    wrong: Callable[[], Agent], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        wrong()


def _tool() -> dict[str, Any]:
    return {"name": "x", "description": "", "parameters": {}, "function": add}
