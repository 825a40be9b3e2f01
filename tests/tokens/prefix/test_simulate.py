"""The simulator against the worked examples in the vendors' own guides, as they stood in 2026.

OpenAI     https://platform.openai.com/docs/guides/prompt-caching
Anthropic  https://platform.claude.com/docs/en/build-with-claude/prompt-caching
DeepSeek   https://api-docs.deepseek.com/guides/kv_cache

No example with figures of GPT-5.6's breakpoints was found; those tests hold its rules only.
"""

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
    """OpenAI, "Requirements": 2,006 prompt tokens are reported with 1,920 cached ones."""
    bills = simulate([prompt(at, ("all", 2006)) for at in (0, 60)], rule("gpt-4o"))
    assert charged(bills) == [(0, 0, 2006), (1920, 0, 86)]
    assert bills[1].cost == 86 + 0.5 * 1920


@pytest.mark.parametrize(
    ("tokens", "read"), [(1023, 0), (1024, 1024), (1151, 1024), (1152, 1152), (1280, 1280), (1408, 1408)]
)
def test_openai_caches_from_1024_tokens_in_steps_of_128(tokens: int, read: int) -> None:
    """OpenAI, "Requirements": cached tokens are 1024, 1152, 1280, 1408 and so on, and zero below 1024."""
    bills = simulate([prompt(at, ("prefix", tokens), (f"own {at}", 50)) for at in (0, 1)], rule("gpt-5"))
    assert bills[1].read == read


def test_openai_forgets_after_some_idle_minutes() -> None:
    """OpenAI, "How it works": prefixes stay for 5 to 10 minutes of inactivity; the shorter time is counted with."""
    bills = simulate([prompt(at, ("prefix", 2048)) for at in (0, 299, 598, 1000)], rule("gpt-5"))
    assert [bill.read for bill in bills] == [0, 2048, 2048, 0]


def test_gpt_5_6_writes_at_the_end_of_each_prompt_and_charges_for_it() -> None:
    first = (("system", 2000), ("question", 100))
    bills = simulate([prompt(0, *first), prompt(9, *first, ("answer", 50), ("question 2", 50))], rule("gpt-5.6"))
    assert charged(bills) == [(0, 2100, 0), (2100, 100, 0)]
    assert bills[0].cost == 1.25 * 2100


def test_anthropic_large_document_is_written_once_and_read_afterwards() -> None:
    """Anthropic's first example: 188,086 tokens are created and 21 are input, then the 188,086 are read."""
    blocks = (("instructions and document", 188_086, "5m"), ("question", 21))
    bills = simulate([prompt(0, *blocks), prompt(60, *blocks)], rule("claude-sonnet-4-5"))
    assert charged(bills) == [(0, 188_086, 21), (188_086, 0, 21)]
    sonnet = 3 / 1e6  # $ a token; the guide's price table: writes $3.75, reads $0.30 a million
    assert bills[0].cost * sonnet == pytest.approx(188_086 * 3.75e-6 + 21 * sonnet)
    assert bills[1].cost * sonnet == pytest.approx(188_086 * 0.30e-6 + 21 * sonnet)


def test_anthropic_bills_mixed_times_to_live_by_segments() -> None:
    """Anthropic, "1-hour cache duration" and "Mixing different TTLs": read up to A, one hour to B, five minutes to C.

    Its usage: 1,800 tokens read, 248 created, of them 100 for an hour and 148 for five minutes, and 2,048 of input.
    """
    a, b, c = ("A", 1800, "1h"), ("B", 100, "1h"), ("C", 148, "5m")
    first, second = simulate([prompt(0, a), prompt(60, a, b, c, ("rest", 2048))], rule("claude-sonnet-4-5"))
    assert first.cost == 1800 * 2.0
    assert (second.read, second.written, second.plain) == (1800, 248, 2048)
    assert second.cost == pytest.approx(1800 * 0.1 + 100 * 2.0 + 148 * 1.25 + 2048)


def test_anthropic_prewarmed_system_prompt_is_read_by_the_first_user() -> None:
    """Anthropic, "Pre-warming the cache": 5,120 tokens are created and 8 are input; the next request finds them."""
    system = ("system", 5120, "5m")
    bills = simulate([prompt(0, system, ("warmup", 8)), prompt(9, system, ("question", 12))], rule("claude-opus-4-8"))
    assert charged(bills) == [(0, 5120, 8), (5120, 0, 12)]


