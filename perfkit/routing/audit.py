"""The record of each attempt for those who watch: an event on the OpenTelemetry span that is open, if there is one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perfkit.values import Attempt

__all__ = ["TRACE", "note"]

TRACE = "opentelemetry.trace"


def note(attempt: Attempt) -> None:
    """Add `attempt` as event "perfkit.attempt" to the current span; nothing happens unless the application traces."""
    trace = sys.modules.get(TRACE)
    if trace is None:
        return
    try:
        span = trace.get_current_span()
        if span.is_recording():
            attributes = {f"perfkit.{name}": value for name, value in attempt.to_dict().items() if value is not None}
            span.add_event("perfkit.attempt", attributes)
    except Exception:  # somebody's exporter is not this call's business
        return
