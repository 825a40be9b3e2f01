"""From the bytes of a good reply, whole or as they stream, to a ChatResponse: or to the error that says why not."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from perfkit.clock import SYSTEM_CLOCK
from perfkit.errors import DeadlineExceeded, ProviderError, TransportError
from perfkit.providers.pace import Pace
from perfkit.providers.wire.reply import MISSHAPEN, UNREADABLE, ErrorReply
from perfkit.values import ChatResponse, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from perfkit.providers.refusals import Refusals
    from perfkit.providers.secret import Scrubber
    from perfkit.providers.wire.reply import Event, Reader, Reply
    from perfkit.transport import HTTPStream
    from perfkit.values import ChatRequest

__all__ = ["Receiver"]

_OK = 200


class Receiver:
    """Reads what one provider sends with status 200.

    Args:
        provider: its name.
        refusals: builds its errors.
        scrubber: takes its secrets out of `raw`.
        read: the format's reader of whole documents.
        reader: makes the format's reader of one stream.
        events: yields what it reads.
    """

    def __init__(
        self,
        provider: str,
        refusals: Refusals,
        scrubber: Scrubber,
        read: Callable[[Mapping[str, Any]], Reply],
        reader: Callable[[], Reader],
        events: Callable[[HTTPStream], Iterator[Event]],
    ) -> None:
        self._provider = provider
        self._refusals = refusals
        self._scrubber = scrubber
        self._read = read
        self._reader = reader
        self._events = events

    def answer(self, request: ChatRequest, headers: Mapping[str, str], body: bytes) -> ChatResponse:
        """Return the answer in a whole body."""
        document = self.document(request.model, headers, body)
        try:
            said = self._read(document)
            _require_text(said.text)
        except (ErrorReply, *MISSHAPEN) as error:
            failure = self._failure(request.model, headers, body, error)
        else:
            raw = self._scrubber.value(document) if self._scrubber.found_in(body) else document
            return self._response(request, said, raw)
        raise failure  # out here it has no context, which would still hold the reply with all its secrets

    def document(self, model: str | None, headers: Mapping[str, str], body: bytes) -> Any:
        """Return the JSON of a body that is no error."""
        try:
            document = json.loads(body)
        except UNREADABLE as error:
            failure = self._failure(model, headers, body, error)
        else:
            if not (isinstance(document, dict) and document.get("error")):
                return document
            failure = self._failure(model, headers, body, ErrorReply(document))
        raise failure

    def _failure(
        self, model: str | None, headers: Mapping[str, str], data: bytes | str, error: Exception
    ) -> ProviderError:
        if isinstance(error, ErrorReply):
            return self._refusals.of_document(model, _OK, headers, error.document)
        return self._refusals.nonsense(model, headers, data, error)

    def stream(self, request: ChatRequest, stream: HTTPStream) -> Generator[str, None, ChatResponse]:
        """Yield the text of a stream and return the answer; also of a server that streams to nobody."""
        if not _is_event_stream(stream.headers):
            response = self.answer(request, stream.headers, stream.read())
            if response.text:
                yield response.text
            return response
        pieces: list[str] = []
        reader = self._reader()
        asked, rate = SYSTEM_CLOCK.now(), request.min_tokens_per_second
        pace = None if rate is None else Pace(rate, SYSTEM_CLOCK)
        try:
            for text in self._texts(request, stream, reader):
                if not pieces and request.first_token_timeout is not None:
                    stream.extend(request.timeout or math.inf)
                pieces.append(text)
                yield text
                _hurry(stream, pace, text, request, asked)
            said = self._whole(request, stream, reader, "".join(pieces))
        except DeadlineExceeded as error:
            error.__dict__["partial"] = "".join(pieces)
            raise
        except (ProviderError, TransportError) as error:
            if not pieces:
                raise
            raise self._refusals.interrupted(request.model, "".join(pieces), error) from error
        return self._response(request, said, None)

    def _texts(self, request: ChatRequest, stream: HTTPStream, reader: Reader) -> Iterator[str]:
        """Yield the texts of the events."""
        data = ""
        try:
            for event in self._events(stream):
                data = event.data
                text = reader.feed(event)
                _require_text(text)
                if text:
                    yield text
                if reader.done:
                    stream.finish()  # the connection can be used again if the server stops here
                    return
        except (ErrorReply, RecursionError, *MISSHAPEN) as error:
            failure = self._failure(request.model, stream.headers, data, error)
        else:
            return
        raise failure

    def _whole(self, request: ChatRequest, stream: HTTPStream, reader: Reader, text: str) -> Reply:
        try:
            return reader.finish(text)
        except MISSHAPEN as error:
            raise self._failure(request.model, stream.headers, "", error) from None

    def _response(self, request: ChatRequest, said: Reply, raw: Mapping[str, Any] | None) -> ChatResponse:
        return ChatResponse(
            said.text,
            said.usage if said.usage is not None else _estimated(request, said),
            said.model if said.model and isinstance(said.model, str) else request.model,
            self._provider,
            tuple(said.tool_calls),
            finish_reason=said.finish_reason,
            id=said.id,
            raw=raw,
        )


def _hurry(stream: HTTPStream, pace: Pace | None, text: str, request: ChatRequest, asked: float) -> None:
    """Give a stream that has to keep a pace no more time than that for what comes next."""
    if pace is not None:
        pace.heard(text)
        stream.extend(min(SYSTEM_CLOCK.now() - asked + pace.left, request.timeout or math.inf))


def _require_text(told: Any) -> None:
    if not isinstance(told, str):
        raise TypeError(f"its text is {type(told).__name__}")


def _is_event_stream(headers: Mapping[str, str]) -> bool:
    """Tell a stream from a whole reply, or a proxy's page; some servers name no type, or text/plain."""
    kind = headers.get("content-type", "").lower()
    return "html" not in kind and ("json" not in kind or "ndjson" in kind)


def _estimated(request: ChatRequest, said: Reply) -> Usage:
    """Count what the provider did not."""
    from perfkit.tokens import TokenOptimizer

    count = TokenOptimizer.instance().count_tokens
    calls = "".join(call["function"]["name"] + call["function"]["arguments"] for call in said.tool_calls)
    return Usage(count(request.messages, request.model), count(said.text + calls, request.model), estimated=True)
