"""Compressed requests and their restored answers, over real sockets."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

import perfkit
from perfkit.errors import StreamInterruptedError
from perfkit.testing import FaultServer, faults
from perfkit.testing.llm import LlamaServer

ONE, TWO = str(UUID(int=1)), str(UUID(int=2))
RULES = f"You help with orders. Never cancel {UUID(int=9)}. " + json.dumps({"tone": "kind", "words": 20}, indent=4)
ORDERS = json.dumps([{"order": ONE, "state": "open"}, {"order": TWO, "state": "paid"}], indent=2)
CALL = {"id": "c1", "type": "function", "function": {"name": "orders", "arguments": "{}"}}
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": RULES},
    {"role": "user", "content": "Which orders are open?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": ORDERS},
]
SHORT = '{"cols":["order","state"],"rows":[["uid0","open"],["uid1","paid"]]}'


def configure(fault: FaultServer, *, compress: bool = True, **more: Any) -> None:
    perfkit.configure(
        providers={"local": {"kind": "openai", "base_url": fault.base_url, "api_key": "sk-test"}},
        client={"default_model": "gpt-4o"},
        tokens={"compress": compress},
        **more,
    )


def sent(fault: FaultServer) -> list[list[dict[str, Any]]]:
    return [json.loads(request["body"])["messages"] for request in fault.stats()["recent"]]


def pieces(*texts: str) -> faults.Behaviour:
    def block(**choice: Any) -> str:
        return "data: " + json.dumps({"id": "1", "model": "gpt-4o", "choices": [{"index": 0, **choice}]}) + "\n\n"

    return faults.sse(
        *(block(delta={"content": text}) for text in texts), block(delta={}, finish_reason="stop"), "data: [DONE]\n\n"
    )


def test_nothing_is_compressed_unless_it_is_switched_on(fault: FaultServer) -> None:
    configure(fault, compress=False)
    fault.behave(faults.ok("uid0 is open"))
    answer = perfkit.chat(TALK)
    assert (answer.text, answer.saved_tokens) == ("uid0 is open", 0)
    assert sent(fault) == [TALK]
    assert perfkit.tracker.get_stats("tokens_saved") == {}


def test_results_of_tools_are_sent_short_and_the_answer_has_what_they_meant(fault: FaultServer) -> None:
    configure(fault)
    fault.behave(faults.ok("uid0 is open, uid7 is not mine"))
    fresh, kept = (perfkit.chat(TALK, temperature=0) for _ in range(2))
    assert fresh.text == kept.text == f"{ONE} is open, uid7 is not mine"
    assert (kept.cached, kept.saved_tokens) == ("exact", 0)
    assert sent(fault) == [[*TALK[:3], {**TALK[3], "content": SHORT}]]
    expected = perfkit.optimizer.count_tokens(ORDERS, "gpt-4o") - perfkit.optimizer.count_tokens(SHORT, "gpt-4o")
    assert fresh.saved_tokens == expected > 20
    assert perfkit.tracker.get_stats("tokens_saved")["sum"] == expected


def test_arguments_of_tool_calls_have_what_was_meant(fault: FaultServer) -> None:
    configure(fault)
    call = {"id": "c2", "type": "function", "function": {"name": "cancel", "arguments": '{"order": "uid1"}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    fault.behave(faults.status(200, body={"id": "1", "model": "gpt-4o", "choices": [choice], "usage": usage}))
    [found] = perfkit.chat(TALK).tool_calls
    assert json.loads(found["function"]["arguments"]) == {"order": TWO}


def test_a_stream_is_restored_wherever_it_is_cut(fault: FaultServer) -> None:
    configure(fault)
    fault.behave(pieces("Order u", "id", "0 is open, fluid", "0 and uid", "12 are not; u", "id1"))
    whole = f"Order {ONE} is open, fluid0 and uid12 are not; {TWO}"
    for cached in (None, "exact"):
        stream = perfkit.stream(TALK, temperature=0)
        assert "".join(stream) == whole
        assert stream.response is not None
        assert (stream.response.text, stream.response.cached) == (whole, cached)
    assert fault.stats()["requests"] == 1


def test_what_came_of_a_broken_stream_is_restored(fault: FaultServer) -> None:
    configure(fault, router={"max_attempts": 1})
    fault.behave(faults.cut(pieces("Order uid0 ", "is ", "open"), after_events=2))
    with pytest.raises(StreamInterruptedError) as broken:
        list(perfkit.stream(TALK))
    assert broken.value.partial.startswith(f"Order {ONE} is")


def test_a_growing_conversation_keeps_its_beginning(fault: FaultServer) -> None:
    configure(fault)
    more = [
        *TALK,
        {"role": "assistant", "content": f"{ONE} is open."},
        {"role": "user", "content": f"Cancel {ONE} and look at {UUID(int=3)}."},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{**CALL, "function": {"name": "x", "arguments": f'["{ONE}"]'}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": f"{ONE} cancelled; {UUID(int=3)} and {UUID(int=4)} are paid"},
    ]
    for length in (4, 6, 8):
        perfkit.chat(more[:length])
    first, second, third = sent(fault)
    assert second[:4] == first
    assert third[:6] == second
    assert third[4]["content"] == "uid0 is open."
    assert third[5]["content"] == f"Cancel uid0 and look at {UUID(int=3)}."
    assert third[6]["tool_calls"][0]["function"]["arguments"] == '["uid0"]'
    assert third[7]["content"] == f"uid0 cancelled; {UUID(int=3)} and uid2 are paid"


def test_a_uuid_that_somebody_wrote_before_keeps_its_name(fault: FaultServer) -> None:
    configure(fault)
    perfkit.chat([TALK[0], {"role": "user", "content": f"Is {TWO.upper()} paid?"}, *TALK[2:]])
    [[*_, result]] = sent(fault)
    assert TWO in result["content"]
    assert ONE not in result["content"]


def test_names_are_none_that_the_conversation_uses(fault: FaultServer) -> None:
    configure(fault)
    fault.behave(faults.ok("ref0, not uid0"))
    answer = perfkit.chat([*TALK, {"role": "user", "content": "What does uid0 mean?"}])
    assert answer.text == f"{ONE}, not uid0"


def test_json_of_a_user_is_compressed_and_words_around_json_are_not(fault: FaultServer) -> None:
    configure(fault)
    for content in (ORDERS, [{"type": "text", "text": "Look:"}, {"type": "text", "text": ORDERS}], f"Look: {ORDERS}"):
        perfkit.chat([{"role": "user", "content": content}])
    [whole], [parts], [words] = sent(fault)
    assert whole["content"] == SHORT
    assert [part["text"] for part in parts["content"]] == ["Look:", SHORT]
    assert words["content"] == f"Look: {ORDERS}"


def test_what_the_caller_wants_cached_is_left_alone(fault: FaultServer) -> None:
    configure(fault)
    part = {"type": "text", "text": "Which?", "cache_control": {"type": "ephemeral"}}
    marked = [*TALK, {"role": "user", "content": [part]}]
    perfkit.chat([*marked, {"role": "assistant", "content": "this"}, {"role": "user", "content": ORDERS}])
    [messages] = sent(fault)
    assert messages[: len(marked)] == marked
    assert ONE in messages[-1]["content"]
    assert len(messages[-1]["content"]) < len(ORDERS)


@pytest.mark.parametrize("everywhere", [False, True])
def test_a_route_decides_for_itself(fault: FaultServer, *, everywhere: bool) -> None:
    configure(fault, compress=everywhere, routes={"other": {"model": "gpt-4o", "compress": not everywhere}})
    saved = [perfkit.chat(TALK, model=model).saved_tokens > 0 for model in ("gpt-4o", "other")]
    assert saved == [everywhere, not everywhere]


def test_the_server_counts_fewer_tokens_by_what_is_told_saved(llm: LlamaServer) -> None:
    reported = []
    for compress in (False, True):
        perfkit.configure(
            providers={"local": {"kind": "openai", "base_url": llm.base_url, "api_key": "sk"}},
            tokens={"compress": compress},
        )
        answer = perfkit.chat([{"role": "user", "content": ORDERS}], model="tiny", max_tokens=2)
        reported.append(answer.usage.prompt_tokens)
    assert answer.saved_tokens > 0
    assert reported[1] < 0.7 * reported[0]
