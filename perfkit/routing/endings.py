"""How a call ends without an answer: the error that says who was asked, what each said, and why nobody else was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perfkit.errors import (
    DeadlineExceeded,
    MaxRetriesExceededError,
    NetworkError,
    NoAvailableProviderError,
    OverloadedError,
    PerfkitError,
    StreamInterruptedError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perfkit.routing.health import Candidate
    from perfkit.values import Attempt, ChatRequest

__all__ = ["broken", "exhausted", "none_available", "unavailable"]


def none_available(
    model: str | None, offers: Sequence[Candidate], request: ChatRequest | None = None
) -> NoAvailableProviderError:
    """Return the error that says why none of `offers` may be asked now."""
    reasons = _reasons(model, offers, request)
    return NoAvailableProviderError(_told(model, reasons), reasons=reasons, attempts=())


def unavailable(request: ChatRequest, offers: Sequence[Candidate], *, shed: str) -> NoAvailableProviderError:
    """Return the error for a call that asked nobody; `shed` says how it waited in vain, if it did."""
    if not shed:
        return none_available(request.model, offers, request)
    reasons = _reasons(request.model, offers, request)
    return OverloadedError(f"{_told(request.model, reasons)}; {shed}", reasons=reasons, attempts=())


def _reasons(model: str | None, offers: Sequence[Candidate], request: ChatRequest | None) -> dict[str, str]:
    return {one.name: _refusal(one, request) or one.why_not(model) for one in offers}


def _refusal(candidate: Candidate, request: ChatRequest | None) -> str | None:
    return None if candidate.gates is None or request is None else candidate.gates.refuses(request)


def _told(model: str | None, reasons: dict[str, str]) -> str:
    told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return f"no provider can take {model!r} now: {told}"


def exhausted(
    model: str, attempts: tuple[Attempt, ...], error: BaseException | None, *, why: str, late: bool
) -> PerfkitError:
    """Return the error for a call whose attempts all failed, the last one with `error`."""
    told = "; ".join(f"{a.provider}: {a.error} after {a.seconds:.2f} s" for a in attempts)
    final: PerfkitError
    if late:
        message = f"the call's time ran out after {len(attempts)} attempts: {told}"
        final = DeadlineExceeded(message, attempts=attempts)
    else:
        place = isinstance(error, NetworkError) and not error.sent
        hint = "; is base_url right, and does anything answer there?" if place else ""
        last = f"; the last one: {error}" if error is not None else ""
        message = f"{len(attempts)} attempts for {model!r} failed: {told}{why}{last}{hint}"
        final = MaxRetriesExceededError(message, attempts=attempts)
    final.__cause__ = error
    return final


def broken(error: BaseException | None, shown: str, attempts: tuple[Attempt, ...]) -> StreamInterruptedError:
    """Return the error for a stream that broke after output and could not be resumed either."""
    final = StreamInterruptedError(
        f"the stream broke after {len(shown)} characters and nobody could go on with it: {error}",
        partial=shown,
        provider=attempts[-1].provider,
        attempts=attempts,
    )
    final.__cause__ = error
    return final
