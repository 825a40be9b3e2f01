"""The three local providers: each a real llama.cpp server behind a gate that speaks TLS, counts and is far away.

The gate is the fault server passing everything on. It counts sockets and handshakes, and adds the time a network and a
large model would take: the loopback has no distance, and the bundled model answers within milliseconds.
"""

from __future__ import annotations

import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from perfkit.demo.ways import Endpoint, Setting
from perfkit.testing.faults import FaultServer, drip
from perfkit.testing.llm import LlamaServer
from perfkit.testing.tls import Authority

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["CONNECT_LATENCY", "MODEL", "PIECE_LATENCY", "PRICE", "PROVIDERS", "REPLY_LATENCY", "ROUND_TRIP", "Fleet"]

MODEL = "tiny"
KEY = "demo-key"  # asked for by the three servers, of no use anywhere else
PROVIDERS = {"first": "openai", "second": "openai", "third": "anthropic"}  # name to wire format
ROUND_TRIP = 0.03  # seconds: client and provider on one continent
REPLY_LATENCY = ROUND_TRIP + 0.06  # the request's own round trip, and a provider's work until its first word
PIECE_LATENCY = 0.02  # between the pieces of a stream: 50 tokens a second
CONNECT_LATENCY = 2 * ROUND_TRIP  # TCP, then TLS 1.3
TIMEOUT = 10.0  # seconds
PRICE = {"input": 2.5, "output": 10.0, "cache_read": 2.5}  # dollars a million tokens: a stand-in, the model is free
_SLOTS, _CONTEXT = 16, 512
_WHOLE = 2**16  # bytes: more than any piece has
_COUNTED = ("connections", "tls_handshakes", "requests")


class _Provider:
    """One model server and its gate."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self.model = LlamaServer(slots=_SLOTS, context=_CONTEXT, api_key=KEY, alias=MODEL)
        self.gate: FaultServer | None = None

    def start(self) -> None:
        self.model.start()
        if self.gate is None:
            self.gate = FaultServer(
                tls=self._authority,
                upstream=self.model.root_url,
                latency=REPLY_LATENCY,
                connect_latency=CONNECT_LATENCY,
            )
        self.gate.start()
        self.gate.behave(drip(size=_WHOLE, interval=PIECE_LATENCY))

    def seen(self) -> Counter[str]:
        if self.gate is None or self.gate.pid is None:
            return Counter()
        counters = self.gate.counters()
        counters["tls_handshakes"] += counters["tls_resumed"]
        return Counter({name: counters[name] for name in _COUNTED})

    def kill(self) -> None:
        if self.gate is not None:
            self.gate.kill()
        self.model.kill()


def _deaf_to_interrupts() -> None:
    """Block Ctrl-C in this thread and the processes it starts: it is for the demo, which then ends them in order."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


class Fleet:
    """All providers and their shared certificate authority; a context manager that leaves nothing behind."""

    def __init__(self) -> None:
        self._authority = Authority()
        self._providers = [_Provider(self._authority) for _ in PROVIDERS]
        self._seen_by_dead: Counter[str] = Counter()

    @property
    def setting(self) -> Setting:
        """What clients need; the first endpoint is the one that will be killed."""
        gates = [provider.gate for provider in self._providers if provider.gate is not None]
        endpoints = (
            Endpoint(name, kind, gate.base_url, KEY)
            for (name, kind), gate in zip(PROVIDERS.items(), gates, strict=True)
        )
        return Setting(tuple(endpoints), MODEL, TIMEOUT, {MODEL: PRICE}, ca_file=self._authority.ca_file)

    def restart(self) -> None:
        """Start all providers anew under the same addresses: counts at 0, nothing in any model's prompt cache."""
        self._kill()
        self._seen_by_dead.clear()
        self._authority.ca_file  # noqa: B018 - made before three threads ask for it
        with ThreadPoolExecutor(len(self._providers), initializer=_deaf_to_interrupts) as threads:
            list(threads.map(_Provider.start, self._providers))

    def kill_first(self) -> None:
        """Kill the first provider, gate and model, in the middle of whatever they do."""
        first = self._providers[0]
        assert first.gate is not None
        first.gate.refuse()  # no connection comes between the last count and the end
        self._seen_by_dead += first.seen()
        first.kill()

    def seen(self) -> dict[str, int]:
        """Return what the servers counted since the restart, the killed one included."""
        total = sum((provider.seen() for provider in self._providers), self._seen_by_dead)
        return {name: total[name] for name in _COUNTED}

    def _kill(self) -> None:
        with ExitStack() as stack:  # one that fails does not keep the others alive
            for provider in self._providers:
                stack.callback(provider.kill)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._kill()
        finally:
            self._authority.close()
