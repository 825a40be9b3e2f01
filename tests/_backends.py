"""What each backend of the cache needs to run: a file, a server, a framework."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["prepared"]


@contextmanager
def prepared(name: str, directory: Path) -> Iterator[dict[str, Any]]:
    """Provide for a backend and yield the settings of a cache that uses it."""
    with _NEEDS.get(name, _nothing)(directory) as settings:
        yield {"backend": name, **settings}


@contextmanager
def _nothing(directory: Path) -> Iterator[dict[str, Any]]:
    del directory
    yield {}


@contextmanager
def _file(directory: Path) -> Iterator[dict[str, Any]]:
    yield {"url": f"sqlite:///{directory}/cache.db"}


_NEEDS = {"sqlite": _file}
