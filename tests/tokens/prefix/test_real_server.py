"""The share of prompt tokens that a real llama.cpp server says it had."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from _parts import needs_module

import perfkit
from perfkit.testing.llm import LlamaServer

SYSTEM = "A cache keeps the answer to a question that was asked before. Make the wait short and the app is fast. " * 20


@pytest.fixture(scope="module")
def server() -> Any:
    needs_module("xllamacpp")
    with LlamaServer(slots=1, context=4096) as server:
        yield server


def run(turns: int) -> float:
    """Return the share of prompt tokens that came from the server's cache, over an agent's turns."""
    rng, history, usages = random.Random(1), [], []
    for turn in range(turns):
        history.append({"role": "user", "content": f"Make the wait short. {turn}"})
        settings = json.dumps(dict(rng.sample([(f"key{n}", n) for n in range(9)], 9)))
        head = f"Current time: 2026-11-20 14:{turn:02d}:00\n{SYSTEM}"
        answer = perfkit.chat([{"role": "system", "content": head}, *history], max_tokens=12, context={"s": settings})
        usages.append(answer.usage)
        history.append({"role": "assistant", "content": answer.text or "."})
    return sum(usage.cached_tokens for usage in usages) / sum(usage.prompt_tokens for usage in usages)


@pytest.mark.parametrize(
    ("settings", "judge"),
    [
        ({"layout": False}, lambda share: share <= 0.05),
        ({"layout": True, "volatile": (r"Current time: [^\n]*\n",)}, lambda share: share >= 0.85),
    ],
    ids=["as written", "laid out"],
)
def test_layout_makes_the_server_find_what_it_had(
    server: LlamaServer, settings: dict[str, Any], judge: Callable[[float], bool]
) -> None:
    perfkit.configure(
        providers={"local": {"kind": "openai", "base_url": server.base_url, "api_key": "k"}},
        client={"default_model": "tiny"},
        tokens=settings,
    )
    share = run(14)
    assert judge(share), share
    found = [row["cause"] for row in perfkit.optimizer.prefix_report()]
    assert found == ([] if settings["layout"] else ["timestamp"])
