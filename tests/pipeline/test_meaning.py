"""Calls answered by a question that means the same, over real sockets."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit import CachePolicy, Client, FakeClock, ResponseCache
from perfkit.caching.semantic import SemanticCache
from perfkit.metrics import PerformanceTracker
from perfkit.pipeline.known import LONGEST
from perfkit.providers import create_provider
from perfkit.routing import ProviderRouter
from perfkit.testing import FaultServer
from perfkit.values import ChatRequest, ChatResponse, Usage

ONE, ALIKE, OTHER = "How do I cook rice?", "Tell me how rice gets cooked well in an oven pot", "Where is Vienna?"
FARTHER = "rice cooking in general, how goes that"
PLACES = {ONE: [1.0, 0.0, 0.0], ALIKE: [0.99, 0.1, 0.0], OTHER: [0.0, 0.0, 1.0], FARTHER: [0.98, -0.11, 0.0]}


def embed(texts: Sequence[str]) -> list[list[float]]:
    return [PLACES.get(text, [1.0, 0.02, 0.0]) for text in texts]


def same(cached: ChatResponse, fresh: ChatResponse) -> bool:
    return ("Vienna" in cached.text) == ("Vienna" in fresh.text)


class Setup:
    """A client whose semantic cache takes rice for rice."""

    def __init__(self, fault: FaultServer, **settings: Any) -> None:
        self.clock, self.fault = FakeClock(), fault
        self.tracker = PerformanceTracker()
        router = ProviderRouter()
        router.register_provider(
            "p", create_provider("openai", base_url=fault.base_url, api_key="k", models=["m", "n"])
        )
        self.cache = ResponseCache(clock=self.clock, tracker=self.tracker)
        self.semantic = SemanticCache(embed=embed, tracker=self.tracker, judge=same, **{"verify": 0.0, **settings})
        self.client = Client(router=router, cache=self.cache, clock=self.clock, tracker=self.tracker)

    def ask(self, text: Any, **options: Any) -> ChatResponse:
        policy = CachePolicy(semantic=self.semantic, **options.pop("policy", {}))
        return self.client.chat(text, **{"model": "m", "temperature": 0, "cache": policy, **options})


def test_a_question_that_means_the_same_gets_the_answer_of_the_first(fault: FaultServer) -> None:
    setup = Setup(fault)
    first, second = setup.ask(ONE), setup.ask(ALIKE)
    assert (second.text, second.cached, second.cost, second.attempts) == (first.text, "semantic", 0.0, ())
    assert setup.ask(ONE).cached == "exact"
    assert setup.ask(OTHER).cached is None
    assert fault.stats()["requests"] == 2
    assert setup.semantic.stats()["served"] == 1
    counted = {
        result: setup.tracker.get_stats("llm_cache", tags={"result": result}) for result in ("semantic", "exact")
    }
    assert [stats["sum"] for stats in counted.values()] == [1, 1]


def test_a_long_question_is_not_looked_for_as_an_embedder_may_not_read_its_end(fault: FaultServer) -> None:
    for length, found in ((LONGEST, "semantic"), (LONGEST + 1, None)):
        setup, rest = Setup(fault), "cook rice ".ljust(length - len("please "), "x")
        assert setup.ask("please " + rest).cached is None
        assert setup.ask("kindly " + rest).cached == found


def test_it_is_off_unless_asked_for(fault: FaultServer) -> None:
    setup = Setup(fault)
    for text in (ONE, ALIKE):
        assert setup.client.chat(text, model="m", temperature=0, cache=CachePolicy()).cached is None
    assert len(setup.semantic) == 0


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"model": "n"}),
        ({}, {"max_tokens": 5}),
        ({"user": "anna"}, {"user": "bert"}),
        ({"user": "anna"}, {}),
        ({}, {"context": {"tenant": "b"}}),
        ({}, {"temperature": 0.1}),
        ({}, {"seed": 3}),
    ],
)
def test_everything_but_the_words_must_be_the_same(
    fault: FaultServer, first: dict[str, Any], second: dict[str, Any]
) -> None:
    setup = Setup(fault)
    setup.ask(ONE, **first)
    assert setup.ask(ALIKE, **second).cached is None
    assert setup.ask(ALIKE, **first).cached == "semantic"


def test_the_conversation_so_far_and_the_system_prompt_must_be_the_same(fault: FaultServer) -> None:
    setup = Setup(fault)

    def talk(system: str, before: str, text: str) -> str | None:
        said = [("system", system), ("user", before), ("assistant", "ok"), ("user", text)]
        return setup.ask([{"role": role, "content": content} for role, content in said]).cached

    assert talk("brief", "hello", ONE) is None
    assert talk("long", "hello", ALIKE) is None
    assert talk("brief", "bye", ALIKE) is None
    assert talk("brief", "hello", ALIKE) == "semantic"


def test_a_guard_keeps_two_near_questions_apart(fault: FaultServer) -> None:
    setup = Setup(fault)
    setup.ask("boil 2 eggs for anna")
    assert setup.ask("boil 3 eggs for anna").cached is None
    assert setup.semantic.stats()["refused"] == {"numbers": 1}


def test_an_answer_that_has_left_the_cache_or_is_too_old_is_not_served(fault: FaultServer) -> None:
    setup = Setup(fault)
    setup.ask(ONE, policy={"ttl": 100})
    setup.clock.advance(50)
    assert setup.ask(ALIKE, policy={"ttl": 10}).cached is None  # it wants a younger one
    setup.cache.clear()
    assert setup.ask(ALIKE, policy={"ttl": 100}).cached is None


def test_a_stream_is_answered_and_remembered_too(fault: FaultServer) -> None:
    setup = Setup(fault)
    policy = CachePolicy(semantic=setup.semantic)

    def spoken(text: str) -> tuple[str, str | None]:
        stream = setup.client.stream(text, model="m", temperature=0, cache=policy)
        whole = "".join(stream)
        assert stream.response is not None
        return whole, stream.response.cached

    first = spoken(ONE)
    assert first[1] is None
    assert spoken(ALIKE) == (first[0], "semantic")
    assert fault.stats()["requests"] == 1


def test_an_embedder_that_fails_costs_only_the_saving(fault: FaultServer) -> None:
    def broken(_: Sequence[str]) -> list[Any]:
        raise OSError("no model")

    setup = Setup(fault)
    setup.semantic.use(embed=broken)
    assert [setup.ask(ONE).cached, setup.ask(ALIKE).cached, setup.ask(ONE).cached] == [None, None, "exact"]
    assert setup.semantic.stats()["errors"] == 2


def test_verified_hits_are_asked_again_compared_and_counted_with_their_cost(fault: FaultServer) -> None:
    setup = Setup(fault, verify=1.0)
    setup.ask(ONE)
    assert setup.ask(ALIKE).cached is None
    stats = setup.semantic.stats()
    assert (stats["verified"], stats["wrong"], stats["served"]) == (1, 0, 0)
    assert stats["wrong_rate"] == 0.0
    assert fault.stats()["requests"] == 2


def test_what_a_verified_question_was_right_for_stands_for_the_same_answer(fault: FaultServer) -> None:
    setup = Setup(fault, verify=1.0)
    setup.ask(ONE)
    setup.ask(ALIKE)
    answers = {id(match.answer) for match in setup.semantic._questions.matches(*_place(setup), 0.9)}
    assert len(setup.semantic) == 2
    assert len(answers) == 1


def _place(setup: Setup) -> tuple[str, str, Any]:
    partition = next(iter(setup.semantic._questions._partitions))
    question = setup.semantic.ask(partition, "m", ONE)
    assert question is not None
    return partition, question.text, question.vector


def test_an_answer_found_wrong_is_not_served_for_what_is_as_far(fault: FaultServer) -> None:
    setup = Setup(fault, verify=1.0)
    setup.semantic.use(judge=lambda *_: False)
    setup.ask(ONE)
    setup.ask(ALIKE)
    setup.semantic.configure(verify=0.0)
    assert setup.semantic.stats()["wrong"] == 1
    assert setup.ask(FARTHER).cached is None
    assert setup.ask("how is rice cooked well").cached == "semantic"  # nearer than the one it was wrong for


def test_shadow_mode_serves_nothing_and_tells_what_it_would_have(fault: FaultServer) -> None:
    setup = Setup(fault, shadow=True)
    setup.ask(ONE)
    assert setup.ask(ALIKE).cached is None
    stats = setup.semantic.stats()
    assert (stats["would_serve"], stats["verified"], stats["wrong"], stats["served"]) == (1, 1, 0, 0)
    assert stats["verification_cost"] == 0.0


def test_a_judge_that_raises_says_wrong(fault: FaultServer) -> None:
    setup = Setup(fault, verify=1.0)
    setup.semantic.use(judge=lambda *_: 1 / 0 > 0)
    setup.ask(ONE)
    setup.ask(ALIKE)
    assert (setup.semantic.stats()["wrong"], setup.semantic.stats()["errors"]) == (1, 1)


def test_with_an_error_bound_nothing_is_served_until_it_is_known_to_be_safe(fault: FaultServer) -> None:
    setup = Setup(fault, max_error_rate=0.01)
    setup.ask(ONE)
    assert setup.ask(ALIKE).cached is None
    assert setup.semantic.stats()["routes"]["m"]["verified"] == 1


def served_by(semantic: SemanticCache, answers: dict[str, str], text: str, scope: str, truth: str) -> str | None:
    question = semantic.ask(scope, "m", text)
    assert question is not None
    found = semantic.search(question)
    if found is not None and found.action == "serve":
        return answers[found.key]
    key = f"{scope}/{text}"
    answers[key] = truth
    like = None
    if found is not None:
        old = ChatResponse(answers[found.key], Usage(1, 1), "m", "p")
        like = found if semantic.learn(question, found, old, ChatResponse(truth, Usage(1, 1), "m", "p")) else None
    semantic.add(question, key, like=like)
    return None


def test_with_an_error_bound_what_is_served_is_wrong_at_most_that_often() -> None:
    """Points near topics, of which one in ten has a twin: the embedder's error is known."""
    chosen = random.Random(4)
    vectors: dict[str, list[float]] = {}
    centres = [[chosen.gauss(0, 1) for _ in range(32)] for _ in range(20)]
    for topic in range(0, 20, 10):
        centres[topic + 1] = [x + 0.3 * chosen.gauss(0, 1) for x in centres[topic]]
    semantic = SemanticCache(
        embed=lambda texts: [vectors[text] for text in texts],
        judge=lambda one, two: one.text == two.text,
        tracker=PerformanceTracker(),
        rng=random.Random(1),
        max_error_rate=0.02,
    )
    answers: dict[str, str] = {}
    hits = wrong = 0
    for number in range(1500):
        text, topic = "x" * (number + 1), chosen.randrange(20)
        vectors[text] = [x + 0.25 * chosen.gauss(0, 1) for x in centres[topic]]
        got = served_by(semantic, answers, text, "scope", str(topic))
        hits += got is not None
        wrong += got is not None and got != str(topic)
    assert hits > 300
    assert wrong <= 0.02 * hits


