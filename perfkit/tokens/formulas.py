"""What a prompt has beside its texts: the formulas vendors document for pictures and tools.

Each gives the pieces that are to be counted: texts, and tokens that are no text. Where a vendor documents nothing, its
models are counted as OpenAI's, whose format most servers copy; what that is off is learned from the answers.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from perfkit.tokens.pictures import size_of

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["PER_TOOLS", "as_json", "picture_tokens", "tool_pieces"]

Size = tuple[float, float]  # width and height in pixels
UNKNOWN_SIZE: Final = (1024, 1024)  # of a picture that is only linked to
PATCHES, TINY = 1536, 1e-6
PER_TOOLS: Final = 9  # the namespace around tools whose vendor documents nothing


@dataclass(frozen=True, slots=True)
class _Tiles:
    """A base and so much for each tile of 512 x 512, fitted into 2048 x 2048 and 768 on the short side (OpenAI)."""

    base: int
    tile: int

    def tokens(self, size: Size, detail: str) -> int:
        if detail == "low":
            return self.base
        width, height = _within(_within(size, 2048), 768, short=True)
        return self.base + self.tile * math.ceil(width / 512) * math.ceil(height / 512)


@dataclass(frozen=True, slots=True)
class _Patches:
    """Patches of 32 x 32, at most 1,536 of them, times a factor of the model (OpenAI)."""

    factor: float

    def tokens(self, size: Size, _: str) -> int:
        width, height = (side / 32 for side in size)
        if math.ceil(width) * math.ceil(height) > PATCHES:
            share = math.sqrt(PATCHES / (width * height))
            share *= min(math.floor(side * share) / (side * share) for side in (width, height))
            width, height = width * share - TINY, height * share - TINY
        return math.ceil(math.ceil(width) * math.ceil(height) * self.factor)


class _Area:
    """A token for 750 pixels, of at most 1,568 on the long side, and 1,600 tokens at most (Anthropic)."""

    def tokens(self, size: Size, _: str) -> int:
        width, height = _within(size, 1568)
        return min(1600, math.ceil(width * height / 750))


class _Squares:
    """258 tokens for a picture up to 384 x 384, else for each tile of 768 x 768 (Google)."""

    def tokens(self, size: Size, _: str) -> int:
        width, height = size
        return 258 if max(size) <= 384 else 258 * math.ceil(width / 768) * math.ceil(height / 768)  # noqa: PLR2004


# OpenAI, "Images and vision: Calculating costs"; Anthropic, "Vision: Calculate image costs"; Google, "Understand and
# count tokens". The first pattern found in a model's name counts.
_PICTURES: Final = (
    (re.compile(r"claude"), _Area()),
    (re.compile(r"gemini"), _Squares()),
    (re.compile(r"(gpt-4\.1|gpt-5)-mini"), _Patches(1.62)),
    (re.compile(r"(gpt-4\.1|gpt-5)-nano"), _Patches(2.46)),
    (re.compile(r"o4-mini"), _Patches(1.72)),
    (re.compile(r"gpt-4o-mini"), _Tiles(2833, 5667)),
    (re.compile(r"^o[13]"), _Tiles(75, 150)),
    (re.compile(r"gpt-5"), _Tiles(70, 140)),
    (re.compile(""), _Tiles(85, 170)),
)
# Tokens of the system prompt that comes with tools, for tool_choice auto or none and for any or one tool (Anthropic,
# "Tool use: Pricing"); models not named there count as the newest one that is.
_TOOL_PROMPTS: Final = (
    (re.compile(r"claude-3-5-haiku|claude-3-haiku"), (264, 340)),
    (re.compile(r"claude-3-opus"), (530, 281)),
    (re.compile(r"claude-3"), (346, 313)),
    (re.compile(r"claude-(opus-4-8)"), (290, 410)),
    (re.compile(r"claude-(opus-4-7)"), (675, 804)),
    (re.compile(r"claude-(opus|sonnet)-4-6"), (497, 589)),
    (re.compile(r"claude-(opus|sonnet|haiku)-4-5"), (496, 588)),
    (re.compile(r"claude-(opus|sonnet)-4"), (313, 315)),
    (re.compile(r"claude"), (354, 474)),
)
# OpenAI's cookbook, "How to count tokens with tiktoken", num_tokens_for_tools: tokens for each function (by model), its
# list of properties, each property, each list of values, each value, and for the end of all.
_FUNCTION, _OLD_FUNCTION, _PROPERTIES, _PROPERTY, _ENUM, _VALUE, _END = 7, 10, 3, 3, -3, 3, 12
_OPENAI: Final = re.compile(r"^(ft:)?(gpt-|chatgpt-|o[1-9]\b)")
_OLD_OPENAI: Final = re.compile(r"^(ft:)?gpt-(3\.5|4(?![o.]))")


def as_json(value: Any) -> str:
    """Return a value as compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def picture_tokens(part: Mapping[str, Any], model: str | None) -> int:
    """Return what a picture in a message costs; one whose size cannot be told counts as 1024 x 1024.

    Args:
        part: of a message's content, as OpenAI or Anthropic write it.
        model: that will see it.
    """
    size = size_of(part)
    picture = part.get("image_url")
    detail = str(picture.get("detail", "auto")) if isinstance(picture, Mapping) else "auto"
    return _rule(model).tokens(size if size is not None else UNKNOWN_SIZE, detail)


