"""A tiny llama model, made on first use, so that tests and the demo talk to a real server without a download.

It is made rather than shipped because nothing binary belongs in the repository or the wheel, and making it takes 0.3 s
(2 MB, standard library only); later uses find it in the user's cache directory.

The model is an exact word bigram table in the shape of a transformer. The corpus is small enough for byte-level BPE to
end with one token a word. Each of them has its own one-hot row in `token_embd`; the one block adds nothing, since
`attn_output` and `ffn_down` are zero; RMSNorm turns the one-hot row into sqrt(D) times itself; and `output` holds the
logarithm of how often each word follows, divided by sqrt(D). So an answer strings English words together as the corpus
does and ends where a paragraph may, and, as every logit is a sum with one term that is not zero, the text for a seed
depends neither on batching nor on the prompt cache.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import re
import struct
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["model_path"]

_CONTEXT = 8192  # tokens
_HEAD = 16  # width of the idle attention head and feed-forward layer
_NEVER = math.log(1e-6)  # for a pair never seen: far below the rarest one, yet a grammar can force the token
_END = "<|im_end|>"
_SPECIAL = ("<|endoftext|>", "<|im_start|>", _END)
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9  # GGUF's value types
_F32, _F16 = 0, 1  # ggml's tensor types
_ALIGNMENT = 32  # bytes; GGUF's default


def model_path(cache_dir: Path | None = None) -> Path:
    """Return the model's file, made now if it is not there yet; safe to call from many processes at once.

    Args:
        cache_dir: holds `perfkit/tiny-<hash>.gguf`; None means `$XDG_CACHE_HOME`, `~/.cache`, or, when that cannot be
            written, a directory under the system's temporary one.

    Raises:
        OSError: no directory can be written.
    """
    corpus = Path(__file__).with_name("corpus.txt").read_text("utf-8")
    maker = Path(__file__).read_bytes()  # a change here makes another file, as a change of the corpus does
    name = f"tiny-{hashlib.sha256(maker + corpus.encode()).hexdigest()[:12]}.gguf"
    *preferred, last = _roots() if cache_dir is None else [cache_dir]
    for root in preferred:
        try:
            return _made(root / "perfkit" / name, corpus)
        except OSError:
            continue
    return _made(last / "perfkit" / name, corpus)


def _roots() -> list[Path]:
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # noqa: PTH111 - never raises
    private = Path(tempfile.gettempdir()) / f"perfkit-{os.getuid()}"  # two users must not share it
    return [home, private] if home.is_absolute() else [private]


def _made(path: Path, corpus: str) -> Path:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            made = Path(scratch, path.name)
            made.write_bytes(_build(corpus))
            made.replace(path)  # atomic: another process sees the whole file or none
    return path


def _build(corpus: str) -> bytes:
    paragraphs = [_split(paragraph) for paragraph in corpus.split("\n\n")]
    merges = _train(Counter(itertools.chain.from_iterable(paragraphs)))
    tokens = [*_SPECIAL, *_alphabet(), *map("".join, merges)]
    newline = _alphabet()[ord("\n")]  # the last token of the chat template's prompt
    ends = itertools.cycle([newline, _END])  # an answer has two paragraphs on average
    follows = Counter(pair for words in paragraphs for pair in itertools.pairwise([newline, *words, next(ends)]))
    columns = {token: i for i, token in enumerate(dict.fromkeys(before for before, _ in follows))}
    return _gguf(_metadata(tokens, merges, len(columns)), _tensors(tokens, columns, follows))


# --- tokeniser


def _alphabet() -> list[str]:
    """Return GPT-2's printable character for each byte value."""
    spare = itertools.count(256)
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def _split(paragraph: str) -> list[str]:
    """Return the paragraph, unwrapped, as the words and marks that GPT-2's pattern would find, in byte characters."""
    words = re.findall(r" ?[A-Za-z]+| ?[,.]", " ".join(paragraph.split()))
    return [word.replace(" ", _alphabet()[ord(" ")]) for word in words]


def _train(words: Counter[str]) -> list[tuple[str, str]]:
    """Return the byte-pair merges, the most frequent first, that make each word one token (Sennrich et al., 2016)."""
    pieces = {word: list(word) for word in words}
    merges = []
    while pairs := _pairs(pieces, words):
        merges.append(max(pairs, key=lambda pair: (pairs[pair], pair)))
        merged = "".join(merges[-1])
        for word, parts in pieces.items():
            if merged in word:
                _merge(parts, *merges[-1])
    return merges


def _pairs(pieces: dict[str, list[str]], words: Counter[str]) -> Counter[tuple[str, str]]:
    pairs: Counter[tuple[str, str]] = Counter()
    for word, parts in pieces.items():
        for pair in itertools.pairwise(parts):
            pairs[pair] += words[word]
    return pairs


