"""HTTPProvider: the way of a request to a provider over the shared pool, whatever format it speaks.

A subclass gives the payload and reads the answer. Nothing is retried here: that is the router's, which knows who else
could answer.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from perfkit._settings import number
from perfkit.clock import SYSTEM_CLOCK
from perfkit.config import build
from perfkit.errors import AuthenticationError, BadRequestError, ModelNotFoundError, ProviderError, TransportError
from perfkit.providers.address import checked_base_url
from perfkit.providers.base import Provider
from perfkit.providers.receiver import Receiver
from perfkit.providers.refusals import Refusals
from perfkit.providers.secret import Credentials, check_headers
from perfkit.providers.wire.reply import MISSHAPEN, why
from perfkit.providers.wire.room import Room, room_told
from perfkit.transport import ConnectionPool, HTTPClient

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from perfkit.metrics import PerformanceTracker
    from perfkit.providers.secret import Secret
    from perfkit.providers.wire.reply import Event, Reader, Reply
    from perfkit.transport import HTTPResponse, HTTPStream
    from perfkit.values import ChatRequest, ChatResponse

__all__ = ["HTTPProvider", "Options"]

_OK, _UNAUTHORIZED, _NOT_FOUND = 200, 401, 404
_DENIED = (401, 402, 403)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What every provider may be told beside its address.

    Attributes:
        timeout: seconds for a call whose request gives none.
        compress_requests: send bodies compressed; many servers refuse them.
        headers: sent with every request.
        key_variable: environment variable of the key.
        key_required: refuse to call without a key.
        temperature: of requests that give none; None leaves it to the provider.
        max_tokens: bound of the answer for requests that give none; None leaves it to the provider.
    """

    timeout: float = number(30.0, above=0)
    compress_requests: bool = False
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    key_variable: str | None = None
    key_required: bool = False
    temperature: float | None = number(None, least=0)
    max_tokens: int | None = number(None, least=1)


