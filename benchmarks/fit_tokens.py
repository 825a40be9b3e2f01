"""Fit the token estimator to texts with exact counts, and write its weights.

    python benchmarks/fit_tokens.py SAMPLES... [--to perfkit/tokens/estimator.json]

Each file holds JSON lines, plain or gzipped, {"kind", "text", "<tokenizer>": exact count, ...}, with "split" where some
are held out ("test" and "held" are skipped), and "weight" where some matter less than 1. Kinds weigh the same, however
many texts they have. What is minimised is the
mean absolute relative error: least squares, reweighted by the error of the round before, with each pair of classes kept
between 0 tokens and what a byte of a table holds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.tokens import read
from perfkit.tokens.estimator import STEP, TOKENIZERS, class_pairs, marks

Array = NDArray[np.float64]
PAIRS, ROUNDS, SWEEPS, RIDGE = 256, 15, 100, 1e-4
OUT = Path(__file__).resolve().parent.parent / "perfkit/tokens/estimator.json"


def features(texts: list[str]) -> tuple[Array, list[bytes]]:
    """Return how often each text has each pair of classes, then each mark, and the names of the marks."""
    raws = [text.encode("utf-8", "surrogatepass") for text in texts]
    found = [marks(raw, len(text)) for raw, text in zip(raws, texts, strict=True)]
    names = sorted({name for each in found for name in each})
    table = np.zeros((len(texts), PAIRS + len(names)))
    for row, raw, each in zip(table, raws, found, strict=True):
        row[:PAIRS] = np.bincount(np.frombuffer(class_pairs(raw), np.uint8), minlength=PAIRS)
        row[PAIRS:] = [each.get(name, 0) for name in names]
    return table, names


def fit(table: Array, exact: Array, importance: Array) -> Array:
    """Return the weights that minimise the mean absolute relative error."""
    relative = table / exact[:, None]
    scale = np.sqrt((relative**2 * importance[:, None]).sum(0) / importance.sum())
    used = scale > 0
    relative = relative[:, used] / scale[used]
    low = np.where(np.arange(len(scale)) < PAIRS, 0.0, -np.inf)[used] * scale[used]
    high = np.where(np.arange(len(scale)) < PAIRS, 255 * STEP, np.inf)[used] * scale[used]
    found, off = np.clip(np.zeros(used.sum()), low, high), np.ones(len(exact))
    for _ in range(ROUNDS):
        weight = importance / np.maximum(np.abs(off), 0.06)
        inner = (relative * weight[:, None]).T @ relative + RIDGE * weight.sum() * np.eye(used.sum())
        found = within(inner, (relative * weight[:, None]).sum(0), found, low, high)
        off = relative @ found - 1
    result = np.zeros(len(scale))
    result[used] = found / scale[used]
    return result


def within(inner: Array, outer: Array, start: Array, low: Array, high: Array) -> Array:
    """Solve inner @ x = outer, each x between its bounds, one x after the other."""
    found, slope, diagonal = start.copy(), inner @ start - outer, inner.diagonal()
    for _ in range(SWEEPS):
        for at in range(len(found)):
            new = min(max(found[at] - slope[at] / diagonal[at], low[at]), high[at])
            if new != found[at]:
                slope += inner[at] * (new - found[at])
                found[at] = new
    return found


def importances(samples: list[dict[str, Any]]) -> Array:
    """Weigh each text so that kinds weigh the same."""
    count = Counter(sample["kind"] for sample in samples)
    return np.array([sample.get("weight", 1) / count[sample["kind"]] for sample in samples])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("samples", type=Path, nargs="+")
    parser.add_argument("--to", type=Path, default=OUT)
    options = parser.parse_args()
    samples: list[dict[str, Any]] = [sample for path in options.samples for sample in read(path)]
    samples = [sample for sample in samples if sample.get("split") not in ("test", "held")]
    table, names = features([sample["text"] for sample in samples])
    importance, data = importances(samples), {}
    for tokenizer in TOKENIZERS:
        exact = np.array([sample[tokenizer] for sample in samples], float)
        found = fit(table, exact, importance)
        error = np.abs(table @ found / exact - 1) @ importance / importance.sum()
        print(f"{tokenizer:10} {len(samples)} texts, mean error {100 * error:.2f} % on themselves")
        pairs = [round(float(weight) / STEP) for weight in found[:PAIRS]]
        named = {name.hex(): round(float(weight), 4) for name, weight in zip(names, found[PAIRS:], strict=True)}
        data[tokenizer] = {"pairs": pairs, "marks": named}
    lines = ",\n".join(f'"{name}": {json.dumps(row, separators=(",", ":"))}' for name, row in data.items())
    options.to.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
