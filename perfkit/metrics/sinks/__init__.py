"""Where metrics go: the protocol of a sink, and the registry of those that come with perfkit.

A new sink is one module and one line here; `SINKS.register` takes those of others, `tracker.add_sink` also instances.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from perfkit._registry import Registry
from perfkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perfkit._settings import MetricsSettings
    from perfkit.clock import Clock

__all__ = ["SINKS", "Kind", "Sink", "configured_sinks"]

Kind = Literal["timing", "value", "counter", "gauge"]


class Sink(Protocol):
    """Takes metrics on; called from any thread, outside perfkit's locks, must not block, and must not record itself.

    One that has a method `finished` too gets every chat call, see `perfkit.metrics.sinks.calls`.

    A sink with sockets, locks or buffers calls `perfkit._process.bind(self)`, which drops them in forked children.
    """

    def emit(self, kind: Kind, name: str, value: float, tags: Mapping[str, str]) -> None:
        """Take one value: seconds of a "timing", any number for "value" and "gauge", how many more of a "counter"."""
        ...

    def flush(self) -> None:
        """Send what is waiting; called a few times every `flush_interval`, and once before the first value."""
        ...

    def close(self) -> None:
        """Flush and let go; a later `emit` may start again."""
        ...


SINKS = Registry(
    "metrics sink",
    {
        "calls": "perfkit.metrics.sinks.logging:CallLog",
        "logging": "perfkit.metrics.sinks.logging:LoggingSink",
        "memory": "perfkit.metrics.sinks.memory:MemorySink",
        "otel": "perfkit.metrics.sinks.otel:OtelSink",
        "statsd": "perfkit.metrics.sinks.statsd:StatsdSink",
    },
)


def configured_sinks(settings: MetricsSettings, clock: Clock) -> tuple[Sink, ...]:
    """Return the sinks of `[metrics] statsd` and `otel`.

    Raises:
        ConfigError: there is no such option of StatsD, or opentelemetry-api is not installed.
    """
    otel = (SINKS.get("otel")(prefix=settings.prefix),) if settings.otel else ()
    return otel if settings.statsd is None else (_statsd(settings.statsd, settings, clock), *otel)


def _statsd(address: str, settings: MetricsSettings, clock: Clock) -> Sink:
    options = {"prefix": settings.prefix, **settings.statsd_options}
    try:
        made: Sink = SINKS.get("statsd")(address, clock=clock, **options)
    except (TypeError, KeyError) as error:
        raise ConfigError(f"metrics.statsd_options: {error}", key="metrics.statsd_options") from error
    return made
