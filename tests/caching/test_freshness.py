from __future__ import annotations

import pytest

from perfkit.caching.freshness import CURRENT_TTL, CachePolicy, decide, read_traits
from perfkit.values import ChatRequest

SMART = CachePolicy.of("smart")


def verdict(text: str, *, policy: CachePolicy = SMART, **options: object) -> tuple[bool, str, float | None, str | None]:
    request = ChatRequest(text, "m", **{"temperature": 0, **options})  # type: ignore[arg-type]
    decision = decide(request, read_traits(request), policy)
    return decision.keep, decision.reason, decision.ttl, decision.user


def test_a_deterministic_question_is_kept_for_all() -> None:
    assert verdict("what is a queue?") == (True, "public", None, None)


@pytest.mark.parametrize("temperature", [None, 0.2, 1])
def test_without_a_low_temperature_nothing_is_kept(temperature: float | None) -> None:
    keep, reason, _, _ = verdict("what is a queue?", temperature=temperature)
    assert not keep
    assert "temperature" in reason


@pytest.mark.parametrize("temperature", [None, 0.2])
def test_a_route_may_say_that_its_answers_can_be_shared_all_the_same(temperature: float | None) -> None:
    policy = CachePolicy(smart=True, cacheable=True, ttl=7)
    assert verdict("what is a queue?", temperature=temperature, policy=policy) == (True, "public", 7, None)


def test_a_users_answers_are_his_own_unless_the_policy_shares_them() -> None:
    assert verdict("what is a queue?", user="42") == (True, "for this user", None, "42")
    assert verdict("what is a queue?", user="42", policy=CachePolicy(smart=True, scope="public")) == (
        True,
        "public",
        None,
        None,
    )


PERSONAL = [
    "what is my account balance?",
    "mail it to anna.k@example.com",
    "call me at +49 170 1234 5678",
    "my card 4111 1111 1111 1111 was charged",
    "where is my last order",
    "I ordered a lamp",
    "I'm travelling, I lost the key",
    "I have a rash",
]


@pytest.mark.parametrize("text", PERSONAL)
def test_personal_questions_are_never_shared(text: str) -> None:
    assert verdict(text)[:2] == (False, "personal data and no user given")
    assert verdict(text, user="42")[3] == "42"
    assert verdict(text, user="42", policy=CachePolicy(smart=True, scope="public"))[3] == "42"


@pytest.mark.parametrize("text", ["who won today?", "the latest release", "weather in Rome", "what time is it"])
def test_current_information_is_kept_for_minutes(text: str) -> None:
    assert verdict(text)[1:3] == ("current information", CURRENT_TTL)
    assert verdict(text, policy=CachePolicy(smart=True, ttl=10))[2] == 10
    assert verdict(text, policy=CachePolicy(smart=True, ttl=10_000))[2] == CURRENT_TTL


def test_answers_made_with_tools_are_not_kept() -> None:
    assert verdict("what is a queue?", tools=({"type": "function"},))[:2] == (False, "tools may have effects")


def test_always_and_never_mean_it() -> None:
    assert not verdict("what is a queue?", policy=CachePolicy.of("never"))[0]
    assert verdict("my account", temperature=1, user="42", policy=CachePolicy.of("always")) == (
        True,
        "policy always",
        None,
        "42",
    )


def test_text_parts_of_a_message_are_read() -> None:
    content = [{"type": "image_url", "image_url": {"url": "data:"}}, {"type": "text", "text": "is this my account?"}]
    request = ChatRequest([{"role": "user", "content": content}], "m", 0.0)
    assert read_traits(request).personal


def test_a_policy_for_users_keeps_nothing_without_one() -> None:
    assert not verdict("what is a queue?", policy=CachePolicy(scope="user"))[0]
    assert verdict("what is a queue?", policy=CachePolicy(scope="user"), user="42")[3] == "42"


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="'smart', 'always', 'never' or a CachePolicy, not 'smrt'"):
        CachePolicy.of("smrt")