people = st.sampled_from([None, "anna", "bert", "anna:public"])
tenants = st.sampled_from([None, "one", "two"])


@settings(max_examples=50)
@given(st.lists(st.tuples(people, tenants, st.sampled_from([ONE, ALIKE, "how is rice cooked well"])), max_size=15))
def test_no_answer_crosses_users_or_tenants(calls: list[tuple[str | None, str | None, str]]) -> None:
    class Whose:
        """A provider that says who asked."""

        supported_models = ("m",)

        def chat_completion(self, request: ChatRequest) -> ChatResponse:
            return ChatResponse(f"{request.user} of {request.metadata.get('tenant')}", Usage(1, 1), "m", "w")

    router = ProviderRouter()
    router.register_provider("w", Whose())
    tracker = PerformanceTracker()
    semantic = SemanticCache(embed=embed, tracker=tracker, verify=0.0)
    client = Client(router=router, cache=ResponseCache(tracker=tracker), tracker=tracker)
    for user, tenant, text in calls:
        context = {} if tenant is None else {"tenant": tenant}
        policy = CachePolicy(semantic=semantic)
        answer = client.chat(text, model="m", temperature=0, user=user, context=context, cache=policy)
        assert answer.text == f"{user} of {tenant}"


def test_near_pairs_are_never_served_exactly_or_under_smart(fault: FaultServer) -> None:
    from _pairs import CLASSES, pairs

    setup = Setup(fault)
    ask: Callable[..., ChatResponse] = setup.client.chat
    chosen = [pair for kind in CLASSES for pair in pairs(kind)[:3]]
    for a, b in chosen:
        one = ask(a, model="m", temperature=0, user="u").text
        two = ask(b, model="m", temperature=0, user="u")
        assert two.text != one
