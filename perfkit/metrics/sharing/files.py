"""Blobs as files of one directory, for the processes of one host."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from perfkit import _process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["FileStore"]

_LOCK = "lock"
_PART = ".part"  # of a file that is being written
_ABANDONED = 60.0  # seconds after which its writer is taken for dead


class _Turn:
    """The one fold that this process may run: file locks do not keep its own threads apart."""

    def __init__(self) -> None:
        self._after_fork()
        _process.bind(self)

    def _after_fork(self) -> None:
        self.lock = threading.Lock()  # guards the lock file of every directory


_turn = _Turn()


class FileStore:
    """Keeps blobs in a directory, made on the first write; only its owner may read it.

    Args:
        directory: on a file system of this host; a tmpfs such as /dev/shm does as well, and loses all at a restart.
    """

    def __init__(self, directory: str | Path) -> None:
        self._directory = Path(directory)

    def names(self) -> list[str]:
        """Return the names of all blobs."""
        try:
            names = [path.name for path in self._directory.iterdir()]
        except FileNotFoundError:
            return []
        return [name for name in names if name != _LOCK and not name.endswith(_PART)]

    def read(self, names: Sequence[str]) -> list[bytes | None]:
        """Return blobs, None in the place of those that are gone."""
        return [self._read(name) for name in names]

    def _read(self, name: str) -> bytes | None:
        try:
            return (self._directory / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Keep a blob: written under another name, then renamed in one step."""
        part = self._directory / f"{name}.{os.getpid()}.{threading.get_ident()}{_PART}"
        try:
            part.write_bytes(data)
        except FileNotFoundError:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            part.write_bytes(data)
        part.replace(self._directory / name)

    def remove(self, names: Iterable[str]) -> None:
        """Forget blobs, also those that are gone."""
        for name in names:
            (self._directory / name).unlink(missing_ok=True)

    @contextmanager
    def folding(self) -> Iterator[Callable[[str, bytes], bool] | None]:
        """Keep others from folding; a process that dies gives its turn back."""
        if not _turn.lock.acquire(blocking=False):
            yield None
            return
        lock = -1
        try:
            lock = os.open(self._directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with suppress(BlockingIOError, PermissionError):
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._tidy()
                yield self._commit
                return
            yield None
        finally:
            if lock >= 0:
                os.close(lock)
            _turn.lock.release()

    def _commit(self, name: str, data: bytes) -> bool:
        self.write(name, data)
        return True

    def _tidy(self) -> None:
        """Remove what writers left unfinished when they were killed."""
        for part in self._directory.glob("*" + _PART):
            with suppress(OSError):
                if part.stat().st_mtime < time.time() - _ABANDONED:
                    part.unlink()

    def __repr__(self) -> str:
        return f"FileStore({str(self._directory)!r})"
