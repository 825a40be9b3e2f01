"""Predictions before a call, and the choice of the model for it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

from perfkit.errors import ConfigError, UnknownNameError
from perfkit.tokens.accounting import rule_of_thumb
from perfkit.tokens.budgeting import route_of
from perfkit.tokens.constraints import Choice, Constraints, select
from perfkit.tokens.learning import Length, Prediction
from perfkit.tokens.pricing import as_usage, from_nano
from perfkit.tokens.prompting import Prompting, origin_of, question_of
from perfkit.tokens.selection import by_gain, by_length
from perfkit.values import Usage, finite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from perfkit.tokens.profiles import Profile, Profiles
    from perfkit.tokens.selection import Scores
    from perfkit.values import ChatRequest, ChatResponse

__all__ = ["Choosing"]

THUMB_SPREAD: Final = 3.0  # times the rule of thumb, for the 95th percentile
POLICIES: Final = ("learned", "simple")


class Choosing(Prompting):
    """Predictions and selection."""

    _profiles: Profiles
    _scores: Scores

    def _length(self, request: ChatRequest, model: str) -> Length:
        bound = request.max_tokens
        known = self._experience.length(route_of(request), model, bound)
        if known is not None:
            return known
        guess = max(1, rule_of_thumb(question_of(request), model))
        most = bound if bound is not None else round(guess * THUMB_SPREAD)
        return Length(min(guess, most), most, 0)

    def predict_cost(self, request: ChatRequest, model: str | None = None) -> Prediction | None:
        """Return the US dollars `request` will cost, as a median with `.p95`; None when the price is unknown.

        The length of the answer is that of earlier ones of its route, model and max_tokens; for the first ones the
        rule of RAAF guide 5.1, with samples 0.
        """
        model = model if model is not None else request.model
        price = self._price(model)
        if price is None:
            return None
        prompt, length = self._prompt_tokens(request, model), self._length(request, model)
        middle, high = (from_nano(price.cost(Usage(prompt, tokens))) for tokens in (length.median, length.p95))
        return Prediction.of(middle, high, prompt, length)

    def predict_latency(self, request: ChatRequest, model: str | None = None) -> Prediction | None:
        """Return the seconds a provider will take for `request`, as a median with `.p95`; None when nothing is known.

        Learned from the answers of its route and model, else taken from the model's profile.
        """
        model = model if model is not None else request.model
        length = self._length(request, model)
        known = self._experience.seconds(route_of(request), model, length.median, length.p95)
        if known is None:
            profile = self.profile(model)
            seconds, late = profile.seconds(length.median), profile.seconds(length.p95)
            known = (seconds, late) if seconds is not None and late is not None else None
        return Prediction.of(*known, self._prompt_tokens(request, model), length) if known is not None else None

    def predict_quality(self, request: ChatRequest, model: str | None = None) -> float | None:
        """Return the score, 0 to 1, that feedback on the request's route lets expect of `model`; None: not known."""
        model = model if model is not None else request.model
        return self._scores.quality(origin_of(request, model), self.profile(model).quality)

    def profile(self, model: str) -> Profile:
        """Return what is known of a model beside its price before it was called: speed, as a rule, and quality.

        From the setting `models`, else a shipped, dated table by the beginnings of names.
        """
        return self._profiles.find(model)

    def feedback(
        self, response: ChatResponse | str, score: float | bool, *, request: ChatRequest | None = None
    ) -> None:
        """Learn how good an answer was.

        Args:
            response: the answer, or its id.
            score: 0 to 1; True and False are 1 and 0.
            request: what was asked, with the model that answered; needed only where the answer has no id, or was given
                more than 10,000 answers ago.

        Raises:
            ValueError: `score` is out of range.
            UnknownNameError: it is not known what was asked.
        """
        value = float(score) if isinstance(score, bool) else finite("score", score, least=0)
        if value > 1:
            raise ValueError(f"score must be a number from 0 to 1, not {score!r}")
        key = response if isinstance(response, str) else response.id
        origin = origin_of(request) if request is not None else self._scores.origin(key)
        if origin is None:
            raise UnknownNameError(f"no answer {key!r} is remembered; pass request=", name=str(key))
        self._scores.add(origin, value)

    def select_optimal_model(
        self,
        estimated_tokens: Usage | Mapping[str, Any] | None = None,
        budget: float | None = None,
        max_latency: float | None = None,
        min_quality: float | None = None,
        candidates: Iterable[str] | None = None,
    ) -> str:
        """Return the model that keeps to the constraints: under a budget the best, else the fastest.

        Args:
            estimated_tokens: as from `estimate_tokens`; None counts as 1000 of each kind.
            budget: US dollars for the request.
            max_latency: seconds for the answer.
            min_quality: 0 to 1, or percent.
            candidates: None means those of the setting `models`, else those with a shipped profile that still exist.

        Raises:
            ConfigError: there is no constraint, and the setting `default_model` is not set.
            NoModelFitsError: no candidate keeps to the constraints; the message names what each of them breaks. It is
                a ValueError.
        """
        constraints = Constraints.of(budget=budget, max_latency=max_latency, min_quality=min_quality)
        names = list(candidates) if candidates is not None else self._candidates()
        if not constraints:
            return self._default(names if candidates is not None else [])
        usage = as_usage(estimated_tokens) if estimated_tokens is not None else Usage(1000, 1000)
        return select([self._choice(name, usage) for name in names], constraints).model

    def _default(self, names: Sequence[str]) -> str:
        default = self.settings.default_model
        if default is None and not names:
            raise ConfigError(
                "nothing to choose by: give a budget, max_latency, min_quality or candidates, or set default_model",
                key="tokens.default_model",
            )
        return str(default) if default is not None else names[0]

    def _candidates(self) -> list[str]:
        if self.settings.models:
            return list(self.settings.models)
        found = ((name, self._prices.find(name)) for name in self._profiles.usual)
        return [name for name, price in found if price is not None and price.retired is None]

    def _choice(self, model: str, usage: Usage, route: str = "", length: int = 0) -> Choice:
        profile, price = self.profile(model), self._price(model)
        known = self._experience.seconds(route, model, usage.completion_tokens, usage.completion_tokens)
        seconds = known[0] if known is not None else profile.seconds(usage.completion_tokens)
        quality = self._scores.quality((route, model, length), profile.quality)
        return Choice(model, from_nano(price.cost(usage)) if price is not None else None, seconds, quality)

    def choose_model(
        self,
        request: ChatRequest,
        candidates: Iterable[str],
        *,
        policy: str = "learned",
        worth: float = 0.01,
        explore: float = 0.05,
    ) -> str:
        """Return the model to ask for one request.

        Args:
            request: what is asked; its route decides.
            candidates: models to choose among.
            policy: "learned" from feedback, or "simple": short questions to the cheapest, others to the best.
            worth: US dollars that a perfect answer is worth more than a useless one.
            explore: share of requests that get a model at random, so that all of them are scored.

        Raises:
            UnknownNameError: the policy is not known.
            ValueError: there are no candidates.
        """
        if policy not in POLICIES:
            raise UnknownNameError.of("policy", policy, POLICIES)
        names = list(candidates)
        if not names:
            raise ValueError("candidates is empty; give at least one model")
        if policy == "learned" and random.random() < explore:
            return random.choice(names)
        route = route_of(request)
        lengths = {name: self._length(request, name).median for name in names}
        usages = {name: Usage(self._prompt_tokens(request, name), lengths[name]) for name in names}
        question = question_of(request)
        choices = [self._choice(name, usages[name], route, len(question)) for name in names]
        return (by_gain(choices, worth=worth) if policy == "learned" else by_length(question, choices)).model

    def cascade(
        self,
        request: ChatRequest,
        models: Sequence[str],
        validate: Callable[[ChatResponse], bool],
        *,
        ask: Callable[[ChatRequest], ChatResponse],
    ) -> ChatResponse:
        """Ask the models in turn, cheapest first, until an answer is valid; what `validate` says is learned too.

        Args:
            request: its model is replaced.
            models: in the order to try them.
            validate: returns whether an answer will do; the last model's is returned all the same.
            ask: sends a request, for example `perfkit.client.run`.

        Returns:
            The answer, with the cost of all that were asked; None if one is not known.

        Raises:
            ValueError: there are no models.
        """
        if not models:
            raise ValueError("models is empty; give at least one model")
        costs: list[float | None] = []
        for model in models:
            response = ask(request.evolve(model=model))
            costs.append(response.cost)
            valid = validate(response)
            self._scores.add(origin_of(request, model), float(valid))
            if valid:
                break
        known = [cost for cost in costs if cost is not None]
        return response.evolve(cost=sum(known) if len(known) == len(costs) else None)
