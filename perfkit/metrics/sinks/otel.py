"""OpenTelemetry: every metric, a span for every chat call, and the metrics that its conventions for generative AI name.

It speaks to opentelemetry-api only, so the application decides where things go; without an SDK nothing happens. Values
wait for the background thread, since an instrument of the SDK costs some microseconds. A span is made when its call has
ended, with the times it really had: no context has to be carried through threads, and it is a child of whatever span
the caller is in. Spans carry no text of prompts or answers, only their lengths, and not what an error says: providers
repeat prompts in what they refuse.
"""

from __future__ import annotations

import re
import traceback
from collections import deque
from typing import TYPE_CHECKING, Any

from perfkit import _process
from perfkit._registry import load
from perfkit.errors import ConfigError
from perfkit.metrics.sinks.semconv import Instrument, chosen_profile, request_attributes, span_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from perfkit.metrics.sinks import Kind
    from perfkit.metrics.sinks.calls import FinishedCall
    from perfkit.values import Attempt, ChatResponse

__all__ = ["OtelSink"]

_WAITING = 100_000  # values kept until the next flush
_NAME = 230  # characters of an instrument's name; 255 are allowed


def _api(name: str) -> Any:
    try:
        return load(f"opentelemetry.{name}")
    except ModuleNotFoundError as error:
        message = "opentelemetry-api is not installed; pip install 'perfkit[otel]'"
        raise ConfigError(message, key="metrics.otel") from error