@lru_cache(maxsize=1024)
def _rule(model: str | None) -> _Tiles | _Patches | _Area | _Squares:
    name = model.lower() if model is not None else ""
    return next(rule for pattern, rule in _PICTURES if pattern.search(name))


def _within(size: Size, most: float, *, short: bool = False) -> Size:
    """Return a size made smaller, so that its long (or short) side is `most` at most."""
    share = min(1.0, most / max(1, (min if short else max)(size)))
    return size[0] * share, size[1] * share


def tool_pieces(tools: Iterable[Mapping[str, Any]] | None, model: str | None, choice: Any = None) -> list[str | int]:
    """Return what tool schemas add to a prompt.

    Args:
        tools: in OpenAI's form.
        model: that may call them.
        choice: the request's `tool_choice`.
    """
    if not tools:
        return []
    name = (model if model is not None else "").lower()
    if "claude" in name:
        free = choice in (None, "auto", "none")
        prompts = next(tokens for pattern, tokens in _TOOL_PROMPTS if pattern.search(name))
        return [prompts[0 if free else 1], *map(as_json, tools)]
    if not _OPENAI.search(name):
        return [PER_TOOLS, *map(as_json, tools)]
    start = _OLD_FUNCTION if _OLD_OPENAI.search(name) else _FUNCTION
    return [_END, *(piece for tool in tools for piece in _function(tool.get("function", tool), start))]


def _function(function: Mapping[str, Any], start: int) -> tuple[int, str]:
    """Return the tokens and the text of one function, its lines counted as one text."""
    lines = [f"{function.get('name', '')}:{_described(function)}"]
    fixed = start + _properties(function.get("parameters"), lines)
    return fixed - (len(lines) - 1), "\n".join(lines)


def _properties(schema: Any, lines: list[str]) -> int:
    """Add the lines of an object's properties, those of objects inside too, and return what comes to them."""
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(properties, Mapping) or not properties:
        return 0
    fixed = _PROPERTIES
    for name, inner in properties.items():
        fixed += _PROPERTY
        if isinstance(inner, Mapping):
            fixed += _values(inner.get("enum"), lines)
            lines.append(f"{name}:{inner.get('type', '')}:{_described(inner)}")
            fixed += _properties(inner, lines) + _properties(inner.get("items"), lines)
    return fixed


def _values(values: Any, lines: list[str]) -> int:
    if not isinstance(values, list | tuple):
        return 0
    lines += map(str, values)
    return _ENUM + _VALUE * len(values)


def _described(schema: Mapping[str, Any]) -> str:
    return str(schema.get("description", "")).removesuffix(".")
