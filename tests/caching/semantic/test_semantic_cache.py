"""The semantic cache by itself: what it remembers, forgets and learns."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

import perfkit
from perfkit import CachePolicy, SemanticCache
from perfkit.caching.semantic import store
from perfkit.errors import ConfigError
from perfkit.metrics import PerformanceTracker
from perfkit.testing import FaultServer
from perfkit.values import ChatResponse, Usage


def at(angle: float) -> list[float]:
    return [1.0, angle, 0.0]


def embed(texts: Sequence[str]) -> list[list[float]]:
    return [at(len(text) / 1000) for text in texts]


def made(**settings: Any) -> SemanticCache:
    rng = random.Random(1)
    return SemanticCache(embed=embed, tracker=PerformanceTracker(), rng=rng, **{"verify": 0.0, **settings})


def known(semantic: SemanticCache, text: str, partition: str = "p", key: str | None = None) -> None:
    question = semantic.ask(partition, "r", text)
    assert question is not None
    semantic.add(question, key if key is not None else f"key of {text}")


def found(semantic: SemanticCache, text: str, partition: str = "p") -> Any:
    question = semantic.ask(partition, "r", text)
    assert question is not None
    return semantic.search(question)


def answer(text: str, cost: float | None = None) -> ChatResponse:
    return ChatResponse(text, Usage(1, 1), "m", "p", cost=cost)


def test_the_nearest_question_is_found_and_only_in_its_partition() -> None:
    semantic = made()
    known(semantic, "xxxx")
    known(semantic, "x" * 60)
    assert found(semantic, "xxxxx").key == "key of xxxx"
    assert found(semantic, "x" * 55).key == f"key of {'x' * 60}"
    assert found(semantic, "xxxxx", "other") is None


def test_below_the_threshold_nothing_is_found() -> None:
    semantic = made(threshold=0.9999)
    known(semantic, "x")
    assert found(semantic, "x" * 10).action == "serve"
    assert found(semantic, "x" * 30) is None


def test_a_forgotten_answer_is_not_found_and_its_room_is_used_again() -> None:
    semantic = made()
    for n in range(1, 40):
        known(semantic, "x" * n)
    for n in range(1, 30):
        question = semantic.ask("p", "r", "x" * n)
        assert question is not None
        one = semantic.search(question)
        assert one is not None
        semantic.gone(question, one)
    assert len(semantic) < 25
    left = {found(semantic, "x" * n).key for n in range(1, 40)}
    assert len(left) >= 1


def test_a_question_asked_anew_begins_without_what_was_learned_of_its_old_answer() -> None:
    semantic = made()
    known(semantic, "xxxx")
    question = semantic.ask("p", "r", "xxxxx")
    assert question is not None
    for _ in range(3):
        one = semantic.search(question)
        assert one is not None
        semantic.learn(question, one, answer("same"), answer("same"))
    semantic.add(question, "key of xxxxx", like=one)
    semantic.add(question, "key of xxxxx", like=found(semantic, "xxxx"))
    assert len(semantic) == 2  # each question once
    assert found(semantic, "xxxx").match.evidence.right == 3
    known(semantic, "xxxx")
    again = found(semantic, "xxxx").match
    assert (again.evidence.right, again.answer.key) == (0, "key of xxxx")
    assert len(semantic) == 1  # those that led to the old answer are gone


def test_the_bound_of_entries_drops_the_partition_unused_for_longest() -> None:
    semantic = made(max_entries=6)
    for at, partition in enumerate(("a", "b", "a", "c")):
        for n in (1, 2):
            known(semantic, "x" * (n + at), partition)
        assert len(semantic) <= 6
    assert found(semantic, "xx", "b") is not None or found(semantic, "xx", "a") is not None
    known(semantic, "x", "d")
    assert found(semantic, "xx", "b") is None


def test_one_partition_alone_loses_its_older_half() -> None:
    semantic = made(max_entries=10)
    for n in range(11):
        known(semantic, "x" * (1 + 90 * n))
    assert len(semantic) < 10
    assert found(semantic, "x" * 901).key == f"key of {'x' * 901}"


def test_beyond_the_limit_of_comparing_all_a_graph_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    from _parts import needs_module

    needs_module("usearch")
    monkeypatch.setattr(store, "BRUTE_FORCE_LIMIT", 20)
    semantic = made()
    for n in range(40):
        known(semantic, "x" * (1 + 30 * n))
    assert type(semantic._questions._partitions["p"].index).__name__ == "Graph"
    assert found(semantic, "x" * 300).key == f"key of {'x' * 301}"


def test_another_embedder_begins_without_questions() -> None:
    semantic = made()
    known(semantic, "x")
    semantic.use(embed=lambda texts: [[1.0, 2.0] for _ in texts])
    assert len(semantic) == 0
    assert semantic.ask("p", "r", "x") is not None


def test_an_embedder_that_changes_its_dimensions_is_an_error_that_is_counted() -> None:
    vectors = iter([[1.0, 2.0], [1.0, 2.0, 3.0]])
    semantic = made()
    semantic.use(embed=lambda _: [next(vectors)])
    assert semantic.ask("p", "r", "a") is not None
    assert semantic.ask("p", "r", "b") is None
    assert semantic.stats()["errors"] == 1


def test_the_cost_of_second_calls_is_added_up() -> None:
    semantic = made(verify=1.0)
    known(semantic, "xxxx")
    question = semantic.ask("p", "r", "xxxxx")
    assert question is not None
    one = semantic.search(question)
    assert one is not None
    assert one.action == "verify"
    assert semantic.learn(question, one, answer("same"), answer("Same ", 0.25))
    stats = semantic.stats()
    assert (stats["verification_cost"], stats["verified"], stats["wrong"]) == (0.25, 1, 0)
    assert stats["wrong_rate_bound"] > 0.5
    assert semantic._shared_tracker().get_stats("semantic_verification_cost")["sum"] == 0.25


def test_reset_forgets_what_was_learned_and_clear_only_the_questions() -> None:
    semantic = made(verify=1.0, max_error_rate=0.01)
    for forget in (semantic.clear, semantic.reset):
        known(semantic, "xxxx")
        question = semantic.ask("p", "r", "xxxxx")
        assert question is not None
        one = semantic.search(question)
        assert one is not None
        semantic.learn(question, one, answer("a"), answer("b"))
        forget()
        assert len(semantic) == 0
        assert bool(semantic.stats()["routes"]) == (forget == semantic.clear)


def test_after_a_fork_its_locks_are_new() -> None:
    semantic = made(max_error_rate=0.01)
    known(semantic, "xxxx")
    assert found(semantic, "xxxxx") is not None
    bound = semantic._bound("r")
    locks = [semantic._lock, semantic._questions._lock, bound._lock]
    for lock in locks:
        lock.acquire()
    semantic._after_fork()
    assert found(semantic, "xxxxx") is None  # they may have been half changed
    known(semantic, "xxxx")
    assert found(semantic, "xxxxx") is not None
    semantic._after_fork()
    assert semantic.stats()["questions"] == 1


@pytest.mark.parametrize("wrong", [{"threshold": 0}, {"max_error_rate": 0}, {"verify": -1}, {"thresold": 1}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SemanticCache(**wrong)


def test_a_route_takes_the_shared_one(fault: FaultServer) -> None:
    perfkit.configure(
        providers={"local": {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}},
        routes={"faq": {"model": "tiny", "cacheable": True, "semantic": True}, "plain": {"model": "tiny"}},
        semantic={"embedder": "hashed", "threshold": 0.9, "verify": 0.0},
    )
    first = perfkit.chat("How do I reset the router?", model="faq")
    assert perfkit.chat("How do I reset the router??", model="faq").cached == "semantic"
    assert perfkit.chat("How do I reset the router??", model="plain").cached is None
    assert first.cached is None
    assert SemanticCache.instance().stats()["served"] == 1


def test_true_takes_the_shared_one_and_reset_empties_it(fault: FaultServer) -> None:
    perfkit.configure(
        providers={"local": {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}},
        semantic={"threshold": 0.9, "verify": 0.0},
    )
    policy = CachePolicy(semantic=True)
    perfkit.chat("How do I reset the router?", model="m", cache=policy)
    assert perfkit.chat("how do I reset the router", model="m", cache=policy).cached == "semantic"
    perfkit.reset()
    assert len(SemanticCache.instance()) == 0
