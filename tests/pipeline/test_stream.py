"""Streams from top to bottom, over real sockets."""

from __future__ import annotations

import pytest

import perfkit
from perfkit.testing import FaultServer, faults

pytestmark = pytest.mark.usefixtures("chat")


def test_text_comes_in_pieces_and_the_whole_response_afterwards() -> None:
    stream = perfkit.stream("one two three")
    before, pieces = stream.response, list(stream)
    assert before is None
    assert len(pieces) > 1
    assert stream.response is not None
    assert stream.response.text == "".join(pieces) == "echo: one two three"
    whole = perfkit.chat("one two three")
    assert stream.response.usage == whole.usage
    assert stream.response.cost == whole.cost
    assert stream.response.first_token is not None
    assert perfkit.tracker.get_stats("first_token")["count"] == 1


def test_nothing_is_sent_before_iteration_but_bad_input_is_refused_at_once(fault: FaultServer) -> None:
    perfkit.stream("hi")
    with pytest.raises(ValueError, match="empty"):
        perfkit.stream("")
    assert fault.stats()["requests"] == 0


def test_leaving_early_cancels_at_the_provider_and_still_counts_the_cost(fault: FaultServer) -> None:
    perfkit.optimizer.set_budget(("global", ""), 10_000.0, "day")
    fault.behave(faults.ok("word " * 200, interval=0.02))
    with perfkit.stream("tell me", max_tokens=100) as stream:
        heard = [next(stream), next(stream)]
    fault.wait_until(lambda counters: counters["aborted_by_client"] == 1)
    assert stream.response is None
    report = perfkit.optimizer.get_usage_report()["default"]["tiny"]
    assert report["request_count"] == 1
    assert 0 < report["total_tokens"] < 60
    [budget] = perfkit.optimizer.budgets()
    assert budget["held"] == 0
    assert budget["spent"] == pytest.approx(report["total_cost"])
    assert len(heard) == 2


def test_a_stream_that_was_left_or_cut_is_not_kept(fault: FaultServer) -> None:
    with perfkit.stream("same", temperature=0) as stream:
        next(stream)
    assert len(perfkit.cache) == 0
    fault.behave(faults.cut(after_events=3), then="ok")
    with pytest.raises(perfkit.StreamInterruptedError) as cut:
        list(perfkit.stream("same", temperature=0))
    assert "echo: same".startswith(cut.value.partial)
    assert cut.value.partial
    assert perfkit.chat("same", temperature=0).cached is None


def test_a_provider_that_fails_before_its_first_text_is_replaced_unseen(fault: FaultServer) -> None:
    with FaultServer() as other:
        perfkit.configure(
            providers={
                "local": {"kind": "openai", "base_url": fault.base_url, "api_key": "k", "priority": 1},
                "second": {"kind": "anthropic", "base_url": other.base_url, "api_key": "k", "priority": 2},
            },
            router={"strategy": "priority"},
        )
        for failure in (faults.server_error(), faults.reset(), faults.cut(after_events=0), faults.overloaded()):
            fault.behave(failure)
            stream = perfkit.stream("hello there")
            assert "".join(stream) == "echo: hello there"
            assert stream.response is not None
            assert [a.outcome for a in stream.response.attempts] == ["error", "ok"]
            assert stream.response.provider == "second"


def test_where_the_provider_fails_a_stream_gives_the_old_answer_too(fault: FaultServer) -> None:
    perfkit.configure(cache={"stale_if_error": 60}, router={"max_attempts": 1})
    policy = perfkit.CachePolicy(ttl=1e-6)
    first = perfkit.chat("same", cache=policy)
    fault.behave(faults.status(500))
    stream = perfkit.stream("same", cache=policy)
    assert "".join(stream) == first.text
    assert stream.response is not None
    assert (stream.response.cached, stream.response.cost) == ("exact", 0.0)
    with pytest.raises(perfkit.PerfkitError):
        list(perfkit.stream("other", cache=policy))


def test_a_wrong_request_is_remembered_by_streams_too(fault: FaultServer) -> None:
    perfkit.configure(cache={"error_ttl": 10})
    fault.behave(faults.status(422), then="ok")
    for _ in range(2):
        with pytest.raises(perfkit.BadRequestError):
            list(perfkit.stream("same", temperature=0))
    with pytest.raises(perfkit.BadRequestError):
        perfkit.chat("same", temperature=0)
    assert fault.stats()["requests"] == 1
