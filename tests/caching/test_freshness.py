from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from perfkit.caching.freshness import CURRENT_TTL, RULES, TTLS, CachePolicy, decide, read_traits
from perfkit.values import ChatRequest

SMART = CachePolicy.of("smart")
DATA = Path(__file__).resolve().parents[1] / "data"


def verdict(text: str, *, policy: CachePolicy = SMART, **options: object) -> tuple[bool, str, float | None, str | None]:
    request = ChatRequest(text, "m", **{"temperature": 0, **options})  # type: ignore[arg-type]
    decision = decide(request, read_traits(request), policy)
    return decision.keep, decision.reason, decision.ttl, decision.user


def prompts(name: str) -> list[str]:
    return (DATA / f"{name}_prompts.txt").read_text(encoding="utf-8").splitlines()


def test_a_deterministic_question_is_kept_for_all() -> None:
    assert verdict("sort these words") == (True, "public", TTLS["default"], None)


@pytest.mark.parametrize("temperature", [None, 0.2, 1])
def test_without_a_low_temperature_nothing_is_kept(temperature: float | None) -> None:
    keep, reason, _, _ = verdict("what is a queue?", temperature=temperature)
    assert not keep
    assert "temperature" in reason


@pytest.mark.parametrize("temperature", [None, 0.2])
def test_a_route_may_say_that_its_answers_can_be_shared_all_the_same(temperature: float | None) -> None:
    policy = CachePolicy(smart=True, cacheable=True, ttl=7)
    assert verdict("sort these words", temperature=temperature, policy=policy) == (True, "public", 7, None)


