"""Judge token estimates against exact counts, and time counting and pricing.

    python benchmarks/tokens.py --samples samples.jsonl.gz

Each line of the samples is {"kind", "text", "<tokenizer>": exact count, ...}, with "split" when some were used to fit
the estimator ("train") and some were not ("test"). The error of a tokenizer is the mean over kinds of text of the mean
absolute error of a text, in percent of the exact count; beside it stands that of "four characters a token".
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from timeit import repeat
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from perfkit.tokens import TokenOptimizer
from perfkit.tokens.estimator import TOKENIZERS, estimate
from perfkit.values import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

Sample = dict[str, Any]


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
    """Return the best of five runs, a call."""
    return min(repeat(call, number=number, repeat=5)) / number * 1e6


def print_errors(samples: list[Sample]) -> None:
    for split in sorted({sample.get("split", "unnamed") for sample in samples}):
        chosen = [sample for sample in samples if sample.get("split", "unnamed") == split]
        kinds = {sample["kind"] for sample in chosen}
        print(f"\nmean absolute error, split {split!r}: {len(chosen)} texts of {len(kinds)} kinds")
        for tokenizer in (name for name in TOKENIZERS if name in chosen[0]):
            ours = errors(chosen, tokenizer, lambda text, name=tokenizer: estimate(text, name))  # type: ignore[misc]
            quarter = fmean(errors(chosen, tokenizer, lambda text: max(1, len(text) // 4)).values())
            worst = max(ours, key=lambda kind: ours[kind])
            print(
                f"  {tokenizer:9} {fmean(ours.values()):5.1f} %   len/4 {quarter:5.1f} %"
                f"   worst kind: {worst} {ours[worst]:.1f} %"
            )


def print_speed(samples: list[Sample]) -> None:
    text = "\n".join(sample["text"] for sample in samples)
    optimizer = TokenOptimizer()
    print("\nspeed, best of 5")
    for size, number in ((100, 2000), (2_000, 500), (16_000, 100), (100_000, 100)):
        piece = text[len(text) // 3 :][:size]
        kilobytes = len(piece.encode()) / 1000
        spent = microseconds(lambda: estimate(piece), number)  # noqa: B023 - called before the loop goes on
        print(f"  estimate {size:7} characters {spent:8.1f} us {spent / kilobytes:6.2f} us/KB")
    usage, chat = Usage(1000, 200, cached_tokens=500), [{"role": "user", "content": text[i:][:500]} for i in range(40)]
    optimizer.count_tokens(chat)
    print(
        f"  chat of 40 known messages of 500 characters {microseconds(lambda: optimizer.count_tokens(chat), 50):.1f} us"
    )
    print(f"  calculate_cost {microseconds(lambda: optimizer.calculate_cost(usage, 'gpt-4o'), 20_000):.2f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=Path, required=True, help="JSON lines, plain or gzipped")
    samples = read(parser.parse_args().samples)
    print(f"Python {platform.python_version()}, {platform.machine()}")
    print_errors(samples)
    print_speed(samples)


if __name__ == "__main__":
    main()
