"""The shared pool of connections, `perfkit.connections`: one `HostPool` a host, made when first asked for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from perfkit import _process
from perfkit._settings import ConnectionsSettings
from perfkit._shared import Shared
from perfkit.clock import SYSTEM_CLOCK
from perfkit.config import build
from perfkit.errors import ConfigError, PoolTimeout
from perfkit.transport.call import prepare, usual_fields
from perfkit.transport.exchange import Exchange
from perfkit.transport.failures import FAILURES
from perfkit.transport.hosts import HostPool, host_pool
from perfkit.transport.origin import split_url
from perfkit.transport.presets import PRESETS
from perfkit.transport.response import HTTPResponse, read_whole

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from perfkit.clock import Clock
    from perfkit.transport.origin import Origin

__all__ = ["ConnectionPool"]

log = logging.getLogger("perfkit.transport")
_DEFAULTS = asdict(ConnectionsSettings())
_SWEEP = 10.0  # seconds between closings of connections that have been idle too long


class ConnectionPool(Shared):
    """Keep-alive connections, pooled by host; safe in threads and after fork.

    Each host has `maxsize` connections at most. The most recently used one is taken first, since TCP has learnt its
    path best; who waits longest is served first. Settings are those of the table `[connections]`.

    Args:
        clock: time, for ages and deadlines.
        ssl_context: TLS as it says, to all hosts, without forks waiting for its handshakes; None for the operating
            system's trust store and `ca_file`.
        **settings: keys of `[connections]`, such as `maxsize`.
    """

    _table = "connections"
    settings: ConnectionsSettings

    def __init__(
        self, *, clock: Clock | None = None, ssl_context: ssl.SSLContext | None = None, **settings: Any
    ) -> None:
        self._ssl_context = ssl_context
        self._clock = SYSTEM_CLOCK if clock is None else clock
        self._hosts: dict[Origin, HostPool] = {}
        self._lock = threading.Lock()  # guards _hosts; held while a TLS context is loaded, once a process
        super().__init__(settings)
        _check_rows(self.settings.hosts)

    def configure(self, host: str | None = None, /, **settings: Any) -> None:
        """Change settings of all hosts, or only those of `host` ("name" or "name:port").

        Connections in use finish their calls; hosts whose settings change get new connections.

        Raises:
            ConfigError: a name or value is wrong; nothing has changed then.
        """
        if host is not None:
            rows = {**self.settings.hosts, host: {**self.settings.hosts.get(host, {}), **settings}}
            settings = {"hosts": rows}
        if isinstance(settings.get("hosts"), Mapping):
            _check_rows(settings["hosts"])
        super().configure(**settings)

    def _apply(self) -> None:
        with self._lock:
            changed = [origin for origin, pool in self._hosts.items() if pool.settings != self._settings_of(origin)]
            retired = [self._hosts.pop(origin) for origin in changed]
        for pool in retired:
            pool.close()

    def _settings_of(self, origin: Origin) -> ConnectionsSettings:
        _, host, port = origin
        rows = {name.lower(): row for name, row in self.settings.hosts.items()}
        special = {**rows.get(host, {}), **rows.get(f"{host}:{port}", {})}
        general = {**asdict(self.settings), "hosts": {}}
        preset = {name: value for name, value in PRESETS.get(host, {}).items() if general[name] == _DEFAULTS[name]}
        return build(ConnectionsSettings, {**general, **preset, **special}, where="connections.hosts")

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # the hosts reset themselves

    def host(self, origin: Origin) -> HostPool:
        """Return the pool of scheme, host and port.

        Raises:
            ConfigError: its proxy or CA file cannot be used.
        """
        found = self._hosts.get(origin)
        return self._made(origin) if found is None else found

    def _made(self, origin: Origin) -> HostPool:
        _process.check()
        with self._lock:
            if origin not in self._hosts:
                self._hosts[origin] = host_pool(origin, self._settings_of(origin), self._clock, self._ssl_context)
            found = self._hosts[origin]
        _process.background.every(_SWEEP, self._sweep)
        return found

    def request(
        self,
        method: str,
        url: str,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> HTTPResponse:
        """Send one request to any URL and return the whole reply; redirects and statuses are not followed up.

        Args:
            method: any method.
            url: with scheme and host.
            body: bytes, text or anything JSON-able.
            headers: fields to send.
            timeout: seconds for the whole call; None for no end, each wait being within `read_timeout`.

        Raises:
            ValueError: the URL or a header cannot be sent.
            TransportError: there is no whole reply.
        """
        origin, target = split_url(url)
        fields, pool = usual_fields(origin, headers), self.host(origin)
        patience = pool.settings.read_timeout if timeout is None else None
        call = prepare(method, target, fields, body, now=self._clock.now, timeout=timeout, patience=patience)
        return read_whole(Exchange(pool, call).begin(), pool.settings.max_body)

    @contextmanager
    def get_connection(self, provider: str, base_url: str) -> Iterator[HostPool]:
        """Lend the urllib3 pool of the host of `base_url`, for `.request(method, path, ...)` with urllib3's arguments.

        Args:
            provider: name shown in the pool's repr.
            base_url: URL whose host is meant; paths begin at the host.
        """
        pool = self.host(split_url(base_url)[0])
        pool.provider = provider
        yield pool

    def warm_up(self, base_url: str, n: int = 1) -> int:
        """Open connections in parallel until `n` are ready, so that the next calls need no handshake.

        Returns:
            How many are ready; fewer than `n` if the host cannot be reached, which is logged.
        """
        pool = self.host(split_url(base_url)[0])
        taken = []
        try:
            for _ in range(min(n, pool.settings.maxsize)):
                taken.append(pool.take(0.0))  # noqa: PERF401 - what was taken goes back even if one fails
        except PoolTimeout:
            log.debug("warm-up of %s: the other connections are in use", pool.name)
        try:
            with ThreadPoolExecutor(max(1, len(taken)), thread_name_prefix="perfkit-warm-up") as threads:
                return sum(threads.map(lambda connection: _opened(pool, connection), taken))
        finally:
            for connection in taken:
                pool.give(connection)

    def _sweep(self) -> None:
        for pool in list(self._hosts.values()):
            pool.sweep()

    def stats(self) -> dict[str, dict[str, float]]:
        """Return per "host:port" what its pool has done in this process and its state now.

        Keys: created, reused, reconnected, in_use, idle, waiters, wait_p95 (seconds), closed_idle, and odd: replies
        whose head was irregular and went to http.client.
        """
        return {pool.name: pool.stats() for pool in list(self._hosts.values())}

    def close(self) -> None:
        """Close idle connections now and those in use when their calls end; the pool may be used again."""
        with self._lock:
            hosts, self._hosts = self._hosts, {}
        for pool in hosts.values():
            pool.close()

    def reset(self) -> None:
        """Close, and forget all counts."""
        self.close()

    def __repr__(self) -> str:
        return f"ConnectionPool({', '.join(map(repr, list(self._hosts.values())))})"


def _opened(pool: HostPool, connection: Any) -> bool:
    if connection.sock is None:
        try:
            pool.open(connection)
        except FAILURES as error:
            connection.close()
            log.warning("warm-up of %s failed: %s", pool.name, error)
    return connection.sock is not None


def _check_rows(rows: Mapping[str, Any]) -> None:
    for host, row in rows.items():
        where = f"connections.hosts.{host}"
        if not isinstance(row, Mapping):
            raise ConfigError(f"{where} must be a table of settings, not {type(row).__name__}", key=where)
        if "hosts" in row:
            raise ConfigError(f"{where} cannot have hosts of its own", key=where)
        build(ConnectionsSettings, {**_DEFAULTS, **row}, where=where)
