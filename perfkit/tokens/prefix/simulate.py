"""What a series of prompts costs by a vendor's caching rules: pure arithmetic, checked against their own examples.

A prompt is a series of blocks; what counts is which of them equal those of an earlier prompt, from the first one on.
Costs are in input tokens: multiply by the price of one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from perfkit.tokens.prefix.rules import CacheRule

__all__ = ["Bill", "Block", "Prompt", "simulate"]


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a prompt that stays whole.

    Attributes:
        content: equal for equal parts.
        tokens: in it.
        ttl: name of the time to live of a breakpoint at its end; None: no breakpoint.
    """

    content: Hashable
    tokens: int
    ttl: str | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """The blocks of one request, and when it was sent, in seconds."""

    at: float
    blocks: tuple[Block, ...]

    @property
    def tokens(self) -> int:
        """All of them."""
        return sum(block.tokens for block in self.blocks)


@dataclass(frozen=True, slots=True)
class Bill:
    """What one prompt was charged for; `cost` is in input tokens."""

    read: int
    written: int
    plain: int
    cost: float


@dataclass(slots=True)
class _Cache:
    """Prefixes that are there: to how long they live, and when they were last used."""

    rule: CacheRule
    lives: dict[tuple[Hashable, ...], tuple[float, float]] = field(default_factory=dict)
    seen: list[tuple[Hashable, ...]] = field(default_factory=list)

    def alive(self, prefix: tuple[Hashable, ...], now: float) -> bool:
        seconds, used = self.lives.get(prefix, (0.0, 0.0))
        return prefix in self.lives and now - used <= seconds

    def keep(self, prefix: tuple[Hashable, ...], ttl: str, now: float) -> None:
        self.lives[prefix] = (self.rule.ttls[ttl].seconds, now)

    def touch(self, prefix: tuple[Hashable, ...], now: float) -> None:
        self.lives[prefix] = (self.lives[prefix][0], now)


def simulate(prompts: Iterable[Prompt], rule: CacheRule) -> list[Bill]:
    """Return the bill of each prompt, sent one after the other to a cache that is empty at first.

    Args:
        prompts: in the order they are sent; each is cached before the next one comes.
        rule: the vendor's.
    """
    cache = _Cache(rule)
    charge = _marked if rule.mark is not None else _whole_units if rule.units else _automatic
    return [charge(prompt, cache) for prompt in prompts]


def _automatic(prompt: Prompt, cache: _Cache) -> Bill:
    """Charge as OpenAI did before GPT-5.6: the longest common prefix with any prompt that is still there."""
    rule, contents = cache.rule, tuple(block.content for block in prompt.blocks)
    best, source = 0, None
    for earlier in [prefix for prefix in cache.lives if cache.alive(prefix, prompt.at)]:
        common = _common(contents, earlier)
        if common > best:
            best, source = common, earlier
    tokens = sum(block.tokens for block in prompt.blocks[:best])
    read = tokens // rule.step * rule.step if tokens >= rule.minimum else 0
    if source is not None and read:
        cache.touch(source, prompt.at)
    cache.keep(contents, rule.ttl, prompt.at)
    return _bill(prompt, read, {}, rule)


def _whole_units(prompt: Prompt, cache: _Cache) -> Bill:
    """Charge as DeepSeek does: a prefix is found once it was a whole prompt, or common to two of them."""
    rule, contents = cache.rule, tuple(block.content for block in prompt.blocks)
    found = [prefix for prefix in cache.lives if contents[: len(prefix)] == prefix and cache.alive(prefix, prompt.at)]
    best = max(found, key=len, default=())
    for earlier in cache.seen:
        if common := _common(contents, earlier):
            cache.keep(contents[:common], rule.ttl, prompt.at)
    cache.seen.append(contents)
    cache.keep(contents, rule.ttl, prompt.at)
    tokens = sum(block.tokens for block in prompt.blocks[: len(best)])
    return _bill(prompt, tokens if tokens >= rule.minimum else 0, {}, rule)


def _marked(prompt: Prompt, cache: _Cache) -> Bill:
    """Charge by breakpoints: read to the last one found, write from there to each that is set (Anthropic, GPT-5.6)."""
    rule, blocks = cache.rule, prompt.blocks
    contents = tuple(block.content for block in blocks)
    marks = [(number + 1, block.ttl) for number, block in enumerate(blocks) if block.ttl is not None]
    if rule.implicit and (not marks or marks[-1][0] != len(blocks)):
        marks.append((len(blocks), rule.ttl))
    sizes = _sizes(blocks)
    marks = [(end, ttl) for end, ttl in marks if sizes[end] >= rule.minimum]
    read_to = _found(contents, [end for end, _ in marks], cache, prompt.at)
    written: dict[str, int] = {}
    reached = read_to
    for end, ttl in marks:
        if end > reached:
            written[ttl] = written.get(ttl, 0) + sizes[end] - sizes[reached]
            cache.keep(contents[:end], ttl, prompt.at)
            reached = end
        elif cache.alive(contents[:end], prompt.at):
            cache.touch(contents[:end], prompt.at)
    return _bill(prompt, sizes[read_to], written, rule)


def _found(contents: tuple[Hashable, ...], marks: Sequence[int], cache: _Cache, now: float) -> int:
    """Return the number of blocks of the longest prefix that is there, at a breakpoint or shortly before one."""
    for end in reversed(marks):
        for length in range(end, max(0, end - cache.rule.lookback), -1):
            if cache.alive(contents[:length], now):
                cache.touch(contents[:length], now)
                return length
    return 0


def _sizes(blocks: Sequence[Block]) -> list[int]:
    sizes = [0]
    for block in blocks:
        sizes.append(sizes[-1] + block.tokens)
    return sizes


def _common(one: tuple[Hashable, ...], other: tuple[Hashable, ...]) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _bill(prompt: Prompt, read: int, written: dict[str, int], rule: CacheRule) -> Bill:
    writes = sum(written.values())
    plain = prompt.tokens - read - writes
    cost = plain + read * rule.read + sum(tokens * rule.ttls[ttl].write for ttl, tokens in written.items())
    return Bill(read, writes, plain, cost)