@pytest.mark.parametrize(("second_mark", "read"), [(False, 0), (True, 15)])
def test_anthropic_looks_back_twenty_blocks(*, second_mark: bool, read: int) -> None:
    """Anthropic, "Lookback in a growing conversation": 10 blocks, then 15, then 35 with the breakpoint on the last.

    The second turn finds block 10. The third looks at blocks 35 to 16 and finds nothing, unless block 15 has a second
    breakpoint.
    """

    def turn(at: float, length: int, *marks: int) -> Prompt:
        names = [str(number) for number in range(1, length + 1)]
        return prompt(at, *((n, 100, "5m") if int(n) in (length, *marks) else (n, 100) for n in names))

    marks = (15,) if second_mark else ()
    anthropic = replace(rule("claude-sonnet-4-5"), minimum=100)
    bills = simulate([turn(0, 10), turn(1, 15), turn(2, 35, *marks)], anthropic)
    assert [bill.read for bill in bills] == [0, 1000, read * 100]
    assert [bill.written for bill in bills] == [1000, 500, 3500 - read * 100]


@pytest.mark.parametrize(("mark", "reads"), [(6, [0, 0, 0]), (5, [0, 5000, 5000])])
def test_anthropic_breakpoint_on_what_always_changes_is_never_found(mark: int, reads: list[int]) -> None:
    """Anthropic, "Common mistake": blocks 1 to 5 are static, block 6 has the time; it is block 5 to be marked."""

    def request(at: float) -> Prompt:
        names = ["1", "2", "3", "4", "5", f"6 at {at}"]
        return prompt(at, *((n, 1000, "5m") if number == mark else (n, 1000) for number, n in enumerate(names, 1)))

    bills = simulate([request(at) for at in (0, 60, 120)], rule("claude-sonnet-4-5"))
    assert [bill.read for bill in bills] == reads
    assert [bill.written for bill in bills] == ([6000] * 3 if mark == 6 else [5000, 0, 0])


def test_anthropic_conversation_is_read_up_to_the_last_turn() -> None:
    """Anthropic, "How automatic caching works in multi-turn conversations": the table of its three requests."""
    talk: list[tuple[str, int] | tuple[str, int, str]] = [("system", 2000), ("user 1", 100), ("assistant 1", 200)]
    prompts = []
    for turn in (2, 3, 4):
        prompts.append(prompt(turn, *talk, (f"user {turn}", 100, "5m")))
        talk += [(f"user {turn}", 100), (f"assistant {turn}", 200)]
    assert charged(simulate(prompts, rule("claude-sonnet-4-5"))) == [(0, 2400, 0), (2400, 300, 0), (2700, 300, 0)]


def test_anthropic_tokens_of_a_request_add_up() -> None:
    """Anthropic, "Understanding the token breakdown": 100,000 tokens read and 50 after the breakpoint are 100,050."""
    blocks = (("documents", 100_000, "5m"), ("message", 50))
    _, bill = simulate([prompt(at, *blocks) for at in (0, 60)], rule("claude-sonnet-4-5"))
    assert (bill.read, bill.written, bill.plain) == (100_000, 0, 50)
    assert bill.cost == pytest.approx(10_050)


MINIMA = {  # Anthropic, "Cache limitations"
    512: ("fable-5-1", "mythos-5-1", "opus-5", "fable-5", "mythos-5"),
    1024: ("opus-4-8", "sonnet-5", "sonnet-4-6", "sonnet-4-5", "opus-4-1", "opus-4", "sonnet-4"),
    2048: ("mythos-preview", "opus-4-7", "3-5-haiku"),
    4096: ("opus-4-6", "opus-4-5", "haiku-4-5"),
}


@pytest.mark.parametrize(
    ("model", "minimum"), [(f"claude-{name}-20260101", tokens) for tokens, names in MINIMA.items() for name in names]
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
    """DeepSeek, example 2: A + B, then A + C finds nothing, then A + D finds A."""
    bills = simulate([prompt(at, ("A", 500), (str(at), 100)) for at in range(3)], rule("deepseek-chat"))
    assert [bill.read for bill in bills] == [0, 0, 500]


def test_deepseek_finds_a_whole_earlier_prompt_at_once() -> None:
    """DeepSeek, example 1: A + B, then A + B + C finds A + B."""
    bills = simulate([prompt(0, ("A", 500)), prompt(1, ("A", 500), ("B", 9))], rule("deepseek-chat"))
    assert bills[1].read == 500


def test_dear_example_of_ten_calls_costs_what_the_rules_say() -> None:
    """LLM performance optimizations, "Expected Savings": 10 calls of 3,000 tokens, 2,800 of them the same.

    The guide counts 16,500 tokens at half price for all 3,000; what is cached is 2,688, in steps of 128.
    """
    bills = simulate([prompt(at, ("system", 2800), (f"task {at}", 200)) for at in range(10)], rule("gpt-4o"))
    assert sum(bill.cost for bill in bills) == 3000 + 9 * (312 + 0.5 * 2688)
