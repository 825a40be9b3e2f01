"""The simulator against the examples in the vendors' own guides."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perfkit.tokens.prefix import Block, CacheRule, Prompt, rule_of, simulate
from perfkit.tokens.prefix.simulate import Bill


def rule(model: str) -> CacheRule:
    found = rule_of(model)
    assert found is not None
    return found


def prompt(at: float, *blocks: tuple[str, int] | tuple[str, int, str]) -> Prompt:
    return Prompt(at, tuple(Block(*block) for block in blocks))


def charged(bills: list[Bill]) -> list[tuple[int, int, int]]:
    return [(bill.read, bill.written, bill.plain) for bill in bills]


def test_openai_reads_in_steps_of_128_as_in_its_usage_example() -> None:
    """Guide to prompt caching: 2,006 prompt tokens are reported with 1,920 cached ones."""
    bills = simulate([prompt(at, ("all", 2006)) for at in (0, 60)], rule("gpt-4o"))
    assert charged(bills) == [(0, 0, 2006), (1920, 0, 86)]
    assert bills[1].cost == 86 + 0.5 * 1920


@pytest.mark.parametrize(
    ("tokens", "read"), [(1023, 0), (1024, 1024), (1151, 1024), (1152, 1152), (1280, 1280), (1408, 1408)]
)
def test_openai_caches_from_1024_tokens_in_steps_of_128(tokens: int, read: int) -> None:
    bills = simulate([prompt(at, ("prefix", tokens), (f"own {at}", 50)) for at in (0, 1)], rule("gpt-5"))
    assert bills[1].read == read


def test_openai_forgets_after_some_idle_minutes() -> None:
    bills = simulate([prompt(at, ("prefix", 2048)) for at in (0, 299, 598, 1000)], rule("gpt-5"))
    assert [bill.read for bill in bills] == [0, 2048, 2048, 0]


def test_gpt_5_6_writes_at_the_end_of_each_prompt_and_charges_for_it() -> None:
    first = (("system", 2000), ("question", 100))
    bills = simulate([prompt(0, *first), prompt(9, *first, ("answer", 50), ("question 2", 50))], rule("gpt-5.6"))
    assert charged(bills) == [(0, 2100, 0), (2100, 100, 0)]
    assert bills[0].cost == 1.25 * 2100


def test_anthropic_large_document_is_written_once_and_read_afterwards() -> None:
    """Guide, "Large context caching example": 188,086 tokens created and 21 of input, then the 188,086 read."""
    blocks = (("instructions and document", 188_086, "5m"), ("question", 21))
    bills = simulate([prompt(0, *blocks), prompt(60, *blocks)], rule("claude-sonnet-4-5"))
    assert charged(bills) == [(0, 188_086, 21), (188_086, 0, 21)]
    sonnet = 3 / 1e6  # $ a token; the guide's price table: writes $3.75, reads $0.30 a million
    assert bills[0].cost * sonnet == pytest.approx(188_086 * 3.75e-6 + 21 * sonnet)
    assert bills[1].cost * sonnet == pytest.approx(188_086 * 0.30e-6 + 21 * sonnet)


def test_anthropic_bills_mixed_times_to_live_by_segments() -> None:
    """Guide, "Mixing different TTLs": read up to A, one-hour writes from A to B, five-minute writes from B to C."""
    a, b, c = ("A", 2000, "1h"), ("B", 1000, "1h"), ("C", 500, "5m")
    first, second = simulate([prompt(0, a), prompt(60, a, b, c, ("rest", 10))], rule("claude-sonnet-4-5"))
    assert first.cost == 2000 * 2.0
    assert second.cost == 2000 * 0.1 + 1000 * 2.0 + 500 * 1.25 + 10


@pytest.mark.parametrize(("changed", "read"), [(25, 24 * 100), (5, 0)])
def test_anthropic_looks_back_twenty_blocks(changed: int, read: int) -> None:
    """Guide, "Understanding cache breakpoint behavior": 30 blocks, a change in block 25 is found, one in 5 is not."""
    ends = {24, 30} if changed == 25 else {4, 30}  # entries exist where earlier requests had breakpoints

    def blocks(edit: int | None, marks: set[int]) -> list[tuple[str, int] | tuple[str, int, str]]:
        names = [f"{n}{'*' if n == edit else ''}" for n in range(1, 31)]
        return [(name, 100, "5m") if n in marks else (name, 100) for n, name in enumerate(names, 1)]

    anthropic = replace(rule("claude-sonnet-4-5"), minimum=100)
    bills = simulate([prompt(0, *blocks(None, ends)), prompt(9, *blocks(changed, {30}))], anthropic)
    assert bills[1].read == read


def test_anthropic_conversation_is_read_up_to_the_last_turn() -> None:
    """Guide, "Multi-turn conversation": each turn reads what the one before wrote."""
    talk: list[tuple[str, int] | tuple[str, int, str]] = [("system", 2000)]
    prompts = []
    for turn in range(4):
        prompts.append(prompt(turn, *talk, (f"user {turn}", 100, "5m")))
        talk += [(f"user {turn}", 100), (f"assistant {turn}", 200)]
    assert charged(simulate(prompts, rule("claude-sonnet-4-5"))) == [
        (0, 2100, 0),
        (2100, 300, 0),
        (2400, 300, 0),
        (2700, 300, 0),
    ]


@pytest.mark.parametrize(
    ("model", "minimum"),
    [("claude-opus-5-5", 512), ("claude-sonnet-4-5", 1024), ("claude-opus-4-7", 2048), ("claude-haiku-4-5", 4096)],
)
def test_anthropic_caches_nothing_below_the_models_minimum(model: str, minimum: int) -> None:
    short = simulate([prompt(0, ("all", minimum - 1, "5m"))], rule(model))[0]
    assert (short.written, short.cost) == (0, minimum - 1)
    assert simulate([prompt(0, ("all", minimum, "5m"))], rule(model))[0].written == minimum


def test_reading_keeps_an_entry_alive() -> None:
    bills = simulate([prompt(at, ("all", 2000, "5m")) for at in (0, 290, 580, 900)], rule("claude-sonnet-4-5"))
    assert [bill.read for bill in bills] == [0, 2000, 2000, 0]


@pytest.mark.parametrize(("ttl", "uses"), [("5m", 2), ("1h", 3)])
def test_writing_pays_from_the_first_or_second_reuse_on(ttl: str, uses: int) -> None:
    def cost(n: int) -> float:
        bills = simulate([prompt(at, ("all", 2000, ttl)) for at in range(n)], rule("claude-sonnet-4-5"))
        return sum(bill.cost for bill in bills)

    assert cost(uses - 1) > 2000 * (uses - 1)
    assert cost(uses) < 2000 * uses


def test_prefix_that_never_matches_costs_a_quarter_more() -> None:
    bills = simulate([prompt(at, (f"{at}", 2000, "5m")) for at in range(4)], rule("claude-sonnet-4-5"))
    assert sum(bill.cost for bill in bills) == 1.25 * 8000


def test_deepseek_finds_a_common_prefix_from_the_third_request_on() -> None:
    """Guide to context caching: A + B, then A + C finds nothing, then A + D finds A."""
    bills = simulate([prompt(at, ("A", 500), (str(at), 100)) for at in range(3)], rule("deepseek-chat"))
    assert [bill.read for bill in bills] == [0, 0, 500]


def test_deepseek_finds_a_whole_earlier_prompt_at_once() -> None:
    """Guide, example 2: the second round of a conversation reads the first."""
    bills = simulate([prompt(0, ("A", 500)), prompt(1, ("A", 500), ("B", 9))], rule("deepseek-chat"))
    assert bills[1].read == 500


def test_dear_example_of_ten_calls_costs_what_the_rules_say() -> None:
    """LLM performance optimizations, "Expected Savings": 10 calls of 3,000 tokens, 2,800 of them the same.

    The guide counts 16,500 tokens at half price for all 3,000; what is cached is 2,688, in steps of 128.
    """
    bills = simulate([prompt(at, ("system", 2800), (f"task {at}", 200)) for at in range(10)], rule("gpt-4o"))
    assert sum(bill.cost for bill in bills) == 3000 + 9 * (312 + 0.5 * 2688)
