"""The two ways of calling that are compared: what most applications do today, and perfkit.

Both get the same endpoints, model, key, certificate and timeout, and answer a `Call` of the workload with an `Answer`
or raise what the application would see.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import requests

from perfkit.caching import ResponseCache
from perfkit.clock import SYSTEM_CLOCK
from perfkit.metrics import PerformanceTracker
from perfkit.pipeline import Client
from perfkit.providers import create_provider
from perfkit.routing import ProviderRouter
from perfkit.tokens import TokenOptimizer
from perfkit.transport import ConnectionPool
from perfkit.values import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from perfkit.caching import CachePolicy
    from perfkit.demo.workload import Call

__all__ = ["Answer", "Endpoint", "Perfkit", "Setting", "Today", "Way"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a provider is and what it speaks; `api_key` None sends none."""

    name: str
    kind: str
    base_url: str
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Setting:
    """What both ways are given.

    Attributes:
        endpoints: providers; the first is the one that is called where only one is.
        model: model to ask for.
        timeout: seconds for one call.
        prices: as in the table `[tokens]`.
        ca_file: certificate to trust, None for the machine's.
        max_tokens_field: what the server calls the bound of the answer.
    """

    endpoints: tuple[Endpoint, ...]
    model: str
    timeout: float
    prices: Mapping[str, Any]
    ca_file: str | None = None
    max_tokens_field: str = "max_tokens"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an answer took: tokens sent and received, dollars, and seconds until the first words of a stream.

    Attributes:
        saved: dollars that the provider would have taken for what came from the cache.
        resumed: another provider went on with a stream whose first words were there already.
    """

    usage: Usage
    cost: float | None
    cached: bool = False
    saved: float | None = 0.0
    first_token: float | None = None
    resumed: bool = False


class Way(Protocol):
    """A way of calling."""

    def ask(self, call: Call) -> Answer:
        """Answer `call`, in any thread."""
        ...

    def recorded(self) -> tuple[int, float] | None:
        """Return how many answered calls its own metrics have timed, and their 95th percentile in seconds."""
        ...

    def close(self) -> None:
        """Let go of sockets and threads."""
        ...


class Today:
    """`requests.post` for each call to one provider, without a cache: the way it is written today."""

    def __init__(self, setting: Setting) -> None:
        endpoint = setting.endpoints[0]
        self._setting = setting
        self._url = f"{endpoint.base_url.rstrip('/')}/chat/completions"
        self._headers = {} if endpoint.api_key is None else {"Authorization": f"Bearer {endpoint.api_key}"}
        self._prices = TokenOptimizer(tracker=PerformanceTracker(), prices=setting.prices)

    def ask(self, call: Call) -> Answer:
        """Send one request over a connection of its own."""
        started = SYSTEM_CLOCK.now()
        stream = call.kind == "stream"
        with requests.post(
            self._url,
            json=self._body(call),
            headers=self._headers,
            timeout=self._setting.timeout,
            verify=self._setting.ca_file or True,
            stream=stream,
        ) as reply:
            reply.raise_for_status()
            if not stream:
                return self._answer(reply.json().get("usage") or {})
            first_token, usage = None, None
            for chunk in _chunks(reply):
                if first_token is None and _has_text(chunk):
                    first_token = SYSTEM_CLOCK.now() - started
                usage = chunk.get("usage") or usage
        return self._answer(usage or {}, first_token)

    def _body(self, call: Call) -> dict[str, Any]:
        body = {
            "model": self._setting.model,
            "messages": [{"role": "user", "content": call.question}],
            self._setting.max_tokens_field: call.max_tokens,
        }
        if call.temperature is not None:
            body["temperature"] = call.temperature
        if call.kind == "stream":
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body

    def _answer(self, told: Mapping[str, Any], first_token: float | None = None) -> Answer:
        cached = (told.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        usage = Usage(told.get("prompt_tokens", 0), told.get("completion_tokens", 0), cached_tokens=cached)
        return Answer(usage, self._prices.calculate_cost(usage, self._setting.model), first_token=first_token)

    def recorded(self) -> tuple[int, float] | None:
        """Measure nothing, as most do."""
        return None

    def close(self) -> None:
        """Hold nothing between calls: that is the point."""


def _chunks(reply: requests.Response) -> Iterator[dict[str, Any]]:
    for line in reply.iter_lines():
        if line.startswith(b"data: ") and line != b"data: [DONE]":
            yield json.loads(line.removeprefix(b"data: "))


def _has_text(chunk: Mapping[str, Any]) -> bool:
    return any(choice["delta"].get("content") for choice in chunk.get("choices", ()))


class Perfkit:
    """perfkit with its defaults, in instances of its own: neither files nor variables of the user change the figures.

    Beside the defaults it is only told to resume streams.

    Args:
        setting: what both ways are given.
        cache: False never keeps an answer.
    """

    def __init__(self, setting: Setting, *, cache: bool) -> None:
        self._setting = setting
        self._tracker = PerformanceTracker()
        self._connections = ConnectionPool(ca_file=setting.ca_file)
        self._cache = ResponseCache(tracker=self._tracker, policy="smart" if cache else "never")
        self._optimizer = TokenOptimizer(tracker=self._tracker, prices=setting.prices)
        self._router = ProviderRouter(tracker=self._tracker)
        for endpoint in setting.endpoints:
            self._register(endpoint)
        self._client = Client(cache=self._cache, optimizer=self._optimizer, router=self._router, tracker=self._tracker)

    def _register(self, endpoint: Endpoint) -> None:
        provider = create_provider(
            endpoint.kind,
            name=endpoint.name,
            base_url=endpoint.base_url,
            api_key=endpoint.api_key,
            models=[self._setting.model],
            connections=self._connections,
            tracker=self._tracker,
            key_variable=None,  # a key in the environment is for its own provider, not for this one
        )
        self._router.register_provider(endpoint.name, provider)

    def ask(self, call: Call) -> Answer:
        """Answer through cache, router and pool."""
        if call.kind == "stream":
            return self._stream(call)
        response = self._client.chat(call.question, **self._arguments(call))
        if response.cached is not None:
            saved = self._optimizer.calculate_cost(response.usage, self._setting.model)
            return Answer(Usage(0, 0), response.cost, cached=True, saved=saved)
        return Answer(response.usage, response.cost)

    def cached(self, question: str, policy: CachePolicy) -> str | None:
        """Ask, and return from which cache the answer came, None for a provider."""
        asked: dict[str, Any] = {
            "model": self._setting.model,
            "temperature": 0,
            "max_tokens": 16,
            "timeout": self._setting.timeout,
        }
        return self._client.chat(question, cache=policy, **asked).cached

    def _stream(self, call: Call) -> Answer:
        started, first_token, spoke = SYSTEM_CLOCK.now(), None, 0.0
        with self._client.stream(call.question, resume=True, **self._arguments(call)) as stream:
            for _ in stream:
                if first_token is None:
                    first_token, spoke = SYSTEM_CLOCK.now() - started, SYSTEM_CLOCK.wall()
        response = stream.response
        assert response is not None
        resumed = first_token is not None and spoke < response.attempts[-1].started
        return Answer(response.usage, response.cost, first_token=first_token, resumed=resumed)

    def _arguments(self, call: Call) -> dict[str, Any]:
        return {
            "model": self._setting.model,
            "temperature": call.temperature,
            "max_tokens": call.max_tokens,
            "timeout": self._setting.timeout,
        }

    def recorded(self) -> tuple[int, float] | None:
        """Return what the tracker has timed."""
        stats = self._tracker.get_stats("agent_response_time")
        return (round(stats["count"]), stats["p95"]) if stats else None

    def close(self) -> None:
        """Close the connections and what else was made for this way."""
        for part in (self._client, self._router, self._cache, self._optimizer, self._connections, self._tracker):
            part.close()
