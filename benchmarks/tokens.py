"""Judge token estimates against exact counts, and time counting and pricing.

    python benchmarks/tokens.py [--samples samples.jsonl.gz] [--json]

Each line of the samples is {"kind", "text", "<tokenizer>": exact count, ...}, with "split" when some were used to fit
the estimator ("train") and some were not ("test"). The error of a tokenizer is the mean over kinds of text of the mean
absolute error of a text, in percent of the exact count; beside it stands that of "four characters a token".
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from timeit import repeat
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from perfkit.tokens import TokenOptimizer
from perfkit.tokens.estimator import TOKENIZERS, estimate, measure
from perfkit.tokens.learning import Experience
from perfkit.values import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

Sample = dict[str, Any]


HELD_OUT = Path(__file__).resolve().parent / "texts/held_out.jsonl.gz"


def read(path: Path) -> list[Sample]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def errors(samples: list[Sample], tokenizer: str, count: Callable[[str], float]) -> dict[str, float]:
    """Return the mean absolute error in percent by kind of text."""
    by_kind: dict[str, list[float]] = defaultdict(list)
    for sample in samples:
        by_kind[sample["kind"]].append(abs(count(sample["text"]) / sample[tokenizer] - 1) * 100)
    return {kind: fmean(values) for kind, values in by_kind.items()}


def microseconds(call: Callable[[], object], number: int) -> float:
    """Return the best of many short runs, a call: on a busy machine a long one is never undisturbed."""
    short = max(1, number // 20)
    return min(repeat(call, number=short, repeat=100)) / short * 1e6


def judged(samples: list[Sample]) -> dict[str, Any]:
    """Return, by split and tokenizer, the error of the estimator and of len/4 in percent, and the worst kind."""
    found: dict[str, Any] = {}
    for split in sorted({sample.get("split", "unnamed") for sample in samples}):
        chosen = [sample for sample in samples if sample.get("split", "unnamed") == split]
        for tokenizer in (name for name in TOKENIZERS if name in chosen[0]):
            ours = errors(chosen, tokenizer, lambda text, name=tokenizer: estimate(text, name))  # type: ignore[misc]
            quarter = errors(chosen, tokenizer, lambda text: max(1, len(text) // 4))
            worst = max(ours, key=lambda kind: ours[kind])
            found[f"{split} {tokenizer}"] = {
                "texts": len(chosen),
                "kinds": len(ours),
                "error_percent": fmean(ours.values()),
                "len_4_error_percent": fmean(quarter.values()),
                "worst": {worst: ours[worst]},
            }
    return found


def learned(samples: list[Sample], tokenizer: str) -> dict[str, float]:
    """Return the error on the second half of each kind's texts, of counts by o200k for another tokenizer.

    "learned" is corrected by the factors that the first half has taught, each kind of text being a route.
    """
    experience, by_kind = Experience(), defaultdict(list)
    for sample in samples:
        by_kind[sample["kind"]].append((measure(sample["text"]), sample[tokenizer]))
    raw, corrected = [], []
    for kind, texts in by_kind.items():
        half = len(texts) // 2
        for mix, exact in texts[:half]:
            experience.correct(kind, "m", mix, exact)
        raw.append(fmean(abs(mix.tokens / exact - 1) for mix, exact in texts[half:]))
        factors = [experience.factor(kind, "m", mix) for mix, _ in texts[half:]]
        corrected.append(fmean(abs(m.tokens * f / n - 1) for (m, n), f in zip(texts[half:], factors, strict=True)))
    return {"raw_percent": 100 * fmean(raw), "learned_percent": 100 * fmean(corrected)}


def _per_kilobyte(text: str, size: int, number: int) -> float:
    piece = (text * (1 + size // len(text)))[:size]
    return microseconds(lambda: estimate(piece), number) / (len(piece.encode()) / 1000)


def speed(samples: list[Sample]) -> dict[str, float]:
    """Return microseconds, the best of many runs."""
    text = "\n".join(sample["text"] for sample in samples)
    optimizer, found = TokenOptimizer(), {}
    for size, number in ((100, 2000), (2_000, 500), (16_000, 100), (100_000, 100)):
        found[f"estimate {size} characters of all kinds, us/KB"] = _per_kilobyte(text, size, number)
    for kind in ("en_prose", "py_code", "json_default"):
        of_kind = "\n".join(sample["text"] for sample in samples if sample["kind"] == kind)
        if of_kind:
            found[f"estimate 2000 characters of {kind}, us/KB"] = _per_kilobyte(of_kind, 2_000, 500)
    usage, chat = Usage(1000, 200, cached_tokens=500), [{"role": "user", "content": text[i:][:500]} for i in range(40)]
    optimizer.count_tokens(chat)
    found["chat of 40 known messages, us"] = microseconds(lambda: optimizer.count_tokens(chat), 50)
    found["calculate_cost, us"] = microseconds(lambda: optimizer.calculate_cost(usage, "gpt-4o"), 20_000)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=Path, default=HELD_OUT, help="JSON lines, plain or gzipped")
    parser.add_argument("--quick", action="store_true", help="the same: it takes a few seconds")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options = parser.parse_args()
    samples = read(options.samples)
    found: dict[str, Any] = {"errors": judged(samples), "speed": speed(samples)}
    enough = 4 * len({sample["kind"] for sample in samples}) <= len(samples)  # halves of each kind teach and are judged
    others = [name for name in TOKENIZERS if enough and name != "o200k" and name in samples[0]]
    found["never fitted"] = {name: learned(samples, name) for name in others}
    if options.json:
        json.dump(found, sys.stdout, indent=1)
        return
    for name, row in found["errors"].items():
        error, quarter = row["error_percent"], row["len_4_error_percent"]
        print(f"{name:20} {row['texts']} texts: {error:5.1f} %   len/4 {quarter:5.1f} %   worst {row['worst']}")
    for name, row in found["never fitted"].items():
        off, left = row["raw_percent"], row["learned_percent"]
        print(f"{name:20} counted as o200k: {off:5.1f} %   with the learned factor {left:5.1f} %")
    for name, value in found["speed"].items():
        print(f"{name:36} {value:8.2f}")


if __name__ == "__main__":
    main()
