"""Entries as bytes for whatever is outside this process: a versioned envelope around JSON, never pickle.

    b"pk1" + form + body      form: "j" JSON, "z" zlib, "s" zstd, "e" encrypted (the body holds form and body)

The JSON names the key it belongs to, so that bytes copied to another key, by accident or on purpose, are not served
there. Whatever cannot be read whole is refused: another version, another key, garbage, a bomb.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any

from perfkit._registry import load
from perfkit.caching.entry import Entry, Life, keep
from perfkit.errors import ConfigError
from perfkit.values import ChatResponse, finite

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit._settings import CacheSettings
    from perfkit.clock import Clock

__all__ = ["Codec"]

MAGIC = b"pk1"
LEVEL = 1  # of zlib: the fastest
SKEW = 60.0  # seconds that the clocks of two hosts may differ; what comes from further ahead has no age to go by

_dumps = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class Codec:
    """Writes and reads envelopes.

    Args:
        clock: tells the age of what is read.
        form: "j", "z" or "s": how what is larger than `above` is written; all of them are read.
        above: bytes.
        cipher: with `encrypt` and `decrypt`, or None.
        most: bytes that an envelope may unpack to.
    """

    def __init__(
        self, clock: Clock, *, form: bytes = b"j", above: int = 1024, cipher: Any = None, most: int = 100 * 2**20
    ) -> None:
        self._clock, self._form, self._above, self._cipher, self._most = clock, form, above, cipher, most
        if form == b"s":
            _zstd()

    @classmethod
    def of(cls, settings: CacheSettings, clock: Clock) -> Codec:
        """Return what the `[cache]` table says.

        Raises:
            ConfigError: a key is none, or a package is missing.
        """
        form = {"none": b"j", "zlib": b"z", "zstd": b"s"}[settings.compression]
        return cls(
            clock,
            form=form,
            above=settings.compress_above,
            cipher=_cipher(settings.encryption_key),
            most=settings.max_bytes,
        )

    def encode(self, entry: Entry) -> bytes:
        """Return an entry as bytes.

        Raises:
            TypeError, ValueError: it holds what JSON cannot express.
        """
        value = entry.value
        chat = isinstance(value, ChatResponse)
        text = _dumps(
            {
                "key": entry.key,
                "at": entry.stored_at,
                "life": entry.life,
                "seconds": entry.seconds,
                "tags": sorted(entry.tags),
                "kind": "chat" if chat else "json",
                "value": value.to_dict() if chat else value,
            }
        ).encode("utf-8", "surrogatepass")
        packed = b"j" + text if len(text) <= self._above else self._form + _PACK[self._form](text)
        return MAGIC + (packed if self._cipher is None else b"e" + self._cipher.encrypt(packed))

    def decode(self, key: str, data: bytes) -> Entry | None:
        """Return the entry that was written under `key`, None for one that is gone and for anything else."""
        try:
            return self._read(key, data)
        except Exception:
            return None

    def _read(self, key: str, data: bytes) -> Entry | None:
        packed = data[len(MAGIC) :]
        if data[: len(MAGIC)] != MAGIC or (self._cipher is not None) != packed.startswith(b"e"):
            return None
        if self._cipher is not None:
            packed = self._cipher.decrypt(packed[1:])
        text = _UNPACK[packed[:1]](packed[1:], self._most)
        found = json.loads(text.decode("utf-8", "surrogatepass"))
        if found["key"] != key:
            return None
        chat = found["kind"] == "chat"
        value = ChatResponse.from_dict(found["value"]) if chat else found["value"]
        if chat and not isinstance(value.text, str):
            return None
        clock, at = self._clock, finite("at", found["at"])
        age = clock.wall() - at
        if age < -SKEW:
            return None
        entry = Entry(
            key,
            keep(value),
            Life(*(finite("life", part, least=0) for part in found["life"])),
            now=clock.now() - max(0.0, age),
            stored_at=at,
            tags=frozenset(found["tags"]),
            seconds=finite("seconds", found["seconds"]),
        )
        return entry if entry.gone > clock.now() else None


def _inflate(data: bytes, most: int) -> bytes:
    return _whole(zlib.decompressobj(), data, most)


def _unzstd(data: bytes, most: int) -> bytes:
    return _whole(_zstd().ZstdDecompressor(), data, most)


def _whole(reader: Any, data: bytes, most: int) -> bytes:
    text: bytes = reader.decompress(data, most)
    if not reader.eof:
        raise ValueError("cut off, or larger than the whole cache")
    return text


def _zstd() -> Any:
    for name in ("compression.zstd", "backports.zstd"):  # the standard library's since 3.14
        try:
            return load(name)
        except ImportError:
            continue
    raise ConfigError(
        "the package backports.zstd is missing: pip install 'perfkit[compression]'", key="cache.compression"
    )


def _plain(data: bytes, most: int) -> bytes:
    del most
    return data


_PACK: dict[bytes, Callable[[bytes], bytes]] = {
    b"j": bytes,
    b"z": lambda text: zlib.compress(text, LEVEL),
    b"s": lambda text: _zstd().compress(text),
}
_UNPACK: dict[bytes, Callable[[bytes, int], bytes]] = {b"j": _plain, b"z": _inflate, b"s": _unzstd}


def _cipher(keys: str | None) -> Any:
    """Return what encrypts with the first key, and decrypts with any of them."""
    if keys is None:
        return None
    try:
        from cryptography.fernet import Fernet, MultiFernet
    except ImportError:
        raise ConfigError(
            "the package cryptography is missing: pip install 'perfkit[encryption]'", key="cache.encryption_key"
        ) from None
    try:
        return MultiFernet([Fernet(key.strip()) for key in keys.split(",")])
    except ValueError:
        raise ConfigError(
            "an encryption key must be 32 bytes in URL-safe base64, as Fernet.generate_key() makes them",
            key="cache.encryption_key",
        ) from None