class HTTPProvider(Provider):
    """A provider behind an HTTP API.

    Args:
        name: what the router, metrics and errors call it.
        base_url: address with the version prefix.
        api_key: key; None takes it from the environment variable `key_variable`.
        models: models it offers, or a mapping to its own names for them; None for any, or those of `families`.
        families: beginnings of the names of its models.
        connections: pool to use, None for the shared one.
        tracker: gets the metrics, None for the shared one.
        **options: fields of the class's `options_class`.

    Attributes:
        lacks_key: whether it needs a key and has none.

    Raises:
        ConfigError: one of them cannot be used; nothing was sent.
    """

    options_class: ClassVar[type[Options]] = Options
    chat_path: ClassVar[str]
    models_path: ClassVar[str] = "/models"

    def __init__(  # noqa: PLR0913 - what create_provider takes
        self,
        name: str,
        *,
        base_url: str,
        api_key: str | None = None,
        models: Iterable[str] | Mapping[str, str] | None = None,
        families: tuple[str, ...] = (),
        connections: ConnectionPool | None = None,
        tracker: PerformanceTracker | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name, models=models, families=families)
        self.base_url = checked_base_url(base_url, name)
        check_headers(options.get("headers", {}), name)
        self.options = build(self.options_class, options, where=f"providers.{name}.options")
        held = Credentials(name, api_key, self.options.key_variable, self.options.headers)
        self.room: tuple[Room, ...] = ()  # that its limits had left at the latest good reply; replaced, never changed
        self._connections = connections
        self.lacks_key = held.key is None and self.options.key_required
        self._refusals = Refusals(name, self.base_url, held.hint, held.scrubber)
        self._receiver = Receiver(name, self._refusals, held.scrubber, self._reply, self._reader, self._events)
        self._client = HTTPClient(
            self.base_url,
            self.options.timeout,
            retries=0,
            compress_requests=self.options.compress_requests,
            headers={**self._frame(held.key), **held.headers},
            connections=connections,
            tracker=tracker,
        )

    @abstractmethod
    def _frame(self, key: Secret | None) -> dict[str, str]:
        """Return the headers of the format, the key's among them."""

    @abstractmethod
    def _payload(self, request: ChatRequest, *, stream: bool) -> dict[str, Any]:
        """Return the body for `chat_path`."""

    @staticmethod
    @abstractmethod
    def _reply(document: Mapping[str, Any]) -> Reply:
        """Read the answer to it; any error of `MISSHAPEN` means there is none."""

    @staticmethod
    @abstractmethod
    def _reader() -> Reader:
        """Return what reads the events of one stream."""

    def _path(self, model: str, *, stream: bool) -> str:  # noqa: ARG002 - some have the model in it
        """Return the path, behind `base_url`, of a chat with the provider's own name of a model."""
        return self.chat_path

    @staticmethod
    def _listed(document: Any) -> list[str]:
        """Read the names in the reply to `models_path`; any error of `MISSHAPEN` means there are none."""
        return [row["id"] for row in (document["data"] if isinstance(document, dict) else document)]

    @staticmethod
    def _events(stream: HTTPStream) -> Iterator[Event]:
        """Yield the events of a stream."""
        return stream.events()

    def chat_completion(self, request: ChatRequest) -> ChatResponse:
        """Return the answer of `request.model`, in at most `request.timeout` seconds."""
        path, body = self._written(request, stream=False)
        reply = self._client.post(path, body, timeout=request.timeout)
        if reply.status != _OK:
            raise self._refusals.of_reply(request.model, reply.status, reply.headers, reply.body)
        self.room = room_told(reply.headers, now=SYSTEM_CLOCK.wall())
        return self._receiver.answer(request, reply.headers, reply.body)

    def stream(self, request: ChatRequest) -> Generator[str, None, ChatResponse]:
        """Yield the answer's text as it comes and return it whole; `close()` ends the connection at once."""
        path, body = self._written(request, stream=True)
        first = request.first_token_timeout
        with self._client.stream(path, body, timeout=request.timeout if first is None else first) as stream:
            if stream.status != _OK:
                raise self._refusals.of_reply(request.model, stream.status, stream.headers, stream.read())
            self.room = room_told(stream.headers, now=SYSTEM_CLOCK.wall())
            return (yield from self._receiver.stream(request, stream))

    def _written(self, request: ChatRequest, *, stream: bool) -> tuple[str, bytes]:
        """Return path and body."""
        if self.lacks_key:
            raise self._refusals.without_key(request.model)
        own_name = self.own_name(request.model)
        try:
            text = _encode(self._payload(self._completed(request, own_name), stream=stream))
        except BadRequestError as error:
            error.__dict__.update(provider=self.name, model=request.model)
            raise
        except MISSHAPEN as error:
            message = f"the request cannot be written for {self.name}: {why(error)}"
            raise BadRequestError(message, provider=self.name, model=request.model) from error
        path = self._path(own_name, stream=stream)
        return path, text.encode("utf-8", "backslashreplace")  # half an emoji is no UTF-8, but \ud83d is JSON

    def _completed(self, request: ChatRequest, own_name: str) -> ChatRequest:
        """Return the request under the provider's own name of the model, with what its options say for all of them."""
        options = self.options
        changes: dict[str, Any] = {} if own_name == request.model else {"model": own_name}
        if request.temperature is None and options.temperature is not None:
            changes["temperature"] = options.temperature
        if request.max_tokens is None and options.max_tokens is not None:
            changes["max_tokens"] = options.max_tokens
        return request.evolve(**changes) if changes else request

    def warm_up(self, connections: int = 1) -> int:
        """Open connections now, so that the next calls need no handshake; return how many are ready."""
        pool = self._connections if self._connections is not None else ConnectionPool.instance()
        return pool.warm_up(self.base_url, connections)

    def list_models(self, timeout: float = 10.0) -> list[str]:
        """Return the names of the models the provider tells of, in at most `timeout` seconds."""
        if self.lacks_key:
            raise self._refusals.without_key()
        reply = self._client.get(self.models_path, timeout=timeout)
        if reply.status != _OK:
            raise self._refusals.of_reply(None, reply.status, reply.headers, reply.body)
        document = self._receiver.document(None, reply.headers, reply.body)
        try:
            return self._listed(document)
        except MISSHAPEN as error:
            raise self._refusals.nonsense(None, reply.headers, reply.body, error) from error

    def validate(self, timeout: float = 10.0) -> None:
        """Check address and key in at most `timeout` seconds, without using tokens.

        The list of models is public at some providers (OpenRouter, llama.cpp) and closed at others to keys that may
        chat, so an empty chat request is sent too: it gets no answer, but a wrong key is told.
        """
        refused: ProviderError | None = None
        try:
            self.list_models(timeout / 2)
        except (ModelNotFoundError, AuthenticationError) as error:
            if error.status in (None, _UNAUTHORIZED):
                raise
            refused = error
        probe = self._probe(timeout / 2)
        if probe is not None and probe.status in _DENIED:
            raise self._refusals.of_reply(None, probe.status, probe.headers, probe.body)
        if refused is not None and (probe is None or probe.status == _NOT_FOUND):
            raise refused

    def _probe(self, timeout: float) -> HTTPResponse | None:
        with suppress(TransportError):  # some break off at an empty request; that they are there is known already
            return self._client.post(self.chat_path, b"{}", timeout=timeout)
        return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.base_url})"


def _plain(value: Any) -> Any:
    """Return what json cannot write by itself: mappings that are no dicts."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} values cannot be written as JSON")


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain).encode
