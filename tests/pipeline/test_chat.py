"""One call from top to bottom, over real sockets."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import perfkit
from perfkit.testing import FaultServer, faults


def test_an_answer_tells_what_it_cost_who_gave_it_and_how_long_it_took(
    chat: Callable[..., perfkit.ChatResponse],
) -> None:
    answer = chat("one two three")
    assert answer.text == "echo: one two three"
    assert (answer.provider, answer.model, answer.cached) == ("local", "tiny", None)
    assert answer.cost == answer.usage.prompt_tokens + 2 * answer.usage.completion_tokens
    assert answer.latency is not None
    assert answer.latency >= answer.attempts[0].seconds > 0
    assert [a.outcome for a in answer.attempts] == ["ok"]


def test_without_a_temperature_answers_are_not_shared(
    chat: Callable[..., perfkit.ChatResponse], fault: FaultServer
) -> None:
    assert [chat("same").cached for _ in range(3)] == [None] * 3
    assert chat("same").cache_decision == "temperature not given"
    assert fault.stats()["requests"] == 4


def test_a_deterministic_answer_is_paid_once(chat: Callable[..., perfkit.ChatResponse], fault: FaultServer) -> None:
    first, second = chat("same", temperature=0), chat("same", temperature=0)
    assert (second.cached, second.cost, second.attempts) == ("exact", 0.0, ())
    assert second.text == first.text
    assert second.usage == first.usage
    assert second.age is not None
    assert fault.stats()["requests"] == 1
    assert perfkit.tracker.get_stats("cache_saving")["sum"] == first.cost


def test_a_route_may_say_its_answers_are_cacheable(fault: FaultServer) -> None:
    perfkit.configure(
        providers={"local": {"kind": "openai", "base_url": fault.base_url, "api_key": "sk-test"}},
        routes={"faq": {"model": "tiny", "cacheable": True, "ttl": 60}},
    )
    assert [perfkit.chat("same", model="faq").cached for _ in range(2)] == [None, "exact"]
    assert perfkit.chat("same", model="tiny").cached is None
    assert '"model":"tiny"' in fault.stats()["recent"][0]["body"]


def test_one_user_never_gets_anothers_answer(chat: Callable[..., perfkit.ChatResponse], fault: FaultServer) -> None:
    for user in ("anna", "bert", "anna", "bert"):
        chat("what is a queue?", temperature=0, user=user)
    chat("what is a queue?", temperature=0)
    assert fault.stats()["requests"] == 3


def test_the_user_may_come_with_the_context(chat: Callable[..., perfkit.ChatResponse], fault: FaultServer) -> None:
    for context in ({"user_id": 1, "request_id": "a"}, {"user_id": 1, "request_id": "b"}, {"user_id": 2}):
        chat("what is a queue?", temperature=0, context=context)
    assert fault.stats()["requests"] == 2


@pytest.mark.parametrize(
    "change", [{"provider": "local"}, {"max_tokens": 5}, {"top_p": 0.5}, {"context": {"city": "rome"}}]
)
def test_another_question_is_another_call(
    chat: Callable[..., perfkit.ChatResponse], fault: FaultServer, change: dict[str, object]
) -> None:
    chat("same", temperature=0)
    assert chat("same", temperature=0, **change).cached is None
    assert fault.stats()["requests"] == 2


def test_threads_with_the_same_question_share_one_call(
    chat: Callable[..., perfkit.ChatResponse], fault: FaultServer
) -> None:
    fault.behave(faults.hang(), then="ok")
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(chat, "same", temperature=0) for _ in range(16)]
        fault.wait_until(lambda counters: counters["held"] == 1)
        fault.release()
        answers = [f.result(20) for f in asked]
    assert {a.text for a in answers} == {"echo: same"}
    assert fault.stats()["requests"] == 1
    assert sum(a.cost or 0 for a in answers) == max(a.cost or 0 for a in answers)


def test_an_error_is_shared_by_those_waiting_and_not_kept(
    chat: Callable[..., perfkit.ChatResponse], fault: FaultServer
) -> None:
    fault.behave(faults.status(422), then="ok")
    with pytest.raises(perfkit.BadRequestError):
        chat("same", temperature=0)
    assert chat("same", temperature=0).text == "echo: same"


def test_what_a_cached_answers_owner_changes_stays_his(chat: Callable[..., perfkit.ChatResponse]) -> None:
    chat("same", temperature=0)
    raw = chat("same", temperature=0).raw
    assert isinstance(raw, dict)
    raw["id"] = "changed"
    again = chat("same", temperature=0).raw
    assert again is not None
    assert again["id"] != "changed"


def test_a_call_over_its_budget_is_refused_before_anything_is_sent(
    chat: Callable[..., perfkit.ChatResponse], fault: FaultServer
) -> None:
    with pytest.raises(perfkit.BudgetExceededError, match="lower max_tokens") as refused:
        chat("one two three", max_tokens=10, budget=1.0)
    assert refused.value.limit == 1.0
    assert refused.value.needed > 20
    assert fault.stats()["requests"] == 0
    assert chat("one two three", max_tokens=10, budget=1000.0).cost


def test_an_unknown_price_means_no_cost_and_no_budgeted_call(fault: FaultServer) -> None:
    perfkit.configure(providers={"local": {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}})
    assert perfkit.chat("hi", model="model-without-price").cost is None
    with pytest.raises(perfkit.BudgetExceededError, match="no known price"):
        perfkit.chat("hi", model="model-without-price", budget=1.0)


def test_a_users_budget_holds_for_all_his_calls(chat: Callable[..., perfkit.ChatResponse], fault: FaultServer) -> None:
    perfkit.optimizer.set_budget(("user", "anna"), 60.0, "day")
    chat("one", user="anna", max_tokens=5)
    with pytest.raises(perfkit.BudgetExceededError) as refused:
        perfkit.batch([{"messages": f"one {n}", "user": "anna", "max_tokens": 5} for n in range(20)])
    assert refused.value.scope == ("user", "anna")
    assert refused.value.spent <= 60.0
    assert chat("one", user="bert", max_tokens=5).text == "echo: one"


def test_a_failed_call_gives_its_hold_back(chat: Callable[..., perfkit.ChatResponse], fault: FaultServer) -> None:
    perfkit.optimizer.set_budget(("global", ""), 100.0, "day")
    fault.behave(faults.unauthorized())
    with pytest.raises(perfkit.AuthenticationError):
        chat("one", max_tokens=5)
    [budget] = perfkit.optimizer.budgets()
    assert (budget["spent"], budget["held"]) == (0.0, 0.0)


def test_usage_and_metrics_are_recorded_by_agent_model_and_provider(chat: Callable[..., perfkit.ChatResponse]) -> None:
    answers = [chat(f"question {n}", agent="shop") for n in range(3)]
    report = perfkit.optimizer.get_usage_report()["shop"]["tiny"]
    assert report["request_count"] == 3
    assert report["total_tokens"] == sum(a.usage.total_tokens for a in answers)
    assert report["total_cost"] == pytest.approx(sum(a.cost or 0 for a in answers))
    assert perfkit.tracker.get_stats("agent_response_time", tags={"agent": "shop"})["count"] == 3
    assert perfkit.tracker.get_performance_summary()["local/tiny"]["requests"] == 3


def test_a_batch_answers_in_order_with_bounded_concurrency(
    chat: Callable[..., perfkit.ChatResponse], fault: FaultServer
) -> None:
    requests = ["plain", {"messages": "as arguments", "max_tokens": 5}, perfkit.ChatRequest("ready", "tiny")] * 8
    seen: list[int] = []
    answers = perfkit.batch(requests, max_concurrent=3, progress=seen.append)
    assert [a.text for a in answers] == ["echo: plain", "echo: as arguments", "echo: ready"] * 8
    assert seen == list(range(1, 25))
    assert fault.stats()["peak_in_flight"] <= 3


def test_a_batch_returns_or_raises_errors_as_asked(chat: Callable[..., perfkit.ChatResponse]) -> None:
    answers = perfkit.batch(["fine", {"messages": ""}, "fine too"], on_error="return")
    assert [type(a).__name__ for a in answers] == ["ChatResponse", "ValueError", "ChatResponse"]
    with pytest.raises(ValueError, match="empty"):
        perfkit.batch(["fine", {"messages": ""}])
    with pytest.raises(ValueError, match="on_error"):
        perfkit.batch(["fine"], on_error="ignore")  # type: ignore[call-overload]
    assert len(list(perfkit.batch(["a", "b"], ordered=False))) == 2


def test_closing_the_pool_in_mid_air_loses_no_later_call(chat: Callable[..., perfkit.ChatResponse]) -> None:
    stop = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(chat, f"n {n}") for n in range(40)]
        perfkit.connections.close()
        stop.set()
        assert {f.result(20).text for f in asked} == {f"echo: n {n}" for n in range(40)}


def test_users_of_ready_requests_are_kept_apart_too(
    chat: Callable[..., perfkit.ChatResponse], fault: FaultServer
) -> None:
    message = [{"role": "user", "content": "what is a queue?"}]
    for user in ("anna", "bert", "anna"):
        perfkit.client.run(perfkit.ChatRequest(message, "tiny", 0.0, metadata={"user_id": user}))
    assert fault.stats()["requests"] == 2
    for behalf in ("anna", "bert"):
        chat("what is a queue?", temperature=0, user="support", context={"user_id": behalf})
    assert fault.stats()["requests"] == 4


def test_a_route_that_is_pointed_elsewhere_asks_anew(fault: FaultServer) -> None:
    perfkit.configure(providers={"local": {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}})
    for model in ("one", "two", "one"):
        perfkit.configure(routes={"faq": {"model": model, "cacheable": True}})
        perfkit.chat("same", model="faq")
    assert fault.stats()["requests"] == 2


def test_a_route_may_say_its_answers_are_never_shared(fault: FaultServer) -> None:
    perfkit.configure(
        providers={"local": {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}},
        routes={"draw": {"model": "tiny", "cacheable": False}},
    )
    assert [perfkit.chat("same", model="draw", temperature=0).cached for _ in range(2)] == [None, None]


def test_a_cached_answer_costs_nothing_whatever_the_budget(chat: Callable[..., perfkit.ChatResponse]) -> None:
    chat("same", temperature=0, max_tokens=5)
    assert chat("same", temperature=0, max_tokens=5, budget=0.0).cached == "exact"


class Odd:
    """A provider made by hand."""

    def __init__(self, raw: object = None) -> None:
        self.raw, self.asked, self.timeouts = raw, 0, list[float | None]()

    def chat_completion(self, request: perfkit.ChatRequest) -> perfkit.ChatResponse:
        self.asked += 1
        self.timeouts.append(request.timeout)
        if request.messages[0]["content"] == "bad":
            raise perfkit.ContentFilterError("no")
        return perfkit.ChatResponse("fine", perfkit.Usage(1, 2), request.model, "odd", raw=self.raw)  # type: ignore[arg-type]


def test_an_answer_that_cannot_be_kept_is_delivered() -> None:
    odd = Odd(raw={"handle": object()})
    perfkit.router.register_provider("odd", odd)
    assert [perfkit.chat("same", model="m", temperature=0).text for _ in range(2)] == ["fine"] * 2
    assert odd.asked == 2
    assert perfkit.tracker.get_stats("cache_unstorable")["sum"] == 2


@pytest.mark.parametrize("ordered", [True, False])
def test_a_batch_that_raises_has_ended_its_threads_and_calls(ordered: bool) -> None:
    odd = Odd()
    perfkit.router.register_provider("odd", odd)
    requests = ({"messages": "bad" if n == 0 else "good", "model": "m"} for n in range(100_000))
    with pytest.raises(perfkit.ContentFilterError) as raised:
        list(perfkit.batch(requests, max_concurrent=2, ordered=ordered))
    assert raised.value.__traceback__ is not None  # holds the frames of the batch
    asked = odd.asked
    assert asked < 100_000
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("perfkit-batch")]
    assert odd.asked == asked


@pytest.mark.parametrize("one", ["abc", b"abc", {"messages": "abc"}, perfkit.ChatRequest("abc", "m")])
def test_a_single_request_is_no_batch(one: object) -> None:
    with pytest.raises(TypeError, match="into a list"):
        perfkit.batch(one)  # type: ignore[call-overload]


def test_the_settings_say_how_many_calls_a_batch_makes_at_a_time(
    chat: Callable[..., perfkit.ChatResponse], fault: FaultServer
) -> None:
    perfkit.configure(client={"max_concurrent": 3})
    fault.behave(*[faults.hang()] * 3, then="ok")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(perfkit.batch, [f"question {n}" for n in range(12)])
        fault.wait_until(lambda counters: counters["held"] == 3)
        fault.release()
        assert len(asked.result(20)) == 12
    assert fault.stats()["peak_in_flight"] == 3


def test_who_waited_in_vain_asks_himself_within_the_rest_of_his_time() -> None:
    started, go = threading.Event(), threading.Event()

    class Late(Odd):
        def chat_completion(self, request: perfkit.ChatRequest) -> perfkit.ChatResponse:
            if not started.is_set():
                started.set()
                go.wait(10)
                raise perfkit.DeadlineExceeded("late")
            return super().chat_completion(request)

    late = Late()
    perfkit.router.register_provider("late", late)
    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(perfkit.chat, "same", model="m", temperature=0, timeout=5)
        started.wait(10)
        follower = pool.submit(perfkit.chat, "same", model="m", temperature=0, timeout=30)
        while not perfkit.cache._loader.flights._waiting:
            threading.Event().wait(0.001)
        threading.Event().wait(0.05)  # time that is gone for the follower
        go.set()
        assert follower.result(20).text == "fine"
        assert isinstance(leader.exception(20), perfkit.DeadlineExceeded)
    [timeout] = late.timeouts
    assert timeout is not None
    assert timeout <= 29.96


@pytest.mark.parametrize("answer", [faults.ok("", finish_reason="content_filter"), faults.ok("")])
def test_an_answer_that_is_none_is_not_kept(
    chat: Callable[..., perfkit.ChatResponse], fault: FaultServer, answer: Any
) -> None:
    fault.behave(answer, then="ok")
    assert chat("same", temperature=0).text == ""
    assert chat("same", temperature=0).text == "echo: same"
