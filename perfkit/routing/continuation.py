"""Going on elsewhere with an answer that broke off: what the next provider is asked, and how the texts are joined.

A provider that continues an assistant's last message (`prefill`: llama.cpp, vLLM, older Anthropic models) is given the
text as that, and what it says is the rest. Any other is asked to go on; models then often begin with the last words
again, or from the start, so what repeats the end of the text is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perfkit.values import ChatRequest

__all__ = ["Seam", "continued"]

ASKED = (
    "Your last message was cut off. Continue it exactly where it ends, in the middle of a word if need be. "
    "Do not repeat anything of it and do not comment."
)
LEAST_OVERLAP = 8  # characters; what repeats less than that may be meant


def continued(request: ChatRequest, shown: str, *, prefill: bool) -> ChatRequest:
    """Return the request for the rest of an answer of which `shown` is there already."""
    said = shown.rstrip() if prefill else shown  # tokens begin with their space, so a last one leads astray
    messages = (*request.messages, {"role": "assistant", "content": said})
    if not prefill:
        messages = (*messages, {"role": "user", "content": ASKED})
    if request.max_tokens is None:
        return request.evolve(messages=messages)
    from perfkit.tokens import TokenOptimizer

    used = TokenOptimizer.instance().count_tokens(shown, request.model)
    return request.evolve(messages=messages, max_tokens=max(1, request.max_tokens - used))


class Seam:
    """Joins a continuation to the text before: hands out only what is new.

    What came is held back only as long as it may still turn out to be a repetition.

    Args:
        shown: the text before.
        exact: the continuation repeats nothing but white space.
    """

    def __init__(self, shown: str, *, exact: bool) -> None:
        self._shown = shown
        self._held = ""
        self._exact = exact
        self._open = bool(shown)

    def feed(self, delta: str) -> str:
        """Return what of the text until now is new and can be handed out."""
        if not self._open:
            return delta
        self._held += delta
        if not self._held or (not self._exact and self._held in self._shown):
            return ""
        return self.rest()

    def rest(self) -> str:
        """Return what was held back, without what repeats the end of the text before."""
        held, self._held, self._open = self._held, "", False
        return held[(repeated_space if self._exact else overlap)(self._shown, held) :]


def overlap(before: str, after: str) -> int:
    """Return how many characters at the beginning of `after` repeat the end of `before`; no space stands twice."""
    for length in range(min(len(before), len(after)), 0, -1):
        if length < LEAST_OVERLAP and length < len(before):
            break
        if before.endswith(after[:length]):
            return length
    return repeated_space(before, after)


def repeated_space(before: str, after: str) -> int:
    """Return how many characters of white space at the beginning of `after` repeat the end of `before`."""
    space = len(after) - len(after.lstrip())
    end = before[len(before.rstrip()) :]
    return next((length for length in range(space, 0, -1) if end.endswith(after[:length])), 0)
