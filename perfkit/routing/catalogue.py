"""What a router knows of its providers beside their health: models, prices and profiles, and who is best at what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from perfkit._shared import current_config
from perfkit.errors import UnknownModelError
from perfkit.routing.endings import none_available
from perfkit.routing.prices import cost_per_1k
from perfkit.routing.profiles import DEFAULT, ModelProfile, profile_of, together
from perfkit.routing.roster import Roster
from perfkit.routing.warming import Outcome, validated, warmed

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit.clock import Moment
    from perfkit.routing.health import Candidate
    from perfkit.values import Usage

__all__ = ["Catalogue"]


class Catalogue(Roster):
    """The providers of a router as things to choose from."""

    # --- what is known of each

    def profiles(self) -> tuple[ModelProfile, ...]:
        """Return a profile for every model a provider offers by name, with what was measured laid over the table.

        A provider that names no models has one profile, for any of them.
        """
        return tuple(
            self._profile(candidate, model) for candidate in self._candidates.values() for model in _models(candidate)
        )

    def _profile(self, candidate: Candidate, model: str) -> ModelProfile:
        known = profile_of(_own_name(candidate, model), candidate.name)
        cost = cost_per_1k(candidate, model or None)
        return known.overlaid(latency=candidate.latency, quality=candidate.known_quality, cost_per_1k=cost)

    def get_provider_info(self, name: str) -> dict[str, Any]:
        """Return what is known of one provider, in JSON types.

        Keys: name, kind (class), base_url, models, model (the one it is asked for by default), cost_per_1k (dollars for
        1,000 tokens, a quarter of them in the answer; None when the price is unknown), latency and first_token
        (seconds), tokens_per_second, quality (0..1), measured, status and reason (as in `health`).

        Raises:
            UnknownNameError: there is none called `name`.
        """
        candidate = self._named(name)
        models, provider = _models(candidate), candidate.provider
        health = candidate.health()
        profile = self._profile(candidate, models[0]).to_dict()
        return {
            **profile,
            "name": name,
            "kind": type(provider).__name__,
            "base_url": getattr(provider, "base_url", None),
            "model": _own_name(candidate, models[0]) or None,
            "models": sorted(candidate.models or ()),
            "status": health["status"],
            "reason": health["reason"],
        }

    def get_request_cost(self, name: str, usage: Usage | Mapping[str, Any], model: str | None = None) -> float | None:
        """Return US dollars for the tokens of one call at a provider; None when the price is unknown.

        Args:
            name: of the provider.
            usage: Usage, or a mapping; LangChain's `input_tokens` and `output_tokens` are understood.
            model: asked for; None means the provider's default one.

        Raises:
            UnknownNameError: there is no provider called `name`.
            ValueError: a mapping has no tokens.
        """
        from perfkit.tokens import TokenOptimizer

        candidate = self._named(name)
        if isinstance(usage, Mapping) and "input_tokens" in usage:
            usage = {"prompt_tokens": usage["input_tokens"], "completion_tokens": usage.get("output_tokens", 0)}
        asked = _own_name(candidate, model if model is not None else _models(candidate)[0])
        return TokenOptimizer.instance().calculate_cost(usage, asked)

    # --- who is best at what

    def cheapest_provider(self, model: str | None = None) -> str:
        """Return the name of the usable provider with the lowest price; an unknown price is the highest.

        Raises:
            UnknownModelError: nobody offers `model`.
            NoAvailableProviderError: those who do cannot be used now.
        """
        return self._best(model, lambda profile: _or_worst(profile.cost_per_1k))

    def fastest_provider(self, model: str | None = None) -> str:
        """Return the name of the usable provider with the lowest latency, measured or else as a rule; errors as above.

        Raises:
            UnknownModelError, NoAvailableProviderError: see `cheapest_provider`.
        """
        return self._best(model, lambda profile: _or_worst(profile.latency))

    def best_quality_provider(self, model: str | None = None) -> str:
        """Return the name of the usable provider with the highest quality, registered or else as a rule.

        Raises:
            UnknownModelError, NoAvailableProviderError: see `cheapest_provider`.
        """
        return self._best(model, lambda profile: -(profile.quality or 0.0))

    def _best(self, model: str | None, rank: Callable[[ModelProfile], float]) -> str:
        offers, now = self._offers(model, None), self._clock.now()
        usable = [candidate for candidate in offers if candidate.usable(model, now)]
        if not usable:
            raise none_available(model, offers)

        def ranked(candidate: Candidate) -> float:
            asked = _models(candidate) if model is None else (model,)
            return min(rank(self._profile(candidate, one)) for one in asked)

        return min(usable, key=ranked).name

    def select_model(
        self,
        *,
        max_latency: float | None = None,
        min_quality: float | None = None,
        max_cost_per_1k: float | None = None,
        default: str | None = None,
    ) -> tuple[str, str]:
        """Return provider and model that meet all constraints, the fastest of several (AgentiCraft 4).

        Args:
            max_latency: seconds.
            min_quality: 0..1.
            max_cost_per_1k: dollars for 1,000 tokens, a quarter of them in the answer.
            default: model when no constraint is given; None means `[client] default_model`.

        Raises:
            NoModelFitsError: no offered model meets them; the message names the constraint that binds.
            UnknownModelError: nobody offers the default, or there is none.
        """
        from perfkit.tokens.constraints import Constraints, select

        wanted = Constraints.of(max_latency=max_latency, min_quality=min_quality, max_cost_per_1k=max_cost_per_1k)
        if wanted:
            now = self._clock.now()
            usable = {candidate.name for candidate in self._candidates.values() if candidate.usable(None, now)}
            found = select([p.choice() for p in self.profiles() if p.provider in usable], wanted)
            return found.provider, found.model
        model = default if default is not None else current_config().table("client").default_model
        if model is None:
            message = "neither a constraint nor a default model is given; pass default= or set [client] default_model"
            raise UnknownModelError(message)
        return self.fastest_provider(model), model

    # --- before the first call

    def metrics(self, since: Moment = None) -> dict[str, Any]:
        """Return how all providers together did, and each of them (the RecoAgent guide's provider metrics).

        Keys: requests (attempts), avg_latency (seconds, of those that succeeded), success_rate (0..1), total_cost (US
        dollars), each None where there is nothing to tell, and `providers`: the same by name.

        Args:
            since: as `tracker.get_stats` takes it; None means the last hour.
        """
        rows = self._measured().merged().get_performance_summary(since)
        by_name: dict[str, list[dict[str, Any]]] = {}
        for name, row in rows.items():
            by_name.setdefault(name.partition("/")[0], []).append(row)
        return {**together(rows.values()), "providers": {name: together(part) for name, part in by_name.items()}}

    def warm_up(self, connections: int = 1, *, request: bool = False, timeout: float = 30.0) -> dict[str, Outcome]:
        """Open connections to all providers at the same time, and tell how each one went.

        Args:
            connections: to each.
            request: send each a request of one token too; it costs what it costs.
            timeout: seconds for each such request.
        """
        return warmed(self._by_name(), connections=connections, request=request, timeout=timeout)

    def validate_providers(self, timeout: float = 10.0) -> dict[str, Outcome]:
        """Check address and key of all providers at the same time, without using tokens, and tell how each one went.

        A key that is missing or wrong is told with the variable to set; `timeout` seconds are for each.
        """
        return validated(self._by_name(), timeout)

    def own_name(self, provider: str, model: str) -> str:
        """Return what a provider calls a model, by which it is priced."""
        candidate = self._candidates.get(provider)
        return model if candidate is None else _own_name(candidate, model)

    def _by_name(self) -> dict[str, tuple[Any, str]]:
        return {name: (one.provider, _models(one)[0]) for name, one in self._candidates.items()}


def _models(candidate: Candidate) -> tuple[str, ...]:
    """Return the models offered by name, the default one first; one empty name for any model."""
    names = sorted(candidate.models or ("",), key=lambda name: (name != DEFAULT, name))
    return tuple(names)


def _own_name(candidate: Candidate, model: str) -> str:
    named = getattr(candidate.provider, "own_name", None)
    return str(named(model)) if named is not None else model


def _or_worst(value: float | None) -> float:
    return float("inf") if value is None else value
