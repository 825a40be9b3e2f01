"""Judge model selection by how much of the quality between a weak and a strong model each rule recovers.

    python benchmarks/selection.py --data DIRECTORY [--svg curve.svg] [--latency] [--json]

DIRECTORY holds RouteLLM's data: mmlu/*.csv (prompt, weak correct, strong correct; a file is a route) and
gsm8k_responses.csv (the same, with the answers' texts). Half of each file, at random, is feedback; the other half is
judged. APGR is the share of the gap between always-weak and always-strong recovered, averaged over all shares of calls
that go to the strong model: 0.5 is chance. Without --data a generated set shows that the parts work.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from perfkit.metrics import PerformanceTracker
from perfkit.tokens import TokenOptimizer
from perfkit.tokens.accounting import rule_of_thumb
from perfkit.values import ChatRequest, ChatResponse, Usage

WEAK, STRONG = "weak", "strong"
csv.field_size_limit(10**7)


class Item(NamedTuple):
    """One question: its route, and what each model made of it."""

    route: str
    prompt: str
    weak: float
    strong: float
    answers: tuple[str, ...] = ()


def truth(text: str) -> float:
    return float(text.strip().lower() in ("true", "1", "1.0"))


def read(directory: Path | None) -> dict[str, list[Item]]:
    """Return the items of each data set."""
    if directory is None:
        return {"generated": generated()}
    found: dict[str, list[Item]] = {"mmlu": [], "gsm8k": []}
    for path in [*sorted((directory / "mmlu").glob("*.csv")), directory / "gsm8k_responses.csv"]:
        name = "gsm8k" if path.stem.startswith("gsm8k") else "mmlu"
        with path.open(encoding="utf-8", newline="") as lines:
            rows = csv.reader(lines)
            next(rows)
            found[name] += [Item(path.stem, r[0], truth(r[1]), truth(r[2]), tuple(r[3:5])) for r in rows]
    return found


def generated() -> list[Item]:
    rng, items = random.Random(1), []
    for route in range(20):
        weak, gain = rng.uniform(0.4, 0.9), rng.uniform(-0.1, 0.4)
        for _ in range(100):
            words = "word " * rng.randrange(5, 60)
            items.append(Item(f"r{route}", words, float(rng.random() < weak), float(rng.random() < weak + gain)))
    return items


def halves(items: Sequence[Item], seed: int) -> tuple[list[Item], list[Item]]:
    mixed = list(items)
    random.Random(seed).shuffle(mixed)
    return mixed[::2], mixed[1::2]


def request(item: Item) -> ChatRequest:
    return ChatRequest([{"role": "user", "content": item.prompt}], WEAK, agent=item.route)


def learned(train: Sequence[Item]) -> Callable[[Item], float]:
    """Return the expected gain of the stronger model, from feedback on the other half."""
    optimizer = TokenOptimizer(tracker=PerformanceTracker())
    for item in train:
        for model, score in ((WEAK, item.weak), (STRONG, item.strong)):
            optimizer.feedback("", score, request=request(item).evolve(model=model))

    def gain(item: Item) -> float:
        strong, weak = (optimizer.predict_quality(request(item), model) for model in (STRONG, WEAK))
        assert strong is not None
        assert weak is not None
        return strong - weak

    return gain


def curve(items: Sequence[Item], gain: Callable[[Item], float], seed: int) -> list[float]:
    """Return the mean quality when 0, 1, ... 100 % of the items, those of most gain first, go to the strong model."""
    rng = random.Random(seed)
    ranked = sorted(items, key=lambda item: (-gain(item), rng.random()))
    gained, total = [0.0], sum(item.weak for item in items)
    for item in ranked:
        gained.append(gained[-1] + item.strong - item.weak)
    return [(total + gained[round(share * len(items) / 100)]) / len(items) for share in range(101)]


def apgr(points: Sequence[float]) -> float:
    weak, strong = points[0], points[-1]
    return fmean((point - weak) / (strong - weak) for point in points)


def judged(items: Sequence[Item], rounds: int) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Return APGR by rule, over several splits, and the curves of the first."""
    found: dict[str, list[float]] = {}
    curves: dict[str, list[float]] = {}
    for seed in range(rounds):
        train, test = halves(items, seed)
        noise = random.Random(seed)
        rules: dict[str, Callable[[Item], float]] = {
            "random": lambda _: noise.random(),  # noqa: B023 - called before the loop goes on
            "prompt length": lambda item: len(item.prompt),
            "ten words (RecoAgent)": lambda item: float(len(item.prompt.split()) >= 10),
            "feedback per route": learned(train),
        }
        for name, gain in rules.items():
            scores = {id(item): gain(item) for item in test}
            points = curve(test, lambda item: scores[id(item)], seed)  # noqa: B023
            found.setdefault(name, []).append(apgr(points))
            curves.setdefault(name, points)
    return {name: {"apgr": fmean(values), "least": min(values)} for name, values in found.items()}, curves


