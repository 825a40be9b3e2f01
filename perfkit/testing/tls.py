"""A throw-away certificate authority for servers on the loopback, shared by as many of them as a test starts."""

from __future__ import annotations

import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Authority"]

NAMES = ("127.0.0.1", "localhost", "::1")


class Authority:
    """A certificate authority made on first use by the `trustme` package (extra `demo`).

    Its files live in a temporary directory until `close`. Use it as a context manager where several servers share it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _directory
        self._directory: TemporaryDirectory[str] | None = None

    def _file(self, name: str) -> str:
        with self._lock:
            if self._directory is None:
                self._directory = _make()
            return str(Path(self._directory.name, name))

    @property
    def ca_file(self) -> str:
        """Path of the certificate that clients are to trust, for example as `verify=` or `SSL_CERT_FILE`."""
        return self._file("ca.pem")

    @property
    def server_file(self) -> str:
        """Path of a key and certificate for 127.0.0.1, ::1 and localhost, in one PEM file."""
        return self._file("server.pem")

    def close(self) -> None:
        """Remove the files; a later use makes a new authority."""
        with self._lock:
            directory, self._directory = self._directory, None
        if directory is not None:
            directory.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _make() -> TemporaryDirectory[str]:
    import trustme

    authority = trustme.CA()
    issued = authority.issue_cert(*NAMES)
    directory = TemporaryDirectory(prefix="perfkit-tls-")  # its mode keeps others out
    authority.cert_pem.write_to_path(str(Path(directory.name, "ca.pem")))
    issued.private_key_and_cert_chain_pem.write_to_path(str(Path(directory.name, "server.pem")))
    return directory
