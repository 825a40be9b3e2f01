"""JSON with fewer tokens and the same content: no spaces, no ASCII escapes, lists of like objects as columns and rows.

Numbers are kept as they are written. A document that has an object of just "cols" and "rows" itself, or one key twice
in an object, is not put into columns: it could not be told apart on the way back.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

__all__ = ["columned", "expanded", "is_json", "minified"]

LEAST_ROWS: Final = 2
COLUMNS: Final = ("cols", "rows")
_OPENING: Final = ("{", "[")
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"|\s+', re.DOTALL)
_LONE: Final = re.compile(r"[\ud800-\udfff]")


class _Raw(str):
    """A number as it is written."""

    __slots__ = ()


class _AmbiguousError(ValueError):
    """The document cannot be put into columns and back."""


def minified(text: str) -> str | None:
    """Return a JSON document without spaces and ASCII escapes, None if `text` is none."""
    return _STRING.sub(_squeezed, text) if is_json(text) else None


def is_json(text: str) -> bool:
    """Tell whether a text is one JSON object or array."""
    if text.lstrip()[:1] not in _OPENING:
        return False
    try:
        json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return False
    return True


def columned(text: str) -> str | None:
    """Return a JSON document with lists of like objects as {"cols": [...], "rows": [[...]]}, None if it has none."""
    if text.lstrip()[:1] not in _OPENING:
        return None
    try:
        value = _parsed(text)
        changed = _columns(value)
        return _written(changed) if changed != value else None
    except (ValueError, RecursionError):
        return None


def expanded(text: str) -> str:
    """Return a document of `columned` with its lists as objects again, without spaces."""
    return _written(_rows(_parsed(text, ambiguous=False)))


def _squeezed(match: re.Match[str]) -> str:
    found = match[0]
    return _quoted(json.loads(found, strict=False)) if found[0] == '"' and "\\" in found else found.strip()


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=_LONE.search(text) is not None)


def _parsed(text: str, *, ambiguous: bool = True) -> Any:
    def together(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if ambiguous and (len(made) < len(pairs) or tuple(made) == COLUMNS):
            raise _AmbiguousError
        return made

    return json.loads(
        text, parse_float=_Raw, parse_int=_Raw, parse_constant=_Raw, object_pairs_hook=together, strict=False
    )


def _columns(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _columns(inner) for key, inner in value.items()}
    if not isinstance(value, list):
        return value
    items = [_columns(item) for item in value]
    if not _alike(value):
        return items
    keys = list(items[0])
    return {"cols": keys, "rows": [[item[key] for key in keys] for item in items]}


def _alike(items: list[Any]) -> bool:
    if len(items) < LEAST_ROWS or not isinstance(items[0], dict) or not items[0]:
        return False
    keys = tuple(items[0])
    return all(isinstance(item, dict) and tuple(item) == keys for item in items)


def _rows(value: Any) -> Any:
    if isinstance(value, list):
        return [_rows(item) for item in value]
    if not isinstance(value, dict):
        return value
    if tuple(value) == COLUMNS:
        keys = value["cols"]
        return [dict(zip(keys, map(_rows, row), strict=True)) for row in value["rows"]]
    return {key: _rows(inner) for key, inner in value.items()}


def _written(value: Any) -> str:
    if isinstance(value, _Raw):
        return str(value)
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{_quoted(key)}:{_written(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    return json.dumps(value)
