"""The steps of compression, in order, and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from perfkit.errors import UnknownNameError
from perfkit.tokens.compression.aliases import Aliases
from perfkit.tokens.compression.compact import columned, expanded, minified
from perfkit.tokens.compression.texts import lines_told_again, lines_told_once, text_of_html

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["STEPS", "Compressed", "compress"]

STEPS: Final = ("html", "columns", "json", "lines", "uuids")
DEFAULT: Final = (
    "html",
    "columns",
    "json",
    "lines",
)  # UUIDs need the answer to be restored, so somebody who keeps the aliases


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
