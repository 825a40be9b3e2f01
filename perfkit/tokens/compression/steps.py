"""The steps of compression, in order, and the way back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Self

from perfkit.errors import UnknownNameError
from perfkit.tokens.compression.compact import columned, expanded, minified
from perfkit.tokens.compression.texts import UUID, lines_told_again, lines_told_once, text_of_html

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perfkit.values import ChatResponse

__all__ = ["STEPS", "Aliases", "Compressed", "compress"]

STEPS: Final = ("html", "columns", "json", "lines", "uuids")
DEFAULT: Final = (
    "html",
    "columns",
    "json",
    "lines",
)  # UUIDs need the answer to be restored, so somebody who keeps the aliases
_PREFIXES: Final = ("id", "ref", "key", "uid", "item", "x")


class Aliases:
    """Short names for the UUIDs of a request: the same one in all its texts, numbered as they come.

    A conversation that is compressed anew at every turn gets the same names again, so its prefix stays.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._prefix: str | None = None

    def __len__(self) -> int:
        return len(self._names)

    def shorten(self, text: str) -> str:
        """Return `text` with each UUID as its alias; unchanged when every possible alias has a meaning in it."""
        if self._prefix is None:
            self._prefix = next((p for p in _PREFIXES if not re.search(rf"\b{p}\d", text)), None)
        prefix = self._prefix
        if prefix is None or re.search(rf"\b{prefix}\d", text):
            return text
        return UUID.sub(lambda match: self._names.setdefault(match[0], f"{prefix}{len(self._names)}"), text)

    def restore(self, text: str) -> str:
        """Return `text`, such as a model's answer, with the UUIDs in the place of their aliases."""
        if not self._names or self._prefix is None:
            return text
        whole = {name: uuid for uuid, name in self._names.items()}
        return re.sub(rf"\b{self._prefix}\d+\b", lambda match: whole.get(match[0], match[0]), text)

    def restore_response(self, response: ChatResponse) -> ChatResponse:
        """Return an answer with the UUIDs in its text and in the arguments of its tool calls."""
        if not self._names:
            return response
        calls = tuple(_restored(call, self.restore) for call in response.tool_calls)
        return response.evolve(text=self.restore(response.text), tool_calls=calls)


def _restored(value: Any, restore: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return restore(value)
    if isinstance(value, dict):
        return {key: _restored(inner, restore) for key, inner in value.items()}
    return [_restored(inner, restore) for inner in value] if isinstance(value, list) else value


class Compressed(tuple[str, int]):  # noqa: SLOT001 - it has more than the pair
    """A text and the tokens it saves, as a pair, with the way back.

    Attributes:
        steps: that changed something, in order.
        aliases: of UUIDs.
    """

    steps: tuple[str, ...]
    aliases: Aliases

    @classmethod
    def of(cls, text: str, saved: int, steps: tuple[str, ...], aliases: Aliases) -> Self:
        """Return the pair with its way back."""
        made = cls((text, saved))
        made.steps, made.aliases = steps, aliases
        return made

    @property
    def text(self) -> str:
        """What to send."""
        return self[0]

    @property
    def saved_tokens(self) -> int:
        """Tokens that are not sent."""
        return self[1]

    @property
    def exact(self) -> bool:
        """Whether `original` gives all of it back; JSON comes back with the same content, without spaces."""
        return not {"html", "lossy"} & set(self.steps)

    def original(self) -> str:
        """Return the text before compression; what HTML and lossy steps left out stays out."""
        text = self.text
        for step in reversed(self.steps):
            if step == "uuids":
                text = self.aliases.restore(text)
            elif step == "lines":
                text = lines_told_again(text)
            elif step == "columns":
                text = expanded(text)
        return text


def compress(
    text: str,
    *,
    count: Callable[[str], int],
    steps: Iterable[str] = DEFAULT,
    aliases: Aliases | None = None,
    lossy: Callable[[str], str] | None = None,
) -> Compressed:
    """Return `text` with fewer tokens; a step that saves none is left out.

    Args:
        text: a tool's result, a document, any text that is new in this request.
        count: returns the tokens of a text.
        steps: any of "html" (to what a reader sees), "columns" (of lists), "json", "lines" and "uuids".
        aliases: those of the request's other texts.
        lossy: what to shorten the rest with, at a loss.

    Raises:
        UnknownNameError: a step is not known.
    """
    wanted = set(steps)
    if unknown := wanted - set(STEPS):
        raise UnknownNameError.of("compression step", min(unknown), STEPS)
    aliases = aliases if aliases is not None else Aliases()
    known: dict[str, Callable[[str], str | None]] = {
        "html": text_of_html,
        "columns": columned,
        "json": minified,
        "lines": lines_told_once,
        "uuids": aliases.shorten,
        "lossy": lossy if lossy is not None else (lambda _: None),
    }
    before = tokens = count(text)
    done = []
    for step in (*(step for step in STEPS if step in wanted), "lossy"):
        shorter = known[step](text)
        if shorter is None or shorter == text or (fewer := count(shorter)) >= tokens:
            continue
        text, tokens = shorter, fewer
        done.append(step)
    return Compressed.of(text, before - tokens, tuple(done), aliases)
