"""Prompts that cost less: their layout for prefix caching, and what is learned and found out from each answer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from perfkit.tokens.budgeting import Budgeting, route_of
from perfkit.tokens.compression import Aliases, Compressed, compress
from perfkit.tokens.compression.requests import compressed
from perfkit.tokens.compression.steps import DEFAULT, STEPS
from perfkit.tokens.prefix import LaidOutRequest, lay_out, rule_of
from perfkit.tokens.prefix.traffic import conversation
from perfkit.tokens.pricing import from_nano
from perfkit.values import ChatRequest, Usage

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from perfkit.clock import Clock
    from perfkit.tokens.prefix import Detector, Finding, Traffic
    from perfkit.tokens.selection import Origin, Scores
    from perfkit.values import ChatResponse

__all__ = ["Prompting", "origin_of", "question_of"]

CALIBRATED: Final = 20  # answers that the learned factor is taken from without a break; then every eighth
EVERY: Final = 8
MINUTES_A_DAY: Final = 1440
KEY_MOST: Final = 15.0  # requests a minute that one prompt_cache_key should have (OpenAI, "Prompt caching")
TOLD_EVERY: Final = 10  # requests whose broken prefix is counted in one go


class Prompting(Budgeting):
    """Layout, detection and learning."""

    _clock: Clock
    _traffic: Traffic
    _detector: Detector
    _scores: Scores
    _patterns: tuple[re.Pattern[str], ...]

    def layout(self, request: ChatRequest, *, volatile: Iterable[str | re.Pattern[str]] = ()) -> LaidOutRequest:
        """Return `request` ordered for prefix caching, with a `.report`; the one given stays as it is.

        Tools are sorted by name and their keys sorted, system messages stand first, breakpoints are set where the
        model's vendor wants them marked and the route's rhythm makes them pay. Nothing is reworded.

        Args:
            request: what is to be sent.
            volatile: texts, or patterns of texts, of the system prompt that change from request to request, such as the
                time: they move to the end. Those of the setting `volatile` and of `metadata["volatile"]` count too.
        """
        rule, route = rule_of(request.model), route_of(request)
        rhythm = self._traffic.rhythm(route)
        marked = request.metadata.get("volatile", ())
        patterns = [*self._patterns, *([marked] if isinstance(marked, str) else marked), *volatile]
        ttl = rhythm.ttl(rule) if rule is not None else None
        key = None
        if rule is not None and rule.key is not None:
            bucket = conversation(request.messages, request.user) % (1 + int(rhythm.per_minute // KEY_MOST))
            key = f"{route}:{bucket}"
        return lay_out(request, rule, volatile=patterns, ttl=ttl, key=key, count=self._counted(request.model))

    def _counted(self, model: str) -> Any:
        def count(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None) -> int:
            return self._counter.prompt(messages, model, tools).tokens

        return count

    def compress(
        self,
        text: str,
        *,
        model: str | None = None,
        steps: Iterable[str] = DEFAULT,
        aliases: Aliases | None = None,
        lossy: Callable[[str], str] | None = None,
    ) -> Compressed:
        """Return `(text, saved_tokens)`: the text with fewer tokens, as a pair that also knows the way back.

        For what is new in a request, a tool's result or a document: changing what was sent before costs its prefix.

        Args:
            text: JSON, HTML or any other text.
            model: whose tokens are counted.
            steps: any of "html" (to what a reader sees), "columns" (for lists of like objects), "json" (no spaces and
                escapes), "lines" (told once) and "uuids" (short names; keep `aliases` to restore the answer).
            aliases: those of the request's other texts.
            lossy: `perfkit.tokens.extractive(...)`, `llmlingua(...)` or any function, for what is left; None: no loss.

        Raises:
            UnknownNameError: a step is not known.
        """
        count = partial(self._counter.count, model=model)
        return compress(text, count=count, steps=steps, aliases=aliases, lossy=lossy)

    def compress_request(self, request: ChatRequest, *, steps: Iterable[str] = STEPS) -> tuple[ChatRequest, Aliases]:
        """Return a copy of `request` with fewer tokens, and the aliases to restore its answer with.

        Compressed are results of tools, and texts of users that are one JSON document; other words and all before a
        `cache_control` of the caller stay. The same result is always written the same way, so the history of a
        conversation stays as it was sent. `aliases.saved_tokens` says what that saves.

        The setting `compress`, or `compress` of a route, does both to every call.
        """
        aliases, steps, model = Aliases(), tuple(steps), request.model

        def shorter(text: str) -> str:
            found = self.compress(text, model=model, steps=steps, aliases=aliases)
            aliases.saved_tokens += found.saved_tokens
            return found.text

        return compressed(request, aliases, shorter), aliases

    def prepare(self, request: ChatRequest) -> ChatRequest:
        """Return what to send for `request`: laid out if the setting `layout` is on, with a hint to the router.

        `metadata["warm_provider"]` names who has the prefix of the conversation, if anybody is known to.
        """
        warm = self.warm_provider(request)
        if warm is not None:
            request = request.evolve(metadata={**request.metadata, "warm_provider": warm})
        return self.layout(request) if self.settings.layout else request

    def observe(self, request: ChatRequest, response: ChatResponse, seconds: float | None = None) -> None:
        """Learn from a fresh answer: lengths and times, how far counts are off, prefixes that were cached or broken.

        Args:
            request: as it was sent.
            response: to it.
            seconds: the provider took.
        """
        route, usage = route_of(request), response.usage
        if usage.estimated:
            return
        bound = request.max_tokens
        self._experience.add(route, request.model, bound, usage.completion_tokens, seconds)
        if response.id and isinstance(response.id, str):
            self._scores.remember(response.id, origin_of(request))
        calls, share = self._traffic.note(route, usage, self._clock.now())
        rule = rule_of(request.model)
        if rule is not None and (usage.cached_tokens or usage.cache_write_tokens):
            talk, life = conversation(request.messages, request.user), rule.ttls[rule.ttl].seconds
            self._traffic.warm(route, talk, response.provider, self._clock.now() + life)
        if calls <= CALIBRATED or calls % EVERY == 0:
            self._experience.correct(route, request.model, self._raw_prompt(request), usage.prompt_tokens)
            if share:
                self._tracker.gauge("prefix_hit_ratio", share, {"route": route})
        if self.settings.detect:
            self._look(route, request)

    def _look(self, route: str, request: ChatRequest) -> None:
        found = self._detector.look(route, request)
        if found is not None and found.times % TOLD_EVERY == 0:
            self._tracker.increment("prefix_broken", TOLD_EVERY, {"route": route, "cause": found.cause})

    def warm_provider(self, request: ChatRequest) -> str | None:
        """Return the provider that has the prefix of this conversation in its cache now, None if none is known to."""
        if not self._traffic.knows_warm:
            return None
        talk = conversation(request.messages, request.user)
        return self._traffic.warm_provider(route_of(request), talk, self._clock.now())

    def prefix_report(self) -> list[dict[str, Any]]:
        """Return one dict a route whose prefix breaks: what breaks it, where, and what that costs.

        Each has route, cause, where, before, now (the differing spans), offset, lost (share of tools and system prompt
        behind it), times (requests in a row), hit_ratio (of all its prompt tokens), per_day (US dollars at the present
        rate; None where the price or the rate is not known).
        """
        return [self._told(finding) for finding in self._detector.findings()]

    def _told(self, finding: Finding) -> dict[str, Any]:
        rhythm = self._traffic.rhythm(finding.route)
        told = {name: getattr(finding, name) for name in finding.__dataclass_fields__}
        ratio = rhythm.read / rhythm.prompt if rhythm.prompt else 0.0
        return {**told, "hit_ratio": ratio, "per_day": self._per_day(finding, rhythm.per_minute)}

    def _per_day(self, finding: Finding, per_minute: float) -> float | None:
        price, rule = self._prices.find(finding.model), rule_of(finding.model)
        if price is None or rule is None or not per_minute:
            return None
        tokens = int(finding.tokens * finding.lost)
        saved = price.cost(Usage(tokens, 0)) - price.cost(Usage(tokens, 0, cached_tokens=tokens))
        return from_nano(saved) * per_minute * MINUTES_A_DAY


def origin_of(request: ChatRequest, model: str | None = None) -> Origin:
    """Return where the answer to a request comes from: route, model, and the length of the question."""
    return route_of(request), model if model is not None else request.model, len(question_of(request))


def question_of(request: ChatRequest) -> str:
    """Return the text of the user's last message."""
    content: Any = ""
    for message in reversed(request.messages):
        if message.get("role") == "user":
            content = message.get("content")
            break
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content or ())
