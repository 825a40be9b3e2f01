"""Fit the weights by which the smart cache policy tells personal questions, and write them.

    python benchmarks/fit_leaning.py --banking77 train.csv --clinc150 data.json --mmlu FOLDER [--to FILE]

Logistic regression by stochastic gradients (AdaGrad, with weights that matter little drawn to 0), to labelled texts:
the tests' lists, of "mixed" and "veiled" every other line alone, so that the rest can judge; and as questions of
anybody the intents of banking77 and CLINC150 with an even number, but those that ask for somebody's own state, and
every other subject of MMLU. What is learned of one word of a kind (leaning_kinds.txt) is learned of all of them.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from math import exp, sqrt
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.cache_policy import STATES, Labelled, banking77, clinc150
from perfkit.caching.leaning import LENGTH_NAMES, STEP, features
from perfkit.caching.vocabulary import TO_SPACE

ROOT = Path(__file__).resolve().parent.parent
EPOCHS, RATE, SHRINK, SEED, RARE = 18, 0.12, 8e-6, 1, 2
SHIFT = 1.0  # added to what is found: sharing what is somebody's is worse than asking again
BANK, CLINC = 0.04, 1.0
LONG_ONES = 300  # of each label
LONGEST = 300  # characters of a question of MMLU

Feature = str | tuple[str, ...]
Example = tuple[list[Feature], int, float]  # what it has, whether it is personal, how much it counts


def kinds() -> dict[str, list[str]]:
    """Return, by word, the kinds it is of."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in (ROOT / "benchmarks/leaning_kinds.txt").read_text(encoding="utf-8").splitlines():
        kind, *words = line.split()
        for word in words if kind != "#" else ():
            found[word].append(kind)
            found[f"{word}'s"].append(kind)
    return dict(found)


def seen(text: str, kinds_of: dict[str, list[str]]) -> list[Feature]:
    found = features(text, text.lower().translate(TO_SPACE).split())
    return [*found, *(kind for one in found if isinstance(one, str) for kind in kinds_of.get(one, ()))]


def lines(name: str, step: int = 1) -> list[str]:
    return (ROOT / f"tests/data/{name}_prompts.txt").read_text(encoding="utf-8").splitlines()[::step]


def even(labelled: Labelled) -> list[str]:
    """Return the texts of every other intent, but those that ask for somebody's own state."""
    chosen = set(sorted({intent for _, intent in labelled})[::2]) - STATES
    return [text for text, intent in labelled if intent in chosen]


def subjects(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("*.csv"))[::2]:
        with path.open(encoding="utf-8", newline="") as rows:
            questions = [row["prompt"].split("\nA. ")[0] for row in csv.DictReader(rows)]
        yield from (question for question in questions if len(question) < LONGEST)


def joined(texts: list[str]) -> list[str]:
    """Return long texts made of short ones: a document is somebody's too."""
    chosen = random.Random(SEED)
    return [". ".join(chosen.sample(texts, 4)) for _ in range(LONG_ONES)]


def examples(options: argparse.Namespace) -> list[Example]:
    own = lines("mixed_personal", 2) + lines("taught_personal") + lines("veiled", 2)
    anybodys = lines("mixed_public", 2) + lines("taught_public")
    sets = [
        (own, 1, 3.0),
        (joined(own), 1, 1.0),
        (lines("personal"), 1, 2.0),
        (anybodys, 0, 3.0),
        (joined(anybodys), 0, 1.0),
        (lines("general"), 0, 2.0),
        (lines("ordinary") + lines("current"), 0, 9.0),
        (even(clinc150(options.clinc150)), 0, CLINC),
        (even(banking77(options.banking77)), 0, BANK),
        (list(subjects(options.mmlu)), 0, 0.1),
    ]
    kinds_of = kinds()
    return [(seen(text, kinds_of), label, counts) for texts, label, counts in sets for text in texts]


class Model:
    """Weights of features, and how much each has moved so far."""

    def __init__(self, given: list[Example]) -> None:
        often = Counter(feature for found, _, _ in given for feature in set(found))
        self.weights: dict[Feature, float] = {feature: 0.0 for feature, count in often.items() if count >= RARE}
        self._moved = dict.fromkeys(self.weights, 1e-3)
        self._touched = dict.fromkeys(self.weights, 0)
        self._steps = 0

    def learn(self, found: list[Feature], label: int, counts: float) -> None:
        self._steps += 1
        score = sum([self.weights[one] for one in found])
        off = (1 / (1 + exp(-max(-30.0, min(30.0, score)))) - label) * counts
        for one in found:
            self._moved[one] += off * off
            self._step(one, off)

    def settle(self) -> None:
        """Draw those to 0 that were not seen of late."""
        for one in self.weights:
            self._step(one, 0.0)

    def _step(self, one: Feature, off: float) -> None:
        rate = RATE / sqrt(self._moved[one])
        moved = self.weights[one] - rate * off
        drawn = rate * SHRINK * (self._steps - self._touched[one])
        self._touched[one] = self._steps
        self.weights[one] = moved - drawn if moved > drawn else moved + drawn if moved < -drawn else 0.0


def fit(given: list[Example]) -> dict[Feature, float]:
    model = Model(given)
    known = [([one for one in found if one in model.weights], label, counts) for found, label, counts in given]
    order = random.Random(SEED)
    for _ in range(EPOCHS):
        order.shuffle(known)
        for found, label, counts in known:
            model.learn(found, label, counts)
        model.settle()
    return model.weights


def folded(weights: dict[Feature, float]) -> dict[Feature, int]:
    """Return whole steps: the weights of kinds go to their words, the shift to the lengths, of which a text has one."""
    kinds_of = kinds()
    single = {one: weights.get(one, 0.0) for one in weights | dict.fromkeys(kinds_of, 0.0)}
    for word, of in kinds_of.items():
        single[word] += sum(weights.get(kind, 0.0) for kind in of)
    for length in LENGTH_NAMES:
        single[length] = single.get(length, 0.0) + SHIFT
    gone = {kind for of in kinds_of.values() for kind in of}
    whole = {one: round(weight / STEP) for one, weight in single.items() if one not in gone}
    return {one: weight for one, weight in whole.items() if weight and _can_be_written(one)}


def _can_be_written(one: Feature) -> bool:
    words = (one,) if isinstance(one, str) else one
    return not any("_" in word or "#" in word or not word.strip() for word in words)


def table(weights: dict[Feature, int]) -> str:
    rows = defaultdict(list)
    for one, weight in weights.items():
        rows[weight].append(one if isinstance(one, str) else "_".join(one))
    head = (
        "# By benchmarks/fit_leaning.py; in part of banking77 (PolyAI, CC BY 4.0), CLINC150 (CC BY 3.0), MMLU (MIT).\n"
        f"# Each line: a weight in steps of {STEP}, above 0 for what is somebody's own, and all that has it.\n"
    )
    return head + "".join(f"{weight} {' '.join(sorted(rows[weight]))}\n" for weight in sorted(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--banking77", type=Path, required=True, help="CSV with text and category")
    parser.add_argument("--clinc150", type=Path, required=True, help="JSON object of lists of [text, intent]")
    parser.add_argument("--mmlu", type=Path, required=True, help="folder of CSV files with prompt")
    parser.add_argument("--to", type=Path, default=ROOT / "perfkit/caching/leaning.txt")
    options = parser.parse_args()
    weights = folded(fit(examples(options)))
    options.to.write_text(table(weights), encoding="utf-8")
    print(f"{len(weights)} weights")


if __name__ == "__main__":
    main()