def test_a_users_answers_are_his_own_unless_the_policy_shares_them() -> None:
    assert verdict("sort these words", user="42") == (True, "for this user", TTLS["default"], "42")
    assert verdict("sort these words", user="42", policy=CachePolicy(smart=True, scope="public")) == (
        True,
        "public",
        TTLS["default"],
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


@pytest.mark.parametrize("text", prompts("personal"))
def test_what_depends_on_the_one_who_asks_is_not_kept_without_a_user(text: str) -> None:
    assert verdict(text)[:2] == (False, "personal data and no user given")


# Lists of which every other line was never fitted to: how many of either half may be wrong, and their length.
JUDGED = [("veiled", (0, 5), 200), ("mixed_personal", (0, 13), 400), ("mixed_public", (10, 20), 400)]


@pytest.mark.parametrize(("name", "most", "length"), JUDGED)
def test_few_questions_are_taken_for_somebody_elses(name: str, most: tuple[int, int], length: int) -> None:
    found = prompts(name)
    wrong = [[text for text in found[half::2] if verdict(text)[0] != ("public" in name)] for half in (0, 1)]
    assert [len(half) <= bound for half, bound in zip(wrong, most, strict=True)] == [True, True], wrong
    assert len(found) == length


def test_few_general_questions_are_taken_for_personal() -> None:
    assert sum(not verdict(text)[0] for text in prompts("general")) <= 2


def test_what_is_written_in_a_script_nobody_knows_here_is_kept_from_others() -> None:
    assert not verdict("余额")[0]
    assert not verdict("заказ")[0]
    assert verdict("What does 你好 mean?")[0]
    assert verdict("What is the value of ππ?")[0]


def test_no_text_takes_long_to_read() -> None:
    """Patterns that looked back and forth would take minutes."""
    for text in ("what's the of the of " * 4000, "is the parcel " + "so " * 9000, "did the tell " * 5000, "a-" * 20000):
        read_traits(ChatRequest([{"role": "user", "content": text}], "m"))


@pytest.mark.parametrize("text", prompts("ordinary"))
def test_what_is_the_same_for_everybody_is_kept_for_the_whole_ttl(text: str) -> None:
    keep, reason, ttl, user = verdict(text)
    assert (keep, user) == (True, None)
    assert (reason, ttl) in (("public", TTLS["default"]), ("factual question", TTLS["factual"]))


@pytest.mark.parametrize("text", prompts("current"))
def test_what_is_about_now_is_kept_for_minutes(text: str) -> None:
    assert verdict(text) == (True, "current information", CURRENT_TTL, None)


@pytest.mark.parametrize(
    ("guide", "state"),
    [
        ("how do I activate my card?", "is my card activated?"),
        ("how can I see my statement?", "can I see my statement?"),
        ("do I have to pay?", "how much do I have to pay? I owe for two"),
        ("I lost my card, how do I block it?", "I lost my card, where is it? When will my card come?"),
        ("I bought a lamp, how do I return it?", "I bought a lamp"),
        ("I bought a lamp, may I return it?", "we booked it"),
        ("when I sort a list, what happens?", "when will I get it?"),
        ("am I allowed to have two?", "am I late?"),
        ("explain it to me", "who reports to me"),
        ("why is my code slow?", "what is my code?"),
        ("I can't install Python, how do I?", "I can't breathe, what should I do?"),
    ],
)
def test_a_guide_is_for_everybody_and_a_state_for_one(guide: str, state: str) -> None:
    assert verdict(guide)[0]
    assert not verdict(state)[0]


def test_clauses_do_not_run_into_each_other() -> None:
    assert verdict("how fast can I sort it?")[0]
    assert not verdict("as fast as you can, I have gout")[0]


@pytest.mark.parametrize(
    ("somebodys", "nobodys"),
    [
        ("what is 4012 8888 8888 1881", "what is 4012 8888 8888 1882"),  # sum of a card
        ("what is DE89370400440532013000", "what is DE89370400440532013001"),  # sum of a bank account
        ("what does 123-45-6789 mean", "what does 1234-56-789 mean"),
        ("how do I text 4155552671", "how do I add 4155552671"),
        ("where is 12 Elm Street, please", "what are 12 good street foods"),
        ("what is order 12345?", "what is an order of 12345 digits"),
    ],
)
def test_only_numbers_of_somebody_are_personal(somebodys: str, nobodys: str) -> None:
    assert not verdict(somebodys)[0]
    assert verdict(nobodys)[0]


def test_any_row_of_words_can_be_read() -> None:
    words = re.findall(
        r"\S+", "my our i we me mine i'm what's . , is are can will do how when to of the code card have"
    )
    chosen = random.Random(7)
    for _ in range(5000):
        verdict(" ".join(chosen.choices(words, k=chosen.randrange(1, 7))))


@pytest.mark.parametrize("text", ["who won today?", "the latest release", "weather in Rome", "what time is it"])
def test_current_information_is_kept_for_minutes(text: str) -> None:
    assert verdict(text)[1:3] == ("current information", CURRENT_TTL)
    assert verdict(text, policy=CachePolicy(smart=True, ttl=10))[2] == 10
    assert verdict(text, policy=CachePolicy(smart=True, ttl=10_000))[2] == CURRENT_TTL


@pytest.mark.parametrize(
    ("kind", "text", "options"),
    [
        ("current", "what is the weather in Rome", {}),
        ("personal", "what is my balance", {"user": "42"}),
        ("support", "what does error 7 mean", {"metadata": {"conversation_type": "support"}}),
        ("factual", "What is the capital of France?", {}),
        ("factual", "Hello. Explain recursion", {}),
        ("factual", "when did Rome fall", {}),
        ("default", "sort these words", {}),
    ],
)
def test_every_kind_of_answer_has_its_own_time_to_live(kind: str, text: str, options: dict[str, Any]) -> None:
    assert verdict(text, **options)[2] == TTLS[kind]
    request = ChatRequest([{"role": "user", "content": text}], "m", 0.0, **options)
    assert decide(request, read_traits(request), SMART, ttls={kind: 11.0}).ttl == 11.0


def test_times_to_live_are_those_of_the_guide() -> None:
    assert dict(TTLS) == {"current": 300, "personal": 300, "support": 3600, "factual": 86_400, "default": 14_400}


def test_a_policy_sets_its_own_time_but_what_is_current_stays_short() -> None:
    policy = CachePolicy(smart=True, ttl=7200)
    assert verdict("What is the capital of France?", policy=policy)[2] == 7200
    assert verdict("what is my balance", user="42", policy=policy)[2] == 7200
    assert verdict("what is my balance today", user="42", policy=policy)[2] == CURRENT_TTL


def test_every_rule_can_be_reached() -> None:
    reached = {
        verdict("sort", temperature=None)[1],
        verdict("sort", temperature=1.0)[1],
        verdict("sort", tools=({"type": "function"},))[1],
        verdict("what is my balance", user="42")[1],
        verdict("sort", user="42", metadata={"personalized": True})[1],
        verdict("latest release")[1],
        verdict("sort", metadata={"conversation_type": "support"})[1],
        verdict("what is a queue")[1],
    }
    assert reached == {rule.reason for rule in RULES}


def test_a_personalised_context_is_kept_for_its_user_only() -> None:
    context = {"personalized": True}
    assert verdict("sort", metadata=context)[:2] == (False, "personalised context and no user given")
    policy = CachePolicy(smart=True, scope="public")
    assert verdict("sort", metadata=context, user="42", policy=policy)[3] == "42"


def test_a_policy_says_how_long_a_stale_answer_may_be_served() -> None:
    request = ChatRequest([{"role": "user", "content": "sort"}], "m", 0.0)
    for policy in (CachePolicy(stale_ttl=9), CachePolicy(smart=True, stale_ttl=9)):
        assert decide(request, read_traits(request), policy).stale_ttl == 9


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


@pytest.mark.parametrize(
    "wrong",
    [
        {"ttl": float("nan")},
        {"ttl": float("inf")},
        {"ttl": 0},
        {"ttl": -1},
        {"ttl": "60"},
        {"scope": "users"},
        {"exact": None},
        {"smart": "yes"},
        {"cacheable": 1},
        {"stale_ttl": 0},
        {"time_bucket": -1},
        {"context": "location"},
        {"context": (1,)},
        {"semantic": "yes"},
        {"semantic": True, "exact": False},
    ],
)
def test_a_policy_that_means_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
        CachePolicy(**wrong)  # type: ignore[arg-type]