class OtelSink:
    """Hands metrics and calls to OpenTelemetry.

    Args:
        prefix: first part of the names of perfkit's own metrics.
        profile: names of the GenAI conventions, "released" or "new"; None: by OTEL_SEMCONV_STABILITY_OPT_IN.
        meter_provider: None means OpenTelemetry's global one.
        tracer_provider: None means OpenTelemetry's global one.

    Attributes:
        dropped: values lost: too many waited, or a counter was to count down.

    Raises:
        ConfigError: opentelemetry-api is not installed.
        UnknownNameError: there is no such profile.
    """

    def __init__(
        self,
        *,
        prefix: str = "perfkit",
        profile: str | None = None,
        meter_provider: Any = None,
        tracer_provider: Any = None,
    ) -> None:
        self._trace = _api("trace")
        self._meter = _api("metrics").get_meter("perfkit", meter_provider=meter_provider)
        self._tracer = self._trace.get_tracer("perfkit", tracer_provider=tracer_provider)
        self._prefix = f"{prefix}." if prefix else ""
        self._profile = chosen_profile(profile)
        # Each step on these is atomic, and two instruments of one name are the same to an SDK.
        self._instruments: dict[Any, Callable[[float, dict[str, Any]], None]] = {}
        self._kinds: dict[str, Kind] = {}
        self._after_fork()
        _process.bind(self)

    def _after_fork(self) -> None:
        self._waiting: deque[tuple[Kind, str, float, dict[str, str]]] = deque(maxlen=_WAITING)  # steps are atomic
        self.dropped = 0

    def emit(self, kind: Kind, name: str, value: float, tags: Mapping[str, str]) -> None:
        """Keep a value until the next flush."""
        if len(self._waiting) >= _WAITING:
            self.dropped += 1
        self._waiting.append((kind, name, value, dict(tags)))

    def flush(self) -> None:
        """Hand over what waits."""
        while self._waiting:
            try:
                kind, name, value, tags = self._waiting.popleft()
            except IndexError:  # another thread was quicker
                return
            self._record(kind, name, value, tags)

    def close(self) -> None:
        """Hand over what waits; the providers are the application's to shut down."""
        self.flush()

    def _record(self, kind: Kind, name: str, value: float, tags: dict[str, str]) -> None:
        if kind == "counter" and value < 0:  # OpenTelemetry's counters only count up
            self.dropped += 1
            return
        found = self._instruments.get((kind, name))
        if found is None:
            found = self._instruments[kind, name] = self._made(kind, self._named(kind, name))
        found(value, tags)

    def _named(self, kind: Kind, name: str) -> str:
        """Return a name OpenTelemetry takes, another one where a metric of another kind has it already."""
        clean = re.sub(r"[^A-Za-z0-9_./-]", "_", self._prefix + name)[:_NAME]
        clean = clean if re.match("[A-Za-z]", clean) else f"m{clean}"
        while self._kinds.setdefault(clean, kind) != kind:
            clean += f".{kind}"
        return clean

    def _made(self, kind: Kind, name: str) -> Callable[[float, dict[str, str]], None]:
        """Make an instrument, and return the method that it takes values with."""
        made: Callable[[float, dict[str, str]], None]
        if kind == "counter":
            made = self._meter.create_counter(name).add
        elif kind == "gauge":
            made = self._meter.create_gauge(name).set
        else:
            made = self._meter.create_histogram(name, unit="s" if kind == "timing" else "").record
        return made

    # --- calls

    def finished(self, call: FinishedCall) -> None:
        """Make the span of a call, and count it as the conventions say unless the cache answered it."""
        self._span(call)
        if call.response is None or call.response.cached is None:
            for instrument, value, attributes in self._profile.measurements(call):
                self._convention(instrument)(value, attributes)

    def _convention(self, wanted: Instrument) -> Any:
        found = self._instruments.get(wanted)
        if found is None:
            name, unit = wanted.name, wanted.unit
            if wanted.kind == "counter":
                found = self._meter.create_counter(name, unit=unit).add
            else:
                bounds = wanted.bounds
                made = self._meter.create_histogram(name, unit=unit, explicit_bucket_boundaries_advisory=bounds)
                found = made.record
            self._instruments[wanted] = found
        return found

    def _span(self, call: FinishedCall) -> None:
        began = call.ended - call.seconds
        span = self._tracer.start_span(
            span_name(call),
            kind=self._trace.SpanKind.CLIENT,
            start_time=_nano(began),
            attributes=self._attributes(call),
        )
        for attempt in call.attempts:
            span.add_event("perfkit.attempt", _told(attempt), timestamp=_nano(attempt.started))
        code = self._trace.StatusCode
        if call.error is None:
            span.set_status(self._trace.Status(code.OK))
        else:
            span.add_event("exception", _raised(call.error), timestamp=_nano(call.ended))
            span.set_status(self._trace.Status(code.ERROR, type(call.error).__name__))
        span.end(_nano(call.ended))

    def _attributes(self, call: FinishedCall) -> dict[str, Any]:
        """Return the conventions' attributes, those of the AgentiCraft guide, and perfkit's own."""
        request, response = call.request, call.response
        contents = [message.get("content") for message in request.messages]
        found = request_attributes(call) | {
            "agent.name": request.agent,
            "model.name": request.model,
            "prompt.length": sum(len(content) for content in contents if isinstance(content, str)),
            "perfkit.attempts": len(call.attempts),
        }
        if call.attempts:
            found["provider.name"] = call.attempts[-1].provider
        return found | self._answered(response) if response is not None else found

    def _answered(self, response: ChatResponse) -> dict[str, Any]:
        usage = response.usage
        cost = {"perfkit.cost": response.cost} if response.cost is not None else {}
        return {
            **self._profile.usage_attributes(usage),
            **cost,
            "provider.name": response.provider,
            "response.length": len(response.text),
            "tokens.prompt": usage.prompt_tokens,
            "tokens.completion": usage.completion_tokens,
            "perfkit.cached": response.cached or "no",
        }


def _told(attempt: Attempt) -> dict[str, Any]:
    found = {
        "provider": attempt.provider,
        "model": attempt.model,
        "seconds": attempt.seconds,
        "outcome": attempt.outcome,
        "reason": attempt.reason,
    }
    return found if attempt.error is None else {**found, "error.type": attempt.error}


def _raised(error: BaseException) -> dict[str, Any]:
    """Return what an exception event says, but for the message: providers repeat prompts in what they refuse."""
    kind = type(error)
    where = "".join(traceback.format_tb(error.__traceback__))
    return {"exception.type": f"{kind.__module__}.{kind.__qualname__}", "exception.stacktrace": where}


def _nano(seconds: float) -> int:
    return int(seconds * 1_000_000_000)
