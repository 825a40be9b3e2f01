"""Short names for UUIDs: in the texts of a request, and back in its answer, whole or as it comes."""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from perfkit.errors import StreamInterruptedError
from perfkit.tokens.compression.texts import UUID

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from perfkit.values import ChatResponse

__all__ = ["Aliases"]

_PREFIXES: Final = (
    "uid",
    "ref",
    "key",
    "item",
    "id",
    "x",
)  # what answers are least likely to number by themselves first
_BEGIN, _END = re.compile(r"\A\w+"), re.compile(r"\w+\Z")  # of a text, where that is a word


class Aliases:
    """Short names for the UUIDs of a request: the same one in all its texts, numbered as they come.

    A conversation that is compressed anew at every turn gets the same names again, so its prefix stays.

    Attributes:
        saved_tokens: of the request they belong to.
    """

    def __init__(self) -> None:
        self.saved_tokens = 0
        self._names: dict[str, str] = {}
        self._plain: set[str] = set()
        self._prefix: str | None = None

    def __len__(self) -> int:
        return len(self._names)

    def choose(self, texts: Iterable[str]) -> None:
        """Take names that none of `texts` uses."""
        whole = "\n".join(texts)
        self._prefix = next((p for p in _PREFIXES if not _used(p, whole)), "")

    def spare(self, text: str) -> None:
        """Leave the UUIDs of `text`, which is sent as it is, as they are in all others."""
        self._plain.update(found.lower() for found in UUID.findall(text))

    def shorten(self, text: str) -> str:
        """Return `text` with each UUID as its alias; unchanged when every possible alias has a meaning in it."""
        if self._prefix is None:
            self.choose([text])
        prefix = self._prefix
        return text if not prefix or _used(prefix, text) else UUID.sub(lambda match: self._name(prefix, match[0]), text)

    def _name(self, prefix: str, found: str) -> str:
        known = self._names.get(found)
        if known is not None or found.lower() in self._plain:
            return known if known is not None else found
        return self._names.setdefault(found, f"{prefix}{len(self._names)}")

    def repeat(self, text: str) -> str:
        """Return `text` with those UUIDs as their aliases that have one already."""
        return UUID.sub(lambda match: self._names.get(match[0], match[0]), text) if self._names else text

    def restore(self, text: str) -> str:
        """Return `text`, such as a model's answer, with the UUIDs in the place of their aliases."""
        if not self._names:
            return text
        whole = {name: uuid for uuid, name in self._names.items()}
        return re.sub(rf"\b{self._prefix}\d+\b", lambda match: whole.get(match[0], match[0]), text)

    def restore_response(self, response: ChatResponse) -> ChatResponse:
        """Return an answer with the UUIDs in its text and in the arguments of its tool calls."""
        if not self._names:
            return response
        calls = tuple(_restored(call, self.restore) for call in response.tool_calls)
        return response.evolve(text=self.restore(response.text), tool_calls=calls)

    def restore_stream(self, deltas: Generator[str, None, ChatResponse]) -> Generator[str, None, ChatResponse]:
        """Yield a streamed answer with the UUIDs; only a last word that may become an alias is held back.

        Raises:
            StreamInterruptedError: as `deltas` does, with the UUIDs in what came.
        """
        held, inside = "", False  # inside a word whose beginning was passed on
        with closing(deltas):
            try:
                while True:
                    passed, held, inside = self._cut(held + next(deltas), inside=inside)
                    if passed:
                        yield passed
            except StopIteration as end:
                response: ChatResponse = end.value
            except StreamInterruptedError as error:
                error.partial = self.restore(error.partial)
                raise
        if held:
            yield self.restore(held)
        return self.restore_response(response)

    def _cut(self, text: str, *, inside: bool) -> tuple[str, str, bool]:
        """Return what can be passed on of `text`, what has to wait, and whether what is passed on ends in a word."""
        begun = _BEGIN.sub("", text) if inside else text
        first = text[: len(text) - len(begun)]
        rest = _END.sub("", begun)
        last = begun[len(rest) :]
        if last and self._may_become_alias(last):
            return first + self.restore(rest), last, False
        return first + self.restore(begun), "", bool(last) or (inside and not begun)

    def _may_become_alias(self, word: str) -> bool:
        prefix = str(self._prefix)
        return prefix.startswith(word) or (word.startswith(prefix) and word[len(prefix) :].isdigit())


def _used(prefix: str, text: str) -> bool:
    return re.search(rf"\b{prefix}\d", text) is not None


def _restored(value: Any, restore: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return restore(value)
    if isinstance(value, dict):
        return {key: _restored(inner, restore) for key, inner in value.items()}
    return [_restored(inner, restore) for inner in value] if isinstance(value, list) else value
