"""What it costs to have a provider: making one, switching back to one that is kept, and writing a request.

    python benchmarks/providers.py [--quick] [--json]

Beside them: making and keeping the vendors' own clients, where they are installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

from perfkit.providers import ProviderCache, create_provider
from perfkit.values import ChatRequest

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "sk-benchmark-0123456789"
KINDS = ("openai", "openai_responses", "anthropic", "gemini", "ollama")
TALK: Any = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "What is a cache? " * 20}]
REQUEST = ChatRequest(TALK, "m", temperature=0.5, max_tokens=100)


def microseconds(call: Callable[[], Any], seconds: float) -> float:
    """Return CPU microseconds a call, the median of five runs."""
    call()
    runs = []
    for _ in range(5):
        count, began, end = 0, time.process_time(), time.monotonic() + seconds / 5
        while time.monotonic() < end:
            for _ in range(10):
                call()
            count += 10
        runs.append((time.process_time() - began) / count * 1e6)
    return round(statistics.median(runs), 2)


def targets() -> dict[str, Callable[[], Any]]:
    cache = ProviderCache(create_provider)
    settings: dict[str, Any] = {"api_key": KEY, "models": ["a", "b"], "timeout": 10.0}
    found: dict[str, Callable[[], Any]] = {
        "switch to a kept provider": lambda: cache.get("openai", **settings),
    }
    for kind in KINDS:
        found[f"make {kind}"] = lambda kind=kind: create_provider(kind, api_key=KEY)  # type: ignore[misc]
    for kind in KINDS:
        provider: Any = create_provider(kind, api_key=KEY)
        found[f"write a request, {kind}"] = lambda provider=provider: provider._written(REQUEST, stream=False)  # type: ignore[misc]
    for name, client in (("openai", "OpenAI"), ("anthropic", "Anthropic")):
        if importlib.util.find_spec(name) is not None:
            made = getattr(importlib.import_module(name), client)
            found[f"make {name}.{client}()"] = lambda made=made: made(api_key=KEY)  # type: ignore[misc]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="under ten seconds")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    seconds = 0.2 if options.quick else 1.5
    results = {}
    for name, call in targets().items():
        print(f"measuring {name} ...", file=sys.stderr)
        results[name] = microseconds(call, seconds)
    machine = f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} CPUs"
    if options.json:
        print(json.dumps({"machine": machine, "unit": "CPU microseconds", "results": results}))
        return
    print(machine)
    for name, value in results.items():
        print(f"{name:34} {value:12,.2f} us")


if __name__ == "__main__":
    main()
