"""A server that fails on purpose, for tests of anything that calls a provider: what it does, when, is written down.

It runs in its own process, so that it can be killed and the test's interpreter does not slow it down; it counts
connections, handshakes and requests itself, so that a test can say "one connection" instead of "fast". Unscripted
requests get a deterministic answer in the wire format of their path, or are passed on to an upstream.

    with FaultServer() as server:
        server.behave(rate_limited(retry_after=1), ok("hello"))
        ...
        assert server.stats()["requests"] == 2
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from perfkit.clock import SYSTEM_CLOCK
from perfkit.testing import _behaviours
from perfkit.testing._behaviours import *  # noqa: F403 - what it can be told to do is public here
from perfkit.testing.tls import Authority

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from perfkit.clock import Clock
    from perfkit.testing._behaviours import Behaviour

__all__ = ["FaultServer"]
__all__ += _behaviours.__all__

PACKAGE_ROOT = Path(__file__).parents[2]
CONTROL_TIMEOUT = 10.0  # seconds for one order; only a dead or stuck server needs more than some milliseconds


class FaultServer:
    """A fault server's handle. Every order is its own control connection: use it from any thread or forked child.

    Args:
        tls: True for TLS with an authority of its own, or the `Authority` to share.
        upstream: "http://host:port" that unscripted requests are passed on to.
        latency: seconds added before each reply, standing for the network's round trip and the provider's work.
        connect_latency: seconds added to each new connection, standing for the round trips that set it up. On the
            loopback `connect()` itself returns at once, so clients pay it in the TLS handshake, or without TLS before
            the first reply.
        port: port to listen on, 0 for any free one.
        clock: what `wait_until` waits by.
    """

    def __init__(
        self,
        *,
        tls: bool | Authority | None = None,
        upstream: str | None = None,
        latency: float = 0.0,
        connect_latency: float = 0.0,
        port: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self._own_authority = Authority() if tls is True else None
        self._authority = tls if isinstance(tls, Authority) else self._own_authority
        self._upstream = upstream
        self._latency = latency
        self._connect_latency = connect_latency
        self._clock = SYSTEM_CLOCK if clock is None else clock
        self._process: subprocess.Popen[str] | None = None
        self._control = 0
        self.port = port

    # --- life ---

    def start(self) -> Self:
        """Start the process and return once it listens; after `stop` or `kill`, on the same port as before.

        A TLS server keeps its certificate over `kill`, and gets a new one after `stop` unless its authority is shared.

        Raises:
            RuntimeError: it did not start; the reason is on stderr.
        """
        if self._process is not None and self._process.poll() is None:
            return self
        path = os.pathsep.join(filter(None, [str(PACKAGE_ROOT), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-m", "perfkit.testing._fault_server", *self._options()]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self.stop()
            raise RuntimeError(f"fault server on port {self.port} did not start: exit code {code}, reason on stderr")
        told = json.loads(line)
        self.port, self._control = told["port"], told["control"]
        return self

    def _options(self) -> list[str]:
        options = {
            "port": self.port,
            "latency": self._latency,
            "connect-latency": self._connect_latency,
            "upstream": self._upstream,
            "certificate": self._authority and self._authority.server_file,
            "parent": os.getpid(),
        }
        return [f"--{name}={value}" for name, value in options.items() if value is not None]

    def stop(self) -> None:
        """End the process and remove the files of its own authority; does nothing when done already."""
        self._end(signal.SIGTERM)
        if self._own_authority is not None:
            self._own_authority.close()

    def kill(self) -> None:
        """Kill the process: open connections end, new ones are refused, and counts are lost."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        self._process.communicate()
        self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "stopped" if self._process is None else f"pid {self._process.pid}"
        return f"<FaultServer {self.root_url} {state}>"

    # --- where ---

    @property
    def pid(self) -> int | None:
        """The process id, None when stopped."""
        return None if self._process is None else self._process.pid

    @property
    def root_url(self) -> str:
        """The server's address without a path."""
        return f"{'http' if self._authority is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """The address as providers take it, version prefix included."""
        return f"{self.root_url}/v1"

    @property
    def ca_file(self) -> str:
        """Path of the certificate that clients are to trust.

        Raises:
            RuntimeError: the server does not speak TLS.
        """
        if self._authority is None:
            raise RuntimeError(f"{self!r} does not speak TLS: pass tls=True")
        return self._authority.ca_file

    # --- what it does ---

    def behave(self, *behaviours: Behaviour, path: str | None = None, then: str = "repeat") -> None:
        """Set what the following requests get, in order of their arrival.

        Args:
            behaviours: one for each request; none removes the script.
            path: only for requests to this path, or glob ("*/messages"); such a script goes before the general one.
            then: after the last one, "repeat" it or go back to the usual reply ("ok").

        Raises:
            ValueError: `then` is neither.
        """
        if then not in {"repeat", "ok"}:
            raise ValueError(f"then={then!r}: use 'repeat' or 'ok'")
        self._order("behave", script=[behaviour.to_dict() for behaviour in behaviours], path=path, then=then)

    def reset(self) -> None:
        """Make it a fresh server: no scripts, counts at 0, held replies dropped, listening; open connections stay."""
        self._order("reset")

    def release(self, *, drop: bool = False) -> int:
        """Let the replies held by `hang` and `stall` go on, or end their connections with `drop`; return how many."""
        return int(self._order("release", drop=drop))

    def refuse(self) -> None:
        """Stop listening, so that new connections are refused; open ones go on and the port stays reserved."""
        self._order("refuse")

    def accept(self) -> None:
        """Listen again."""
        self._order("accept")

    def disconnect(self, *, how: str = "fin") -> int:
        """End every open connection, idle or busy, by "fin" or "rst"; return how many."""
        return int(self._order("disconnect", how=how))

    # --- what it saw ---

    def stats(self) -> dict[str, Any]:
        """Return `counters()`, and as "recent" the last 200 requests.

        Each is {method, path, query, headers (names in lower case), body (text), connection (number), outcome}, outcome
        being "completed", "aborted_by_client", "cut_by_server", or None while the reply is under way.
        """
        return dict(self._order("stats"))

    def counters(self) -> dict[str, Any]:
        """Return what was counted since the start or `reset`, and the state of now.

        Counted: connections, tls_handshakes (full ones), tls_resumed, tls_failed, requests, paths ({path: requests}),
        completed, aborted_by_client (before the reply was complete), cut_by_server, peak_connections, peak_in_flight.
        Now: open_connections, in_flight, held. requests is the sum of in_flight and the three ends.
        """
        return dict(self._order("counters"))

    def wait_until(self, condition: Callable[[dict[str, Any]], bool], *, timeout: float = 5.0) -> dict[str, Any]:
        """Wait until `condition(counters)` is true, and return those counters.

        Raises:
            TimeoutError: it was not after `timeout` seconds; the message has the last counters.
        """
        deadline = self._clock.now() + timeout
        while not condition(seen := self.counters()):
            if self._clock.now() > deadline:
                raise TimeoutError(f"not within {timeout} s: {seen}")
            self._clock.sleep(0.005)
        return seen

    def _order(self, op: str, **args: Any) -> Any:
        with (
            socket.create_connection(("127.0.0.1", self._control), timeout=CONTROL_TIMEOUT) as sock,
            sock.makefile("rwb") as stream,
        ):
            stream.write(json.dumps({"op": op} | args).encode() + b"\n")
            stream.flush()
            line = stream.readline()
        if not line:
            raise RuntimeError(f"{self!r} did not carry out {op!r}; the reason is on its stderr")
        return json.loads(line)["value"]