def lengths(items: Sequence[Item]) -> dict[str, Any]:
    """Return how well the length of held-out answers is predicted, beside the seed's rule, for each model."""
    found = {}
    for number, model in enumerate((WEAK, STRONG)):
        optimizer = TokenOptimizer(
            tracker=PerformanceTracker(), prices={model: {"input": 1, "output": 2}}, detect=False
        )
        train, test = halves([item for item in items if item.answers], 0)
        tokens = {id(item): optimizer.count_tokens(item.answers[number]) for item in (*train, *test)}
        for item in train:
            usage = Usage(optimizer.count_tokens(request(item).messages), tokens[id(item)])
            optimizer.observe(request(item).evolve(model=model), ChatResponse("", usage, model, "p"))
        off, thumb, covered, costs, thumb_costs = [], [], [], [], []
        for item in test:
            actual, asked = tokens[id(item)], request(item).evolve(model=model)
            predicted = optimizer.predict_cost(asked)
            assert predicted is not None
            off.append(abs(predicted.completion_tokens - actual) / actual)
            guess = rule_of_thumb(item.prompt, model)
            thumb.append(abs(guess - actual) / actual)
            covered.append(actual <= predicted.completion_p95)
            cost = optimizer.calculate_cost(Usage(predicted.prompt_tokens, actual), model)
            costs.append(abs(predicted - (cost or 0)) / (cost or 1))
            guessed = optimizer.calculate_cost(Usage(predicted.prompt_tokens, guess), model)
            thumb_costs.append(abs((guessed or 0) - (cost or 0)) / (cost or 1))
        found[model] = {
            "answers": len(test),
            "median_error_percent": 100 * median(off),
            "rule_of_thumb_percent": 100 * median(thumb),
            "p95_covers_percent": 100 * fmean(covered),
            "cost_median_error_percent": 100 * median(costs),
            "rule_of_thumb_cost_percent": 100 * median(thumb_costs),
        }
    return found


def latency(calls: int) -> dict[str, float]:
    """Return how well the time of held-out calls to a real llama.cpp server is predicted, beside RAAF's mean of all."""
    from perfkit.providers import create_provider
    from perfkit.testing.llm import LlamaServer

    optimizer, rng = TokenOptimizer(tracker=PerformanceTracker(), detect=False), random.Random(1)
    clock, off, covered, mean_off = optimizer._clock, [], [], []
    past: list[float] = []
    with LlamaServer(slots=1) as server:
        provider = create_provider("openai", base_url=server.base_url, api_key="k")
        for number in range(calls):
            bound = rng.choice([40, 160, 640])
            text = f"A cache keeps the answer. {number}"
            extra = {"ignore_eos": True, "seed": number}
            asked = ChatRequest([{"role": "user", "content": text}], "tiny", max_tokens=bound, extra=extra)
            predicted = optimizer.predict_latency(asked)
            began = clock.now()
            response = provider.chat_completion(asked)
            seconds = clock.now() - began
            if predicted is not None and number >= calls // 2:
                off.append(abs(predicted - seconds) / seconds)
                covered.append(seconds <= predicted.p95)
                mean_off.append(abs(fmean(past) - seconds) / seconds)
            if number < calls // 2:
                optimizer.observe(asked, response, seconds)
                past.append(seconds)
    return {
        "calls": len(off),
        "median_error_percent": 100 * median(off),
        "p95_covers_percent": 100 * fmean(covered),
        "mean_of_all_percent": 100 * median(mean_off),
    }


def svg(curves: dict[str, list[float]]) -> str:
    """Return a chart of quality over the share of calls that go to the strong model."""
    low, high = min(map(min, curves.values())), max(map(max, curves.values()))
    colours = ("#999999", "#d98c21", "#7a5fb0", "#1f77b4")
    lines = []
    for number, ((name, points), colour) in enumerate(zip(curves.items(), colours, strict=False)):
        path = " ".join(f"{50 + 5 * n:.0f},{320 - 280 * (y - low) / (high - low):.1f}" for n, y in enumerate(points))
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines.append(f'<text x="380" y="{230 + 18 * number}" fill="{colour}">{name}</text>')
    axes = '<path d="M50 30V320H550" fill="none" stroke="#333"/>'
    labels = (
        f'<text x="300" y="345">calls to the strong model, %</text><text x="5" y="45">{high:.3f}</text>'
        f'<text x="5" y="320">{low:.3f}</text><text x="50" y="20">share of right answers</text>'
    )
    style = 'viewBox="0 0 600 360" font-family="sans-serif" font-size="12"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {style}>{axes}{"".join(lines)}{labels}</svg>\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="directory of RouteLLM's data")
    parser.add_argument("--svg", type=Path, help="file for the curve of cost and quality")
    parser.add_argument("--latency", action="store_true", help="predict a real llama.cpp server's times too")
    parser.add_argument("--quick", action="store_true", help="fewer splits")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    for name, items in read(options.data).items():
        table, curves = judged(items, 2 if options.quick else 20)
        found[name] = {"items": len(items), **table}
        if options.svg is not None and name != "gsm8k":
            options.svg.write_text(svg(curves))
        if any(item.answers for item in items):
            found["answer length"] = lengths(items)
    if options.latency:
        found["latency"] = latency(80)
    if options.json:
        json.dump(found, sys.stdout, indent=1)
        return
    for name, rows in found.items():
        print(name)
        for rule, row in rows.items():
            print(f"  {rule:24}", {k: round(v, 3) for k, v in row.items()} if isinstance(row, dict) else row)


if __name__ == "__main__":
    main()
