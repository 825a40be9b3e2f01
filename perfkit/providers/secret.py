"""Keys: validated when given, shown to nobody, and taken out of whatever a server sends back."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from perfkit.errors import ConfigError
from perfkit.transport import message

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Credentials", "Scrubber", "Secret", "check_headers"]

_SECRET_NAME = re.compile(r"auth|key|token|secret|cookie|password", re.IGNORECASE)
_SHORTEST = 4  # a shorter "key" is a placeholder, and part of ordinary words
_SHOWN = "***"


class Secret(str):
    """Text that is sent but never shown: its repr, and that of any dict it is in, is '***'."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(_SHOWN)


class Credentials:
    """The key of one provider and the headers of its user, read once, when the provider is made.

    Args:
        provider: its name.
        api_key: the key; None takes it from `variable`.
        variable: environment variable that may hold it.
        headers: sent with every request; credentials among them are known by their names.

    Attributes:
        key: None when there is none.
        headers: with the credentials made `Secret`.
        scrubber: takes key and credentials out.
        hint: what to do about the key.

    Raises:
        ConfigError: the key cannot be in a header; the message does not show it.
    """

    def __init__(self, provider: str, api_key: str | None, variable: str | None, headers: Mapping[str, str]) -> None:
        given, where = (api_key, f"api_key of provider {provider!r}")
        if given is None and variable is not None:
            given, where = os.environ.get(variable), variable
        self.key = _clean_key(given, where)
        self.headers = {name: Secret(text) if _SECRET_NAME.search(name) else text for name, text in headers.items()}
        self.scrubber = Scrubber(text for text in (self.key, *self.headers.values()) if isinstance(text, Secret))
        place = f"{variable} or api_key=" if variable is not None else "api_key="
        self.hint = f"set {place}" if self.key is None else f"check the key given by {place}"


def _clean_key(key: object, where: str) -> Secret | None:
    """Return a key without the blanks and line ends that files and shells add; None for an empty one."""
    if key is None:
        return None
    if not isinstance(key, str):
        raise ConfigError(f"{where} must be text, not {type(key).__name__}", key=where)
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"{where} has characters that cannot be in an HTTP header", key=where)
    return Secret(key) if key else None


def check_headers(headers: object, provider: str) -> None:
    """Refuse headers that are no table of text, or cannot be sent, in words that show none of their values.

    Raises:
        ConfigError: they are not, or cannot.
    """
    if not isinstance(headers, Mapping) or not all(isinstance(t, str) for pair in headers.items() for t in pair):
        raise ConfigError(f"headers of provider {provider!r} must be a table of text", key="headers")
    try:
        message.head("GET", "/", message.lowered(headers))
    except ValueError as error:
        raise ConfigError(f"headers of provider {provider!r} cannot be sent: {error}", key="headers") from None


class Scrubber:
    """Takes secrets out of text and JSON values, in every spelling they may come back in."""

    def __init__(self, secrets: Iterable[str]) -> None:
        whole = [secret for secret in secrets if len(secret) >= _SHORTEST]
        # "Bearer abc" is given away by "abc" already; the longest form goes first, or its rest would stay.
        words = {form for secret in whole for form in (secret, *secret.split()[-1:]) if len(form) >= _SHORTEST}
        self._forms = sorted({form for word in words for form in _spellings(word)}, key=len, reverse=True)
        self._encoded = [form.encode() for form in self._forms]

    def found_in(self, body: bytes) -> bool:
        """Tell whether `body` holds a secret."""
        return any(form in body for form in self._encoded)

    def text(self, text: str) -> str:
        """Return `text` with "***" for each secret."""
        for form in self._forms:
            text = text.replace(form, _SHOWN)
        return text

    def value(self, value: Any) -> Any:
        """Return a JSON value with "***" for each secret in its strings and keys."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(key): self.value(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item) for item in value]
        return value


def _spellings(secret: str) -> tuple[str, ...]:
    """Return a secret as it is, in JSON (also with PHP's escaped slashes) and in a URL."""
    in_json = json.dumps(secret)[1:-1]
    return str(secret), in_json, in_json.replace("/", "\\/"), quote(secret, safe="")
