"""What makes two requests the same question.

A key is the SHA-256 of canonical JSON (sorted keys, no spaces, every value under its own name, so that nothing can run
together) of all that changes the answer. Dates, times, numbers and names make different questions: nothing in a text is
rewritten but what cannot change its meaning, the form of its Unicode (NFC) and white space at the very end of what a
user or the system says. `1` and `1.0` are different values, except for the temperature, which is always a float; tuples
and lists are the same, as they are on the wire.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any

from perfkit.caching.remembering import remembered

if TYPE_CHECKING:
    from perfkit.values import ChatRequest

__all__ = ["IGNORED_CONTEXT", "plain_key", "request_digest", "scope_of", "scoped_key"]

# Context that identifies an occasion, not a question (RAAF guide 3.6).
IGNORED_CONTEXT = frozenset({"session_id", "request_id", "timestamp", "trace_id", "span_id"})

_dumps = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


SPEAKERS = frozenset({"user", "system", "developer"})


@remembered
def _quoted(text: str) -> str:
    """Return a text as JSON writes it; system prompts, and questions with a cached answer, come again and again."""
    return encode_basestring(text)


@remembered
def _spoken(text: str) -> str:
    """Return what somebody said as JSON writes its normal form."""
    return encode_basestring(unicodedata.normalize("NFC", text).rstrip())


def request_digest(request: ChatRequest, *, provider: str | None = None, target: str | None = None) -> bytes:
    """Return 32 bytes that are equal only for requests with the same answer, whoever asks.

    Args:
        request: its `model` is the model or route asked for, not the one that will answer.
        provider: the pinned provider, if any.
        target: the model a route stands for now; None means `request.model` itself.

    Raises:
        TypeError, ValueError: the request holds something JSON cannot express; the message names the parameter.
    """
    context = _context(request.metadata, request.user) if request.metadata else {}
    temperature = None if request.temperature is None else float(request.temperature) + 0.0  # there is no -0.0
    plain = (provider, target, temperature, request.max_tokens)
    special = (request.tools, request.response_format, request.extra, context)
    try:
        messages = ",".join([_canonical(message) for message in request.messages])
        text = f'{{"messages":[{messages}],"model":{_quoted(request.model)},"rest":{_rest(plain, special)}}}'
    except (TypeError, ValueError, RecursionError) as error:
        rest = _parameters(plain, special)
        parts = {"messages": [dict(message) for message in request.messages], **rest, **request.extra, "extra": None}
        raise _unwritable(parts, error) from None
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


_Plain = tuple[str | None, str | None, float | None, int | None]  # provider, target, temperature, max_tokens
_Special = tuple[Any, Any, Any, Any]  # tools, response_format, extra, context
_NOTHING_SPECIAL: _Special = (None, None, {}, {})


def _parameters(plain: _Plain, special: _Special) -> dict[str, Any]:
    names = ("provider", "target", "temperature", "max_tokens", "tools", "response_format", "extra", "context")
    return dict(zip(names, (*plain, *special), strict=True))


def _rest(plain: _Plain, special: _Special) -> str:
    """Return all parameters as JSON; most requests have a model and a temperature only, the same ones each time."""
    return _plain_once(plain) if special == _NOTHING_SPECIAL else _dumps(_parameters(plain, special))


@lru_cache(maxsize=512)
def _plain_once(plain: _Plain) -> str:
    return _dumps(_parameters(plain, _NOTHING_SPECIAL))


def _unwritable(parts: Mapping[str, Any], error: Exception) -> TypeError | ValueError:
    why = "it is nested too deeply" if isinstance(error, RecursionError) else error
    kind = TypeError if isinstance(error, TypeError) else ValueError
    return kind(f"{_culprit(parts) or 'the request'} cannot be written as JSON: {why}")


def _culprit(parts: Mapping[Any, Any], depth: int = 5) -> str:
    """Return which part cannot be written, by the names that lead there; "" for none alone."""
    for name, part in parts.items():
        if not _is_writable(part):
            within = _culprit(part, depth - 1) if isinstance(part, Mapping) and depth else ""
            return f"{name}.{within}" if within else str(name)
    return ""


def _is_writable(part: Any) -> bool:
    try:
        _dumps(part)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _canonical(message: Mapping[str, Any]) -> str:
    """Return `_dumps(message)` with normal text; for a dict of role and text, as most are, at half the cost.

    What the assistant is made to say stays as it is: it goes on from there, white space included.
    """
    role, content = message.get("role"), message.get("content")
    if len(message) == len(("role", "content")) and type(role) is str and type(content) is str:
        text = _quoted(content) if role not in SPEAKERS else _spoken(content)
        return f'{{"content":{text},"role":{_quoted(role)}}}'
    return _dumps(dict(message))


def _context(context: Mapping[str, Any], user: str | None) -> dict[str, Any]:
    """Return what of the context makes another question; a `user_id` that is the user himself is his scope already."""
    own = {"user_id"} if user is not None and str(context.get("user_id")) == user else set()
    return {name: value for name, value in context.items() if name not in IGNORED_CONTEXT and name not in own}


def _owner(user: str) -> str:
    return hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def scoped_key(digest: bytes, user: str | None, tenant: str | None = None) -> str:
    """Return the cache key of a question asked publicly, or by one user or tenant, whose names do not show."""
    return f"chat:{digest.hex()}:{scope_of(user, tenant)}"


def scope_of(user: str | None, tenant: str | None = None) -> str:
    """Return how a key ends that is a user's own, else a tenant's, else everybody's."""
    if user is not None:
        return "user:" + _owner(user)
    return "public" if tenant is None else "tenant:" + _owner(tenant)


def plain_key(key: Any, scope: str | None = None) -> str:
    """Return the key of direct use: "key:" and a string, "json:" and any other value's SHA-256; behind a hashed scope.

    No string that a user can give reads as a key of another kind: all that is his stands behind the prefix.

    Raises:
        TypeError: `key` holds something JSON cannot express.
        ValueError: it holds NaN or an infinity.
    """
    if isinstance(key, str):
        name = "key:" + key
    else:
        try:
            text = _dumps(key)
        except (TypeError, ValueError, RecursionError) as error:
            raise _unwritable(key if isinstance(key, Mapping) else {"the key": key}, error) from None
        name = "json:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return name if scope is None else f"scope:{_owner(scope)}:{name}"
