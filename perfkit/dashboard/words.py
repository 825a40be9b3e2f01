"""The words of the latest calls, for a dashboard whose owner has switched them on by `[dashboard] prompts`.

Nothing is kept before that, and nothing after it was switched off. What is kept is short, in the memory of this worker
alone, and shown to people only: no JSON has it, and so no machine gets it by a bearer token.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from perfkit._shared import current_config
from perfkit.metrics import PerformanceTracker
from perfkit.providers.wire.parts import text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perfkit.metrics.sinks import Kind
    from perfkit.metrics.sinks.calls import FinishedCall

__all__ = ["Words"]

KEPT = 20  # calls
LONGEST = 500  # characters of a question, of an answer


class Words:
    """A sink of calls: keeps what was last asked and answered, from the first look on."""

    def __init__(self) -> None:
        self._calls: deque[dict[str, Any]] = deque(maxlen=KEPT)

    def latest(self) -> list[dict[str, Any]] | None:
        """Return the latest calls, the newest first; None where they are not to be shown."""
        if not _switched_on():
            return None
        PerformanceTracker.instance().add_sink(self)
        return list(self._calls)[::-1]

    def finished(self, call: FinishedCall) -> None:
        """Keep one call."""
        if not _switched_on():
            self._calls.clear()
            return
        answer = call.response.text if call.response is not None else f"{type(call.error).__name__}: {call.error}"
        self._calls.append(
            {
                "ended": call.ended,
                "model": call.request.model,
                "asked": _short(text_of(call.request.messages[-1].get("content"))),
                "answered": _short(answer),
                "seconds": call.seconds,
            }
        )

    def emit(self, kind: Kind, name: str, value: float, tags: Mapping[str, str]) -> None:
        """Leave single values to others."""

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is open."""


def _switched_on() -> bool:
    return bool(current_config().table("dashboard").prompts)


def _short(text: str) -> str:
    """Return a text on one line, cut."""
    text = " ".join(text[: 2 * LONGEST].split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}\N{HORIZONTAL ELLIPSIS}"
