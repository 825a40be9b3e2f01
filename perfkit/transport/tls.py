"""One TLS context for the whole process.

Loading the trust store costs 15 ms of CPU and some megabytes. Clients that make a context for every client object or,
with `ca_certs=`, for every connection, pay it each time; here it is paid once for each CA file in use.
"""

from __future__ import annotations

import ssl
import threading
from typing import Any, Self

from perfkit import _process
from perfkit._process.forks import undivided
from perfkit.errors import ConfigError
from perfkit.transport.kernel import in_steps

__all__ = ["Object", "Socket", "context", "new_context"]


class Socket(ssl.SSLSocket):
    """Shakes hands so that no fork divides it: OpenSSL's locks would stay locked in the child."""

    @classmethod
    def _create(cls, sock: Any, server_side: bool = False, do_handshake_on_connect: bool = True, **more: Any) -> Self:
        with undivided():
            made: Self = super()._create(sock, server_side, False, **more)  # type: ignore[misc]  # not in typeshed
        made.do_handshake_on_connect = do_handshake_on_connect  # type: ignore[attr-defined]
        if do_handshake_on_connect and made._connected:  # type: ignore[attr-defined]
            try:
                made.do_handshake()
            except BaseException:
                made.close()
                raise
        return made

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands within the socket's timeout."""
        if self.gettimeout() == 0.0:
            super().do_handshake(block)
        else:
            in_steps(self, super().do_handshake)


class Object(ssl.SSLObject):
    """The same for TLS inside the TLS of a proxy, none of whose steps waits for the network."""

    @classmethod
    def _create(cls, *buffers: Any, **more: Any) -> Self:
        with undivided():
            return super()._create(*buffers, **more)  # type: ignore[misc, no-any-return]  # not in typeshed

    def do_handshake(self) -> None:
        """Take the next step."""
        with undivided():
            super().do_handshake()

    def read(self, *room: Any) -> Any:
        """Read what has come, tickets among it."""
        with undivided():
            return super().read(*room)


class _Contexts:
    def __init__(self) -> None:
        self._made: dict[str | None, ssl.SSLContext] = {}
        self._after_fork()
        _process.bind(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards _made; held while loading, so that it happens once

    def get(self, ca_file: str | None) -> ssl.SSLContext:
        with self._lock:
            if ca_file not in self._made:
                self._made[ca_file] = _load(ca_file)
            return self._made[ca_file]


def new_context(cafile: str | None = None, capath: str | None = None) -> ssl.SSLContext:
    """Return `ssl.create_default_context(cafile=cafile, capath=capath)`, whose handshakes no fork divides."""
    with undivided():
        made = ssl.create_default_context(cafile=cafile, capath=capath)
    if made.sslsocket_class.__module__ == "ssl":  # else it is gevent's, which waits in its own way
        made.sslsocket_class, made.sslobject_class = Socket, Object
    return made


def _load(ca_file: str | None) -> ssl.SSLContext:
    made = new_context()
    if ca_file is not None:
        try:
            with undivided():
                made.load_verify_locations(ca_file)
        except OSError as error:  # ssl.SSLError is one
            message = f"connections.ca_file: cannot load certificates from {ca_file}: {error}"
            raise ConfigError(message, key="connections.ca_file") from error
    return made


_contexts = _Contexts()


def context(ca_file: str | None = None) -> ssl.SSLContext:
    """Return the process's context: the operating system's trust store, and `ca_file` beside it.

    Raises:
        ConfigError: the file cannot be read or holds no certificate.
    """
    return _contexts.get(ca_file)
