"""Builds the errors of one provider: the class from the tables, the words from the reply, nothing secret in either."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from perfkit.clock import SYSTEM_CLOCK
from perfkit.errors import (
    AuthenticationError,
    ModelNotFoundError,
    ProviderError,
    RateLimitError,
    ResponseFormatError,
    StreamInterruptedError,
)
from perfkit.providers.wire.failures import Complaint, complaint, failure_class
from perfkit.providers.wire.reply import UNREADABLE, why
from perfkit.providers.wire.waits import asked_wait, limit_wait

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perfkit.clock import Clock
    from perfkit.errors import TransportError
    from perfkit.providers.secret import Scrubber

__all__ = ["Refusals"]

SHOWN = 200  # characters of a reply that is not understood
LONGEST = 500  # characters of a provider's own words
_SHOULD_RETRY = {"true": True, "false": False}
_REDIRECTS = range(300, 400)


class Refusals:
    """Errors of one provider.

    Args:
        provider: its name.
        base_url: named where it may be the reason.
        key_hint: what to do about the key.
        scrubber: takes the provider's secrets out.
        clock: for waits told as a point in time.
    """

    def __init__(
        self, provider: str, base_url: str, key_hint: str, scrubber: Scrubber, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._provider = provider
        self._base_url = base_url
        self._key_hint = key_hint
        self._scrubber = scrubber
        self._clock = clock

    def without_key(self, model: str | None = None) -> AuthenticationError:
        """Build the error for a call that has no key to show."""
        message = f"{self._provider} has no key: {self._key_hint}"
        return AuthenticationError(message, provider=self._provider, model=model)

    def of_reply(self, model: str | None, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """Build the error for a reply whose status is not 2xx; the body may be anything."""
        try:
            document = json.loads(body)
        except UNREADABLE:
            document = self._shown(body)
        return self.of_document(model, status, headers, document)

    def of_document(self, model: str | None, status: int, headers: Mapping[str, str], document: Any) -> ProviderError:
        """Build the error for an error body; with status 200 it is one inside a good reply or stream."""
        told = self._scrubbed(complaint(document))
        if status < _REDIRECTS.start and told.status is not None:
            status = told.status
        cls = failure_class(status, told)
        wait = asked_wait(headers, now=self._clock.wall())
        if wait is None and cls is RateLimitError:
            wait = limit_wait(headers, told.message, now=self._clock.wall(), told=told.wait)
        words = f"{self._provider} answered {status}{f' {told.name}' if told.name else ''}"
        asked = f" for {model!r}" if model else ""
        hint = self._hint(cls, status, headers, told, wait)
        return cls(
            self._scrubber.text(f"{words}{asked}: {told.message or 'it gave no reason'}{hint}"),
            provider=self._provider,
            model=model,
            status=status,
            code=told.name,
            retry_after=wait,
            should_retry=_SHOULD_RETRY.get(headers.get("x-should-retry", "").lower()),
            request_id=self._request_id(headers, document),
        )

    def _scrubbed(self, told: Complaint) -> Complaint:
        """Take secrets out first, then shorten: a key cut in two would stay."""
        message, code, kind = (self._scrubber.text(part or "") for part in told[:3])
        return Complaint(message[:LONGEST], code or None, kind or None, told.status, told.wait)

    def _hint(
        self, cls: type[ProviderError], status: int, headers: Mapping[str, str], told: Complaint, wait: float | None
    ) -> str:
        """Say what to do, where it is known."""
        if told.spent:
            return f"; its account may not spend more: add credit or raise the limit there, or {self._key_hint}"
        if cls is AuthenticationError:
            return f"; {self._key_hint}"
        if cls is ModelNotFoundError and "model" not in f"{told.name} {told.message}".lower():
            return f"; is base_url right? It is {self._base_url} and needs the version prefix, mostly /v1"
        if status in _REDIRECTS:
            return f"; base_url {self._base_url} redirects to {headers.get('location', 'elsewhere')}"
        return "" if wait is None else f"; it asks to wait {wait:g} s"

    def nonsense(
        self, model: str | None, headers: Mapping[str, str], body: bytes | str, error: Exception
    ) -> ResponseFormatError:
        """Build the error for a reply with status 200 that is not an answer; it shows the beginning of it."""
        kind = headers.get("content-type", "no content type")
        begins = f"it begins {self._shown(body)!r}" if body else "it is empty"
        message = f"{self._provider} answered 200 ({kind}) with something that is no answer: {why(error)}; {begins}"
        return ResponseFormatError(
            self._scrubber.text(message),
            provider=self._provider,
            model=model,
            status=200,
            request_id=self._request_id(headers),
        )

    def interrupted(self, model: str, partial: str, error: ProviderError | TransportError) -> StreamInterruptedError:
        """Build the error for a stream that broke after text was shown."""
        return StreamInterruptedError(
            f"the stream of {self._provider} broke after {len(partial)} characters: {error}",
            partial=partial,
            provider=self._provider,
            model=model,
            status=getattr(error, "status", None),
            code=getattr(error, "code", None),
            retry_after=getattr(error, "retry_after", None),
            should_retry=getattr(error, "should_retry", None),
            request_id=getattr(error, "request_id", None),
        )

    def _shown(self, body: bytes | str) -> str:
        """Return the first characters, scrubbed."""
        text = body if isinstance(body, str) else body.decode("utf-8", "replace")
        return self._scrubber.text(text)[:SHOWN]

    def _request_id(self, headers: Mapping[str, str], document: Any = None) -> str | None:
        told = headers.get("x-request-id") or headers.get("request-id")
        if not told and isinstance(document, dict):
            told = document.get("request_id")
        return self._scrubber.text(told) if isinstance(told, str) else None
