"""Estimate token counts in pure Python, without a vocabulary, for the OpenAI, Claude, DeepSeek and Mistral families.

A text is encoded to UTF-8, each byte is put into one of 16 classes (vowel, digit, bracket ...), and each pair of
neighbouring classes has a weight in tokens: how words, digits and punctuation begin and go on is what counts. What is
not ASCII is told by lead bytes too, and by the spaces around. The weights are package data, fitted by
benchmarks/fit_tokens.py; benchmarks/tokens.py measures the error. Python does nothing for each byte: `bytes.translate`
finds classes, one shift of the whole text as an integer makes pairs, and Adler-32, whose lower half is a sum of bytes,
adds their weights.
"""

from __future__ import annotations

import json
import string
from functools import cache
from importlib import resources
from typing import Any, Final, NamedTuple
from zlib import adler32

__all__ = ["TOKENIZERS", "Mix", "estimate", "measure"]

SAMPLED_ABOVE: Final = 16 * 1024  # characters; longer texts are judged by samples
WINDOWS, WINDOW = 16, 512  # that many evenly spaced samples of that many characters

TOKENIZERS: Final = ("o200k", "cl100k", "claude2", "deepseek", "tekken")
STEP: Final = 0.005  # tokens that 1 in a table of pairs stands for
_BLOCK = 65_520 // 255  # bytes whose sum Adler-32 tells without wrapping

_LETTERS = (b"aeiou", b"tnsrhldcm", b"pgfywbvkjxzq")
_SYMBOLS = (b".,;:!?", b"\"'`", b"()[]{}<>", b"/\\-_", b"=+*#%&$@^|~")
_BEYOND = (bytes(range(0xC2, 0xCE)), bytes(range(0xCE, 0xF5)), bytes(range(0x80, 0xC0)))  # Latin, others, inside
_GROUPS = (b"", *_LETTERS, string.ascii_uppercase.encode(), string.digits.encode(), b" ", b"\n", *_SYMBOLS, *_BEYOND)
_CLASSES = bytes(next((n for n, group in enumerate(_GROUPS) if byte in group), 0) for byte in range(256))
_IN_WORDS, _FIRST_BEYOND = (1, 2, 3, 6), 13  # classes of letters and the space; the first that is not ASCII


def _pairs_but(kept: list[bool]) -> bytes:
    return bytes(code for code in range(256) if not kept[code & 15])


_NOT_WORDS = _pairs_but([of in _IN_WORDS for of in range(16)])
_NOT_SYMBOLS = _pairs_but([of not in _IN_WORDS and of < _FIRST_BEYOND for of in range(16)])
_NOT_BEYOND = _pairs_but([of >= _FIRST_BEYOND for of in range(16)])
_ASCII, _INSIDE = bytes(range(0x80)), bytes(range(0x80, 0xC0))
# Second bytes that are counted apart, by lead byte: letters with accents, and scripts that share a lead byte.
_APART = {
    bytes((lead,)): tuple([bytes((lead, second)) for second in seconds])
    for lead, seconds in {
        0xC2: b"\xa0\xab\xbb\xb7",
        0xC3: b"\xa9\xa4\xb6\xa1\xad\xbc\xb3\xa7\xa3\xa0\xa8\xa5\xa6\xb8\xba\xbd\xaa\xb1\xa2\xae\xb4\x9f",
        0xC4: b"\xb1\x8d\x85\x99\x9b\x83\x87\x9f\x91\x81\xab\x93\x97",
        0xC5: b"\x82\x9f\xa1\xbe\xbc\xaf\x99\x91\x9b\xb1\xab",
        0xC6: b"\xa1\xb0",
        0xC8: b"\x99\x9b",
        0xD1: b"\x8b\x96\x8d\x97\x98\x8a\x8f\x8c",
        0xE0: bytes((0xA4, 0xA5, 0xB8, 0xB9, *range(0xA6, 0xB8), 0xBA, 0xBB)),
        0xE1: b"\xbb\xba\x83\x9e\x9f\x80\x81\x82\x88\x89\x8a\x8b",
        0xE2: b"\x80",
        0xE3: b"\x81\x83\x82\x80",
        0xEF: b"\xbc\xb8",
    }.items()
}
_ONE = tuple(bytes((byte,)) for byte in range(256))
_QUOTES, _QUOTE = b"\xe2", b"\xe2\x80"  # how quotes and dashes begin, and arrows and the like with the first alone
_RARE = 70  # one byte inside characters in so many tells no language
_FEW = 256  # bytes beyond ASCII of which a set costs less than what it spares
_ABOVE_LATIN, _SPACED = b"\xce", (*_ONE[0xCE:0xE2], *_ONE[0xEA:0xEE])  # scripts with spaces between words
_NEAR = 3  # spaces and new lines that an accented letter tells the language of


