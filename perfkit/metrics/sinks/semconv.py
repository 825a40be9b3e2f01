"""Names of OpenTelemetry's conventions for generative AI, all in this one place, since they are still being changed.

There are two profiles: "released" is what version 1.41 and the packages on PyPI say, "new" what the conventions' own
repository (open-telemetry/semantic-conventions-genai) has had since. The environment variable that OpenTelemetry
defines for it chooses: OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental. Input tokens include cached ones.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perfkit._registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from perfkit.metrics.sinks.calls import FinishedCall
    from perfkit.values import Usage

__all__ = ["PROFILES", "Instrument", "Profile", "chosen_profile", "provider_name", "request_attributes", "span_name"]

Attributes = dict[str, Any]

_OPERATION = "chat"
_DURATIONS = tuple(0.01 * 2**i for i in range(14))  # seconds, of the conventions
_TOKENS = tuple(float(4**i) for i in range(14))
_PROVIDERS = {  # registered name, or the kind it begins with, to the conventions' own name
    "gemini": "gcp.gemini",
    "vertex": "gcp.vertex_ai",
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "mistral": "mistral_ai",
    "xai": "x_ai",
    "openai_responses": "openai",
}


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric: kind is "histogram" or "counter"."""

    name: str
    unit: str
    kind: str = "histogram"
    bounds: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """One version of the names.

    Attributes:
        duration: of a call, in seconds, failed ones too.
        first_chunk: seconds until a stream's first text.
        per_chunk: seconds for each further piece.
        tokens: what tokens are counted in: instrument, field of Usage and attributes.
        cache_write: span attribute of tokens written to the provider's cache.
    """

    duration: Instrument
    first_chunk: Instrument
    per_chunk: Instrument
    tokens: tuple[tuple[Instrument, str, Mapping[str, str]], ...]
    cache_write: str

    def usage_attributes(self, usage: Usage) -> Attributes:
        """Return what a span says of a call's tokens."""
        found = {
            "gen_ai.usage.input_tokens": usage.prompt_tokens,
            "gen_ai.usage.output_tokens": usage.completion_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
            self.cache_write: usage.cache_write_tokens,
            "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
        }
        return {name: n for name, n in found.items() if n or name.endswith(("usage.input_tokens", "output_tokens"))}

    def measurements(self, call: FinishedCall) -> Iterator[tuple[Instrument, float, Attributes]]:
        """Yield what is measured of a call that a provider was asked for."""
        attributes = request_attributes(call, metric=True)
        yield self.duration, call.seconds, attributes
        if call.first_token is not None:
            yield self.first_chunk, call.first_token, attributes
            if call.chunks > 1:
                yield self.per_chunk, max(0.0, call.seconds - call.first_token) / (call.chunks - 1), attributes
        usage = call.response.usage if call.response is not None else None
        for instrument, part, more in self.tokens:
            n = getattr(usage, part, 0)
            if n or part in ("prompt_tokens", "completion_tokens"):
                yield instrument, n, {**attributes, **more}


def _released() -> Profile:
    usage = Instrument("gen_ai.client.token.usage", "{token}", bounds=_TOKENS)
    return Profile(
        duration=Instrument("gen_ai.client.operation.duration", "s", bounds=_DURATIONS),
        first_chunk=Instrument("gen_ai.client.operation.time_to_first_chunk", "s", bounds=_DURATIONS),
        per_chunk=Instrument("gen_ai.client.operation.time_per_output_chunk", "s", bounds=_DURATIONS),
        tokens=(
            (usage, "prompt_tokens", {"gen_ai.token.type": "input"}),
            (usage, "completion_tokens", {"gen_ai.token.type": "output"}),
        ),
        cache_write="gen_ai.usage.cache_creation.input_tokens",
    )


def _new() -> Profile:
    text = {"gen_ai.token.modality": "unknown"}  # providers rarely tell

    def usage(name: str) -> Instrument:
        return Instrument(f"gen_ai.client.inference.usage.{name}", "{token}", "counter")

    def size(name: str) -> Instrument:
        return Instrument(f"gen_ai.client.inference.operation.{name}", "{token}", bounds=_TOKENS)

    return Profile(
        duration=Instrument("gen_ai.client.inference.duration", "s", bounds=_DURATIONS),
        first_chunk=Instrument("gen_ai.client.inference.time_to_first_chunk", "s", bounds=_DURATIONS),
        per_chunk=Instrument("gen_ai.client.inference.time_per_output_chunk", "s", bounds=_DURATIONS),
        tokens=(
            (usage("input_tokens"), "prompt_tokens", text),
            (usage("output_tokens"), "completion_tokens", text),
            (usage("cache_read.input_tokens"), "cached_tokens", text),
            (usage("cache_write.input_tokens"), "cache_write_tokens", text),
            (usage("reasoning.output_tokens"), "reasoning_tokens", text),
            (size("input_tokens"), "prompt_tokens", {}),
            (size("output_tokens"), "completion_tokens", {}),
        ),
        cache_write="gen_ai.usage.cache_write.input_tokens",
    )


PROFILES = Registry("profile of the GenAI conventions", {"released": _released(), "new": _new()})


def chosen_profile(name: str | None = None) -> Profile:
    """Return a profile by name; None means the one OTEL_SEMCONV_STABILITY_OPT_IN asks for.

    Raises:
        UnknownNameError: there is none of that name.
    """
    if name is None:
        wanted = os.environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").split(",")
        name = "new" if "gen_ai_latest_experimental" in map(str.strip, wanted) else "released"
    profile: Profile = PROFILES.get(name)
    return profile


def provider_name(registered: str) -> str:
    """Return the conventions' name of a provider; one of the application's own names stays as it is."""
    return _PROVIDERS.get(registered, registered)


def span_name(call: FinishedCall) -> str:
    """Return "chat gpt-4.1"."""
    return f"{_OPERATION} {call.request.model}"


def request_attributes(call: FinishedCall, *, metric: bool = False) -> Attributes:
    """Return what the conventions say of a call; for metrics only what has few values."""
    request, response = call.request, call.response
    asked = call.attempts[-1].provider if call.attempts else "unknown"
    found: dict[str, Any] = {
        "gen_ai.operation.name": _OPERATION,
        "gen_ai.provider.name": provider_name(response.provider if response is not None else asked),
        "gen_ai.request.model": request.model,
        "gen_ai.response.model": response.model if response is not None else None,
        "error.type": type(call.error).__name__ if call.error is not None else None,
    }
    if not metric:
        found |= {
            "gen_ai.agent.name": request.agent,
            "gen_ai.request.temperature": request.temperature,
            "gen_ai.request.max_tokens": request.max_tokens,
            "gen_ai.request.stream": True if call.first_token is not None else None,
            "gen_ai.response.time_to_first_chunk": call.first_token,
        }
        if response is not None:
            found["gen_ai.response.id"] = response.id
            found["gen_ai.response.finish_reasons"] = [response.finish_reason] if response.finish_reason else None
    return {name: value for name, value in found.items() if value is not None}
