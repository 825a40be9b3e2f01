"""A Redis or Valkey that may be away: 0.1 s are lost on it once, then none until it is back.

The connections are redis-py's; ours is what it leaves open: whoever meets a failure tells all, further commands are
refused without I/O, and the listener's thread, not a request, finds out when the server is back.
"""

from __future__ import annotations

import hashlib
import importlib.util
import threading
from collections import deque
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from perfkit import _process
from perfkit.errors import ConfigError
from perfkit.state.listener import Listener
from perfkit.state.outage import Outage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from perfkit.clock import Clock
    from perfkit.metrics import PerformanceTracker

__all__ = ["SCHEMES", "RedisLink", "Script"]

SCHEMES = ("redis://", "rediss://", "unix://")


class RedisLink:
    """Commands to one Redis from all threads, and messages from it.

    Args:
        url: redis://[[user]:password@]host[:port][/db], rediss:// for TLS, or unix:///path.sock.
        prefix: what the keys and channels of `key()` begin with.
        timeout: seconds to connect, and to wait for a reply.
        tracker: where `state_unavailable` is counted; None means the shared one.
        clock: None means the system's.

    Raises:
        ConfigError: the address has another scheme, or the package `redis` is missing.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "perfkit",
        timeout: float = 0.1,
        tracker: PerformanceTracker | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not url.startswith(SCHEMES):
            raise ConfigError(f"the address of a Redis begins with {', '.join(SCHEMES)}", key="state.url")
        if importlib.util.find_spec("redis") is None:
            raise ConfigError("the package redis is missing: pip install 'perfkit[redis]'", key="state.url")
        self._url, self._prefix, self._timeout = url, prefix, timeout
        self._outage = Outage(_shown(url), tracker)
        self._listener = Listener(self._connect, self._outage, clock)
        self._client: Any = None
        self._lines: _Lines | None = None
        self._inherited: list[Any] = []  # clients of the parent: kept, so that nothing closes its sockets
        self._lock = threading.Lock()  # guards making _client
        _process.bind(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._inherited.append(self._client)
        self._client = None
        self._outage.after_fork()
        self._listener.after_fork()

    def _connect(self) -> Any:
        """Return the redis-py client, made on first use; it does no I/O yet."""
        client = self._client
        if client is None:
            with self._lock:
                client = self._client
                if client is None:
                    client = self._client = _client(self._url, self._timeout)
        return client

    @property
    def available(self) -> bool:
        """Whether the last that was heard of it is good."""
        return not self._outage.lasts

    def key(self, *parts: object) -> str:
        """Return the name of a key or channel: the prefix and `parts`, joined by colons."""
        return ":".join([self._prefix, *map(str, parts)])

    def call(self, *command: Any) -> Any:
        """Send one command and return its reply as redis-py gives it: bytes, int, None or a list.

        Raises:
            StateUnavailableError: Redis is away (at once, while that is known), or refuses the command.
        """
        return self._guarded(lambda client: client.execute_command(*command))

    def pipeline(self, commands: Iterable[Sequence[Any]]) -> list[Any]:
        """Send several commands in one go and return their replies; not a transaction.

        Raises:
            StateUnavailableError: Redis is away, or refuses one of them (the others may have been done).
        """

        def send(client: Any) -> list[Any]:
            batch = client.pipeline(transaction=False)
            for command in commands:
                batch.execute_command(*command)
            replies: list[Any] = batch.execute()
            return replies

        result: list[Any] = self._guarded(send)
        return result

    def script(self, source: str) -> Script:
        """Return a Lua script to call; it is sent whole only to a server that does not know it."""
        return Script(self, source)

    def _lines_of(self, client: Any) -> _Lines:
        lines = self._lines
        if lines is None or lines.client is not client:  # made twice, one of them is forgotten
            lines = self._lines = _Lines(client)
        return lines

    def publish(self, channel: str, message: bytes | str) -> None:
        """Send `message` to all who listen on `channel` now.

        Raises:
            StateUnavailableError: Redis is away.
        """
        self.call("PUBLISH", channel, message)

    def subscribe(
        self, channel: str, callback: Callable[[bytes], None], on_gap: Callable[[], None] | None = None
    ) -> Callable[[], None]:
        """Call `callback` with every message on `channel`, in the listener's thread; it must not block.

        Args:
            channel: its full name.
            callback: a bound method is held weakly.
            on_gap: called once the channel is heard, from when on none is missed, and whenever some may have been.

        Returns:
            What ends the subscription.
        """
        return self._listener.subscribe(channel, callback, on_gap)

    def _guarded(self, work: Callable[[Any], Any]) -> Any:
        _process.check()
        self._listener.ensure()
        if self._outage.lasts:
            self._outage.refuse()
        client = self._connect()
        try:
            return work(client)
        except Exception as error:
            self._fail(client, error)

    def _fail(self, client: Any, error: Exception) -> None:
        from redis.exceptions import BusyLoadingError, ResponseError

        if isinstance(error, ResponseError) and not isinstance(error, BusyLoadingError):
            self._outage.refuse(error)
        self._outage.begins(error)
        self._listener.ensure()
        client.connection_pool.disconnect(inuse_connections=False)
        self._outage.refuse(error)

    def close(self) -> None:
        """End the thread and the connections; a later command opens new ones."""
        self._listener.close()
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def __repr__(self) -> str:
        return f"RedisLink({self._outage.what}, {'available' if self.available else 'away'})"


class Script:
    """A Lua script that runs as one step on the server."""

    def __init__(self, link: RedisLink, source: str) -> None:
        self._link, self._source = link, source
        self._digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, keys: Sequence[str] = (), args: Sequence[Any] = ()) -> Any:
        """Run it and return its reply.

        Raises:
            StateUnavailableError: Redis is away, or refuses it.
        """
        rest = (len(keys), *keys, *args)

        def send(client: Any) -> Any:
            lines = self._link._lines_of(client)
            try:
                return lines.ask(_packed("EVALSHA", self._digest, *rest))
            except Exception as error:
                if type(error).__name__ != "NoScriptError":
                    raise
            return lines.ask(_packed("EVAL", self._source, *rest))

        return self._link._guarded(send)


class _Lines:
    """Connections of redis-py that scripts keep for themselves.

    To take one from its pool, put it back and pack a command there takes as long as Redis needs to answer, and a budget
    runs two scripts for each call to a model.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self._idle: deque[Any] = deque()  # each step on it is atomic, so no lock

    def ask(self, command: bytes) -> Any:
        """Send a packed command and return its reply."""
        connection = self._taken()
        try:
            connection.send_packed_command((command,))
            reply = connection.read_response()
        except BaseException:
            self.client.connection_pool.release(connection)
            raise
        self._idle.append(connection)
        return reply

    def _taken(self) -> Any:
        try:
            connection = self._idle.pop()
        except IndexError:
            return self.client.connection_pool.get_connection()
        try:
            stale = connection.can_read()
        except Exception:  # the server has closed it
            stale = True
        if stale:
            connection.disconnect()  # it connects anew when it sends
        return connection


def _packed(*command: Any) -> bytes:
    """Return a command as it goes over the wire."""
    written = [part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass") for part in command]
    return b"*%d\r\n%b" % (len(written), b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in written]))


def _client(url: str, timeout: float) -> Any:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    # No HELLO and no SETINFO: round trips on each new connection.
    silent = {"driver_info": None} if hasattr(redis, "DriverInfo") else {"lib_name": None, "lib_version": None}
    return redis.Redis.from_url(
        url,
        protocol=2,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        encoding_errors="surrogatepass",
        retry=Retry(NoBackoff(), 0),
        **silent,
    )


def _shown(url: str) -> str:
    """Return the address without user and password."""
    parts = urlsplit(url)
    return f"Redis at {parts.hostname}:{parts.port or 6379}" if parts.hostname else f"Redis at {parts.path}"
