"""What keeps the blobs: the protocol, and which store a setting means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from perfkit.metrics.sharing.files import FileStore
from perfkit.metrics.sharing.redis import RedisStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

__all__ = ["Store", "store_of"]


class Store(Protocol):
    """Named blobs; every method raises an OSError, as StateUnavailableError is, when the store is away."""

    def names(self) -> list[str]:
        """Return the names of all blobs."""
        ...

    def read(self, names: Sequence[str]) -> list[bytes | None]:
        """Return blobs, None in the place of those that are gone."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Keep a blob; nobody ever reads a part of it."""
        ...

    def remove(self, names: Iterable[str]) -> None:
        """Forget blobs, also those that are gone."""
        ...

    def folding(self) -> AbstractContextManager[Callable[[str, bytes], bool] | None]:
        """Keep others from folding; None when somebody else is at it.

        What it gives is `write`, and returns False, having written nothing, when it is somebody else's turn by now.
        """
        ...


def store_of(setting: str) -> Store:
    """Return the store that `[metrics] store` means: "redis", the one of `[state] url`, or a directory."""
    return RedisStore() if setting == "redis" else FileStore(setting)
