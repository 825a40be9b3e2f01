"""Count the tokens of texts and of chats, for the model that will read them.

Exact counts come from tiktoken, but only where it is installed and its vocabulary is on disk, whole, under the name it
looks for: it would fetch a missing one by a request without a timeout, in the middle of a web request. Everywhere else
the byte-class estimator counts. A growing chat repeats its messages at every turn, so counts are remembered by text.
"""

from __future__ import annotations

import logging
import math
import os
import re
import threading
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cachetools import LRUCache

from perfkit._registry import load
from perfkit.tokens.estimator import Mix, measure
from perfkit.tokens.formulas import as_json, picture_tokens, tool_pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["TokenCounter"]

log = logging.getLogger("perfkit.tokens")

# OpenAI's chat formula (its cookbook, "How to count tokens"): every message costs 3 tokens beside its role (1 for the
# usual ones) and content, a name 1 more, and the reply is primed with 3.
PER_MESSAGE, PER_NAME, REPLY_PRIMING = 4, 1, 3
MEMO_ENTRIES: Final = 8192  # about 2.5 MB
MEMO_LEAST: Final = 128  # characters; counting shorter texts costs no more than remembering them

# The first pattern found in a model's name gives its tokenizer and a factor on the count. Claude models from 4.7 on
# read "approximately 30 percent more tokens" than those before (Anthropic's guide to token counting).
_FAMILIES = (
    (re.compile(r"claude-(?:[a-z]+-)?(?:4-[7-9]|[5-9])(?!\d)"), "claude2", 1.3),
    (re.compile(r"claude"), "claude2", 1.0),
    (re.compile(r"gpt-3|gpt-4(?![o.])|text-embedding"), "cl100k", 1.0),
    (re.compile(r"deepseek"), "deepseek", 1.0),
    (re.compile(r"mistral|ministral|magistral|codestral|devstral|pixtral|voxtral|mixtral"), "tekken", 1.0),
)
# tiktoken's names, the SHA-1 of each vocabulary's address (its file name on disk) and the SHA-256 of its content.
_VOCABULARIES = {
    "o200k": (
        "o200k_base",
        "fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
    "cl100k": (
        "cl100k_base",
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
}


@lru_cache(maxsize=1024)
def tokenizer_of(model: str | None) -> tuple[str, float]:
    """Return the tokenizer nearest to a model's own and a factor on its count; o200k for models not known."""
    name = (model if model is not None else "").lower()
    return next(((kind, factor) for pattern, kind, factor in _FAMILIES if pattern.search(name)), ("o200k", 1.0))


def _vocabulary_file(name: str) -> Path | None:
    """Return where tiktoken will look for a vocabulary; None when its cache is switched off."""
    directory = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if directory is None:
        import tempfile

        directory = str(Path(tempfile.gettempdir(), "data-gym-cache"))
    return Path(directory, name) if directory else None


def load_exact(tokenizer: str) -> Callable[[str], list[int]] | None:
    """Return tiktoken's encoder if that needs no download, else None.

    The content is checked too: tiktoken deletes a damaged file and fetches it again.
    """
    if tokenizer not in _VOCABULARIES or find_spec("tiktoken") is None:
        return None
    name, file_name, digest = _VOCABULARIES[tokenizer]
    file = _vocabulary_file(file_name)
    import hashlib  # loads OpenSSL, for 3 ms

    try:
        if file is None or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            return None
        encoder: Callable[[str], list[int]] = load("tiktoken:get_encoding")(name).encode_ordinary
    except Exception as error:  # an old tiktoken, a file that vanished: estimates do
        log.debug("counting by estimate: %s cannot be loaded: %s", name, error)
        return None
    return encoder


class TokenCounter:
    """Counts with memory; safe to use from many threads.

    What is remembered are lengths and hashes of texts, not the texts: no user's words are kept alive.
    """

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Make the lock new and forget what is remembered."""
        self._lock = threading.Lock()  # guards _memo and _exact
        self.clear()

    def clear(self) -> None:
        """Forget counts, and look for vocabularies anew."""
        with self._lock:
            self._memo: LRUCache[tuple[str, int, int], Mix] = LRUCache(MEMO_ENTRIES)
            self._exact: dict[str, Callable[[str], list[int]] | None] = {}

    def count(self, text: str, model: str | None = None) -> int:
        """Return the tokens of `text` for `model`, special tokens counted as plain text."""
        tokenizer, factor = tokenizer_of(model)
        return math.ceil(self._known(text, tokenizer).tokens * factor)

    def _known(self, text: str, tokenizer: str) -> Mix:
        if len(text) < MEMO_LEAST:
            return self._fresh(text, tokenizer)
        key = (tokenizer, len(text), hash(text))
        with self._lock:
            mix: Mix | None = self._memo.get(key)
        if mix is None:
            mix = self._fresh(text, tokenizer)
            with self._lock:
                self._memo[key] = mix
        return mix

    def _fresh(self, text: str, tokenizer: str) -> Mix:
        known, mix = self._exact, measure(text, tokenizer)
        exact = known[tokenizer] if tokenizer in known else self._load(tokenizer)
        if exact is None:
            return mix
        tokens = len(exact(text))
        share = tokens / max(1, mix.tokens)
        return Mix(tokens, mix.symbols * share, mix.beyond * share)

    def _load(self, tokenizer: str) -> Callable[[str], list[int]] | None:
        """Load a vocabulary once; other threads estimate meanwhile."""
        with self._lock:
            if tokenizer in self._exact:
                return self._exact[tokenizer]
            self._exact[tokenizer] = None
        encoder = load_exact(tokenizer)
        with self._lock:
            self._exact[tokenizer] = encoder
        return encoder

    def messages(self, messages: Iterable[Mapping[str, Any]], model: str | None = None) -> int:
        """Return the prompt tokens of a chat: contents, tool calls and what the chat format adds to them."""
        return self.prompt(messages, model).tokens

    def tools(self, tools: Iterable[Mapping[str, Any]] | None, model: str | None = None) -> int:
        """Return the prompt tokens of tool schemas."""
        return self._sum(tool_pieces(tools, model), model).tokens

    def as_json(self, value: Any, model: str | None = None) -> int:
        """Return the tokens of a value written as compact JSON."""
        return self.count(as_json(value), model)

    def prompt(
        self,
        messages: Iterable[Mapping[str, Any]],
        model: str | None = None,
        tools: Iterable[Mapping[str, Any]] | None = None,
        response_format: Mapping[str, Any] | None = None,
        tool_choice: Any = None,
    ) -> Mix:
        """Return the tokens of a whole prompt, and what they are made of."""
        pieces = [*_of_messages(messages, model), *tool_pieces(tools, model, tool_choice)]
        if response_format is not None:
            pieces.append(as_json(response_format))
        return self._sum(pieces, model)

    def _sum(self, pieces: Iterable[str | int], model: str | None) -> Mix:
        tokenizer, factor = tokenizer_of(model)
        tokens, symbols, beyond = 0, 0.0, 0.0
        for piece in pieces:
            if isinstance(piece, int):
                tokens += piece
            else:
                mix = self._known(piece, tokenizer)
                tokens += math.ceil(mix.tokens * factor)
                symbols, beyond = symbols + mix.symbols * factor, beyond + mix.beyond * factor
        return Mix(tokens, symbols, beyond)


def _of_messages(messages: Iterable[Mapping[str, Any]], model: str | None) -> list[str | int]:
    """Return the texts of a chat, and the tokens that what is no text takes."""
    found: list[str | int] = [REPLY_PRIMING]
    for message in messages:
        found += (PER_MESSAGE, *_of_content(message.get("content"), model))
        if name := message.get("name"):
            found += (PER_NAME, str(name))
        found += [as_json(call.get("function", call)) for call in message.get("tool_calls") or ()]
    return found


def _of_content(content: Any, model: str | None) -> list[str | int]:
    if content is None:
        return []
    return [content] if isinstance(content, str) else [piece for part in content for piece in _of_part(part, model)]


def _of_part(part: Any, model: str | None) -> list[str | int]:
    """Return what one part of a content is; other media than texts count as pictures."""
    if isinstance(part, str):
        return [part]
    if isinstance(text := part.get("text"), str):
        return [text]
    if part.get("type") == "tool_result":
        return _of_content(part.get("content"), model)
    return [as_json(part)] if part.get("type") == "tool_use" else [picture_tokens(part, model)]
