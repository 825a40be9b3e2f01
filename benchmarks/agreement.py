"""Let `perfkit bench` measure the bundled model, and compare what it says with the server's own count.

    python benchmarks/agreement.py [--quick] [--json]

The server counts tokens and the seconds it computes (/metrics); what a prompt is to it, it tells by /apply-template and
/tokenize. It counts no requests: they are its prompt tokens, divided by those of one prompt. Tokens a second are its
tokens over the time between two looks at its counters. Its time of a request is what it computes, and what it takes to
split the prompt into tokens, asked for alone. Prompts are long there, so that little else is left.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import sys
import tempfile
import time
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from perfkit import cli
from perfkit.bench.loading import PROMPTS
from perfkit.testing.llm import LlamaServer

CORPUS = (Path(__file__).resolve().parent.parent / "perfkit/testing/corpus.txt").read_text().split()
LONG = 6500  # words of a long prompt: some 7,300 tokens, and the model takes 8,192
MOST = 2.0  # percent by which the two may differ


@dataclass(frozen=True)
class Figure:
    """One figure, told by both."""

    load: str
    figure: str
    bench: float
    server: float

    @property
    def difference(self) -> float:
        """Percent by which the benchmark's is larger than the server's."""
        return 100 * (self.bench / self.server - 1)


class Watched:
    """A server whose own figures are asked for."""

    def __init__(self, server: LlamaServer) -> None:
        self.server = server

    def counters(self) -> dict[str, float]:
        """Return what /metrics has."""
        with urllib.request.urlopen(f"{self.server.root_url}/metrics") as reply:
            lines = [line.split() for line in reply.read().decode().splitlines() if not line.startswith("#")]
        return {name.removeprefix("llamacpp:"): float(value) for name, value in lines}

    def tokens(self, prompt: str) -> int:
        """Return the tokens that a prompt is to the server."""
        prepared = self._asked("/apply-template", {"messages": [{"role": "user", "content": prompt}]})["prompt"]
        return len(
            self._asked("/tokenize", {"content": prepared, "add_special": True, "parse_special": True})["tokens"]
        )

    def _asked(self, path: str, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.server.root_url + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)

    def measured(self, *arguments: str) -> tuple[dict[str, Any], dict[str, float]]:
        """Run `perfkit bench`; return its row, how much each counter grew, and the seconds between the looks."""
        out = io.StringIO()
        before, began = self.counters(), time.perf_counter()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            cli.main(["bench", "--url", self.server.base_url, "--warm-up", "0", "--json", *arguments])
        seconds, after = time.perf_counter() - began, self.counters()
        [row] = json.loads(out.getvalue())["rows"]
        return row, {name: after[name] - before[name] for name in before} | {"seconds": seconds}


def counted(watched: Watched, load: str, requests: int, *arguments: str) -> list[Figure]:
    """Return what is counted, of so many requests under one load."""
    row, grown = watched.measured("--requests", str(requests), *arguments)
    prompt = grown["prompt_tokens_total"] + grown["prompt_tokens_cached_total"]
    asked = prompt / mean(watched.tokens(text) for text in PROMPTS)
    output = grown["tokens_predicted_total"]
    return [
        Figure(load, "requests", row["requests"] - row["errors"], asked),
        Figure(load, "prompt tokens", row["prompt_tokens"], prompt),
        Figure(load, "of these cached", row["cached_tokens"], grown["prompt_tokens_cached_total"]),
        Figure(load, "generated tokens", row["completion_tokens"], output),
        Figure(load, "tokens a second", row["output_tokens_per_second"], output / grown["seconds"]),
    ]


def timed(watched: Watched, rounds: int) -> list[Figure]:
    """Return what is timed: of requests one by one, each with a long prompt that is new, the one in the middle."""
    chance = random.Random(7)
    found = [_answered(watched, " ".join(chance.choices(CORPUS, k=LONG))) for _ in range(rounds)]
    return [sorted(figures, key=lambda one: one.difference)[rounds // 2] for figures in zip(*found, strict=True)]


def _answered(watched: Watched, prompt: str) -> list[Figure]:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump([prompt], file)
        file.flush()
        row, grown = watched.measured("--requests", "1", "--prompts", file.name)
    [sample] = row["samples"]
    first, whole = sample["first_token_ms"], sample["latency_ms"]
    began = time.perf_counter()
    watched.tokens(prompt)
    splitting = 1000 * (time.perf_counter() - began)
    reading, writing = (1000 * grown[f"{name}_seconds_total"] for name in ("prompt", "tokens_predicted"))
    return [
        Figure("a long prompt", "ms from the first to the last token", whole - first, writing),
        Figure("a long prompt", "ms to the first token", first, splitting + reading),
        Figure("a long prompt", "ms end to end", whole, splitting + reading + writing),
    ]


def run(*, quick: bool) -> list[Figure]:
    """Return all figures."""
    short, many, long = (30, 60, 3) if quick else (150, 600, 15)
    figures = []
    with LlamaServer(slots=8) as server:
        watched = Watched(server)
        watched.measured("--requests", "3")  # the first request of a server is slower
        figures += counted(watched, "1 at a time", short)
        figures += counted(watched, "4 at a time", many, "--concurrency", "4")
        figures += counted(watched, "20 a second", short, "--rate", "20")
    with LlamaServer(slots=1, context=8192) as server:
        watched = Watched(server)
        watched.measured("--requests", "3")
        figures += timed(watched, long)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer requests")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = run(quick=options.quick)
    if options.json:
        print(json.dumps([{**asdict(one), "difference": one.difference} for one in figures], indent=1))
    else:
        print(f"{'load':16}{'figure':38}{'perfkit bench':>14}{'server':>14}{'differ by':>11}")
        for one in figures:
            print(f"{one.load:16}{one.figure:38}{one.bench:14,.2f}{one.server:14,.2f}{one.difference:9.2f} %")
    off = [one for one in figures if abs(one.difference) > MOST]
    for one in off if not options.quick else ():
        print(f"more than {MOST:g} % apart: {one.load}, {one.figure}", file=sys.stderr)
    return int(bool(off) and not options.quick)


if __name__ == "__main__":
    sys.exit(main())
