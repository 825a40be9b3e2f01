"""Provider instances kept by their configuration, so that switching back to one costs a look-up.

Two callers who say the same get the same instance: kind, name, address, models, options, and the key, of which only a
digest is kept here. A key that was changed in the environment is another configuration. The least recently used one
goes first when there are too many; whoever still holds it may go on using it.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from perfkit import _process
from perfkit.providers.presets import PRESETS

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit.providers.base import Provider

__all__ = ["ProviderCache"]


class ProviderCache:
    """The instances used last.

    Args:
        create: makes one that is not there; `perfkit.providers.create_provider`.
        size: how many are kept (AgentiCraft keeps 5).

    Attributes:
        hits: look-ups that found one.
        misses: look-ups that had to make one.
    """

    def __init__(self, create: Callable[..., Provider], *, size: int = 5) -> None:
        self.size = size
        self.hits = self.misses = 0
        self._create = create
        self._kept: OrderedDict[tuple[Any, ...], Provider] = OrderedDict()
        self._after_fork()
        _process.bind(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards _kept, hits and misses

    def get(self, kind: str, **settings: Any) -> Provider:
        """Return the provider of these settings, made now if it is not kept; arguments as of `create_provider`.

        Raises:
            UnknownNameError, ConfigError, TypeError: see `create_provider`; nothing is kept then.
        """
        key = _key(kind, settings)
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                self.hits += 1
                return found
            self.misses += 1
        made = self._create(kind, **settings)
        with self._lock:
            made = self._kept.setdefault(key, made)  # another thread may have been quicker
            dropped = [self._kept.popitem(last=False)[1] for _ in range(len(self._kept) - self.size)]
        for provider in dropped:
            provider.close()
        return made

    def __len__(self) -> int:
        return len(self._kept)

    def close(self) -> None:
        """Forget all instances, and let them go of what they hold."""
        with self._lock:
            dropped, self._kept = list(self._kept.values()), OrderedDict()
        for provider in dropped:
            provider.close()

    def __repr__(self) -> str:
        return f"<ProviderCache {len(self._kept)} of {self.size}, {self.hits} hits, {self.misses} misses>"


def _key(kind: str, settings: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what a configuration is known by; secrets in it are digested."""
    preset, api_key = PRESETS.get(kind), settings.get("api_key")
    variable = settings.get("key_variable", preset.key_variable if preset is not None else "")
    if api_key is None:
        api_key = os.environ.get(variable or "", "")
    place = preset.elsewhere() if preset is not None and settings.get("base_url") is None else None
    rest = tuple((name, _frozen(settings[name])) for name in sorted(settings) if name != "api_key")
    return kind, place, _digest(api_key), rest


def _digest(text: object) -> bytes:
    return hashlib.blake2b(str(text).encode(), digest_size=16).digest()


def _frozen(value: Any) -> Any:
    """Return a value that can be part of a key; headers may hold secrets, so tables are digested."""
    if isinstance(value, Mapping):
        return tuple((str(name), _digest(repr(_frozen(item)))) for name, item in sorted(value.items()))
    if isinstance(value, list | tuple | set | frozenset):
        return tuple(sorted(map(str, value)))
    return value if isinstance(value, str | int | float | None) else id(value)