class Mix(NamedTuple):
    """Tokens of a text, and how many of them are what: the rest are words of plain letters, and their spaces."""

    tokens: int
    symbols: float = 0.0  # digits, capitals, punctuation, new lines
    beyond: float = 0.0  # all that is not ASCII


class Weights(NamedTuple):
    """Tokens for each occurrence, as fitted for one tokenizer."""

    pairs: bytes  # by 16 x class of the byte before + class of the byte, in STEPs
    marks: dict[bytes, float]  # as `marks` names them


@cache
def _weights(tokenizer: str) -> Weights:
    text = resources.files(__package__).joinpath("estimator.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)[tokenizer]
    return Weights(bytes(found["pairs"]), {bytes.fromhex(name): weight for name, weight in found["marks"].items()})


def estimate(text: str, tokenizer: str = "o200k") -> int:
    """Return about how many tokens `tokenizer` makes of `text`, between a 16th of its UTF-8 bytes and all of them.

    Texts above 16 K characters are judged by 16 samples of 512. Special tokens count as plain text.
    """
    return measure(text, tokenizer).tokens


def measure(text: str, tokenizer: str = "o200k") -> Mix:
    """Return what `estimate` returns, and what it is made of."""
    if not text:
        return Mix(0)
    if len(text) <= SAMPLED_ABOVE:
        return _whole(text, _weights(tokenizer))
    step = len(text) / WINDOWS
    starts = (int(step * i + (step - WINDOW) / 2) for i in range(WINDOWS))
    sample = "".join([text[start : start + WINDOW] for start in starts])
    times = len(text) / len(sample)
    tokens, symbols, beyond = _whole(sample, _weights(tokenizer))
    return Mix(round(tokens * times), symbols * times, beyond * times)


def _whole(text: str, weights: Weights) -> Mix:
    raw = text.encode("utf-8", "surrogatepass")
    size, pairs = len(raw), class_pairs(raw)
    words, symbols = _added(pairs, weights, _NOT_WORDS), _added(pairs, weights, _NOT_SYMBOLS)
    beyond = 0.0
    if size != len(text):
        beyond = _added(pairs, weights, _NOT_BEYOND)
        beyond += sum([count * weights.marks.get(name, 0.0) for name, count in marks(raw, len(text)).items()])
    tokens = int(words + symbols + beyond) + 1
    if -(-size // 16) <= tokens <= size:
        return Mix(tokens, symbols, beyond)
    tokens, spread = max(-(-size // 16), min(size, tokens)), abs(symbols) + abs(beyond) + size
    return Mix(tokens, tokens * abs(symbols) / spread, tokens * abs(beyond) / spread)


def class_pairs(raw: bytes) -> bytes:
    """Return, for each byte, 16 x the class of the byte before (0: none) + its own class."""
    size = len(raw)
    classes = int.from_bytes(raw.translate(_CLASSES), "little")
    return (classes | classes << 12).to_bytes(size + 1, "little")[:size]


def _added(pairs: bytes, weights: Weights, dropped: bytes) -> float:
    each = pairs.translate(weights.pairs, dropped)
    return STEP * sum([adler32(each[at : at + _BLOCK], 0) & 0xFFFF for at in range(0, len(each), _BLOCK)])


def marks(raw: bytes, characters: int) -> dict[bytes, int]:
    """Count what is not ASCII: lead bytes, some with the byte after them, those that begin words, and spaces."""
    if (len(raw) - characters) * _RARE <= len(raw):
        return {}
    beyond = raw.translate(None, _ASCII)
    leads = beyond.translate(None, _INSIDE)
    if not leads.strip(_QUOTES):  # as in most prose
        return {_QUOTES: len(leads), _QUOTE: beyond.count(_QUOTE)}
    present = set(beyond if len(beyond) < _FEW else b"")
    found: dict[bytes, int] = {}
    accents = 0
    for lead in map(_ONE.__getitem__, set(leads)):
        left = found[lead] = leads.count(lead)
        accents += left if lead < _ABOVE_LATIN else 0
        for pair in _APART.get(lead, ()):
            if not present or pair[1] in present:
                found[pair] = count = beyond.count(pair)
                left -= count
                if not left:
                    break
    starts = [b" " + mark for mark, count in found.items() if count and mark.startswith(_SPACED)]
    found.update({start: raw.count(start) for start in starts})
    if accents:
        found[b" "], found[b"\n"] = min(raw.count(b" "), _NEAR * accents), min(raw.count(b"\n"), _NEAR * accents)
    return found