def _merge(parts: list[str], left: str, right: str) -> None:
    i = 0
    while i < len(parts) - 1:
        if parts[i] == left and parts[i + 1] == right:
            parts[i : i + 2] = [left + right]
        i += 1


# --- weights

_Tensor = tuple[str, tuple[int, ...], int, bytes]  # name, shape (innermost first), type, data


def _tensors(tokens: Sequence[str], columns: dict[str, int], follows: Counter[tuple[str, str]]) -> list[_Tensor]:
    width, vocabulary = len(columns), len(tokens)
    ones, zeros = struct.pack("<f", 1.0) * width, bytes(2 * _HEAD * width)
    inward, outward = (width, _HEAD), (_HEAD, width)
    idle = {"attn_q": inward, "attn_k": inward, "attn_v": inward, "attn_output": outward}
    idle |= {"ffn_gate": inward, "ffn_up": inward, "ffn_down": outward}
    return [
        ("token_embd.weight", (width, vocabulary), _F16, _one_hot(tokens, columns)),
        ("output_norm.weight", (width,), _F32, ones),
        ("output.weight", (width, vocabulary), _F16, _logarithms(tokens, columns, follows)),
        ("blk.0.attn_norm.weight", (width,), _F32, ones),
        ("blk.0.ffn_norm.weight", (width,), _F32, ones),
        *((f"blk.0.{name}.weight", shape, _F16, zeros) for name, shape in idle.items()),
    ]


def _one_hot(tokens: Sequence[str], columns: dict[str, int]) -> bytes:
    """Return the embedding rows; a token that no word of the corpus is shares the column of one that is."""
    data = bytearray(2 * len(columns) * len(tokens))
    for i, token in enumerate(tokens):
        struct.pack_into("<e", data, 2 * (i * len(columns) + columns.get(token, i % len(columns))), 1.0)
    return bytes(data)


def _logarithms(tokens: Sequence[str], columns: dict[str, int], follows: Counter[tuple[str, str]]) -> bytes:
    """Return the output rows: for each token, how often it follows each column's token."""
    scale = 1 / math.sqrt(len(columns))
    never = struct.pack("<e", _NEVER * scale) * len(columns)
    rows = {token: bytearray(never) for token in tokens}
    for (before, after), count in follows.items():
        struct.pack_into("<e", rows[after], 2 * columns[before], math.log(count) * scale)
    return b"".join(rows.values())


# --- file format (GGUF version 3, ggml/docs/gguf.md)


def _metadata(tokens: Sequence[str], merges: Iterable[tuple[str, str]], width: int) -> dict[str, object]:
    return {
        "general.architecture": "llama",
        "general.name": "perfkit tiny",
        "general.file_type": _F16,
        "llama.context_length": _CONTEXT,
        "llama.embedding_length": width,
        "llama.block_count": 1,
        "llama.feed_forward_length": _HEAD,
        "llama.attention.head_count": 1,
        "llama.attention.head_count_kv": 1,
        "llama.attention.key_length": _HEAD,
        "llama.attention.value_length": _HEAD,
        "llama.attention.layer_norm_rms_epsilon": 1e-6,
        "llama.rope.dimension_count": _HEAD,
        "llama.vocab_size": len(tokens),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": list(tokens),
        "tokenizer.ggml.token_type": [3 if token in _SPECIAL else 1 for token in tokens],  # control, normal
        "tokenizer.ggml.merges": [" ".join(pair) for pair in merges],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": _SPECIAL.index(_END),
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": _TEMPLATE,
    }


def _gguf(metadata: dict[str, object], tensors: Sequence[_Tensor]) -> bytes:
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    head += b"".join(_string(key) + _typed(value) for key, value in metadata.items())
    data = b""
    for name, shape, kind, raw in tensors:
        head += _string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, len(data))
        data += _padded(raw)
    return _padded(head) + data


def _padded(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % _ALIGNMENT)


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _typed(value: object) -> bytes:
    """Return the value behind its GGUF type."""
    match value:
        case bool():
            return struct.pack("<I?", _BOOL, value)
        case int():
            return struct.pack("<II", _UINT32, value)
        case float():
            return struct.pack("<If", _FLOAT32, value)
        case str():
            return struct.pack("<I", _STRING) + _string(value)
        case list() if isinstance(value[0], str):
            return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(map(_string, value))
        case list():
            return struct.pack(f"<IIQ{len(value)}i", _ARRAY, _INT32, len(value), *value)
    raise TypeError(f"no GGUF type for {type(value).__name__}")
