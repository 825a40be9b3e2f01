"""Measure prefix caching: a real llama.cpp server's own count, the vendors' prices by their rules, the detector's cost.

    python benchmarks/prefix.py [--quick] [--json]

An agent of 20 turns with 12 tools, 2,000 tokens of system prompt and the time in its first line is sent as written and
laid out. The server has one slot, renders tools and system prompt at the head (its template knows no tools) and reports
how many prompt tokens it had. The same requests are priced by the simulator under two vendors' rules.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from perfkit.metrics import PerformanceTracker
from perfkit.providers import create_provider
from perfkit.testing.llm import LlamaServer
from perfkit.tokens import TokenOptimizer
from perfkit.tokens.prefix import Detector, prompt_of, rule_of, simulate
from perfkit.values import ChatRequest

CORPUS = (Path(__file__).resolve().parent.parent / "perfkit/testing/corpus.txt").read_text()
STAMP_PATTERN = re.compile(r"Current time: [^\n]*\n?")
MODELS = {"openai": "gpt-5", "anthropic": "claude-sonnet-4-5"}
SYSTEM_TOKENS, TOOLS, GAP = 2000, 12, 20.0


def tools() -> list[dict[str, Any]]:
    made = []
    for number in range(TOOLS):
        fields = {"key": {"type": "string"}, "limit": {"type": "integer"}}
        function = {"name": f"tool_{number}", "description": "Read the cache and answer the user.", "strict": True}
        made.append(
            {"type": "function", "function": {**function, "parameters": {"type": "object", "properties": fields}}}
        )
    return made


def system_prompt(optimizer: TokenOptimizer) -> str:
    end = 0
    while optimizer.count_tokens(CORPUS[:end], "gpt-5") < SYSTEM_TOKENS:
        end += 100
    return CORPUS[:end]


def written(turn: int, history: list[dict[str, Any]], system: str, model: str, rng: random.Random) -> ChatRequest:
    """Return a request as people write it: the time first, tools in the order a set gives them."""
    shuffled = tools()
    rng.shuffle(shuffled)
    head = f"Current time: 2026-11-20 14:{turn:02d}:{rng.randrange(60):02d}\n{system}"
    return ChatRequest([{"role": "system", "content": head}, *history], model, tools=shuffled, max_tokens=24)


def rendered(request: ChatRequest) -> ChatRequest:
    """Return what the small model's server is sent: tools in front of the system prompt, as vendors put them."""
    head, *talk = [{"role": m["role"], "content": _flat(m["content"])} for m in request.messages]
    head["content"] = json.dumps(request.tools) + "\n" + head["content"]
    return request.evolve(messages=(head, *talk), tools=None, model="tiny", extra={"id_slot": 0})


def _flat(content: Any) -> str:
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def series(turns: int, *, laid_out: bool, model: str, server: LlamaServer | None) -> tuple[list[ChatRequest], Any]:
    """Return the requests of an agent's run, and the share of prompt tokens that the server had."""
    optimizer = TokenOptimizer(tracker=PerformanceTracker())
    system, rng = system_prompt(optimizer), random.Random(7)
    provider = create_provider("openai", base_url=server.base_url, api_key="k") if server is not None else None
    history: list[dict[str, Any]] = []
    sent, prompt, cached = [], 0, 0
    for turn in range(turns):
        question = CORPUS[turn * 300 : turn * 300 + 200].strip()
        history.append({"role": "user", "content": question})
        request = written(turn, history, system, model, rng)
        if laid_out:
            request = optimizer.layout(request, volatile=[STAMP_PATTERN])
        sent.append(request)
        answer = "I will look that up and tell you what the cache says about it."
        if provider is not None:
            response = provider.chat_completion(rendered(request))
            answer, usage = response.text, response.usage
            prompt, cached = prompt + usage.prompt_tokens, cached + usage.cached_tokens
        history.append({"role": "assistant", "content": answer})
    return sent, (cached / prompt if prompt else None, prompt)


def priced(turns: int, vendor: str) -> dict[str, float]:
    """Return the input cost of both ways, in input tokens, by a vendor's rules."""
    model = MODELS[vendor]
    rule = rule_of(model)
    assert rule is not None
    optimizer, found = TokenOptimizer(tracker=PerformanceTracker()), {}
    for name, laid_out in (("as_written", False), ("laid_out", True)):
        requests, _ = series(turns, laid_out=laid_out, model=model, server=None)
        prompts = [
            prompt_of(request, rule, at=GAP * n, count=lambda text: optimizer.count_tokens(text, model))
            for n, request in enumerate(requests)
        ]
        found[name] = sum(bill.cost for bill in simulate(prompts, rule))
    return {**found, "ratio": found["laid_out"] / found["as_written"]}


def detector_cost(rounds: int) -> dict[str, float]:
    """Return microseconds to look at requests of 100 KB, whose head is the same, and whose head differs."""
    text = (CORPUS * (1 + 100_000 // len(CORPUS)))[:100_000]
    found = {}
    for name, stamp in (("same", "Time: {0}"), ("differs", "Time: 14:{1:02d}:{2:02d}")):
        detector, times = Detector(), []
        for n in range(rounds):
            head = stamp.format(0, n // 60 % 60, n % 60)
            messages = [{"role": "system", "content": f"{head}\n{text}"}, {"role": "user", "content": str(n)}]
            request = ChatRequest(messages, "gpt-5", tools=tools())
            began = perf_counter()
            detector.look("route", request)
            times.append(perf_counter() - began)
        found[name] = median(times[5:]) * 1e6
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="10 turns")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options = parser.parse_args()
    turns = 10 if options.quick else 20
    found: dict[str, Any] = {"turns": turns}
    with LlamaServer(slots=1, context=8192) as server:
        for name, laid_out in (("as_written", False), ("laid_out", True)):
            share, prompt = series(turns, laid_out=laid_out, model="gpt-5", server=server)[1]
            found[f"cached_share_{name}"], found[f"prompt_tokens_{name}"] = share, prompt
    for vendor in MODELS:
        found[f"input_cost_{vendor}"] = priced(turns, vendor)
    found["detector_us_per_100_kb"] = detector_cost(50)
    if options.json:
        json.dump(found, sys.stdout, indent=1)
        return
    print(f"{turns} turns on llama.cpp: cached share of prompt tokens, by the server's own usage")
    print(f"  as written {found['cached_share_as_written']:6.1%}   laid out {found['cached_share_laid_out']:6.1%}")
    for vendor in MODELS:
        row = found[f"input_cost_{vendor}"]
        print(f"input cost by the rules of {vendor}: laid out {row['ratio']:.3f}x of as written")
    print("detector, us for 100 KB:", {name: round(us) for name, us in found["detector_us_per_100_kb"].items()})


if __name__ == "__main__":
    main()
