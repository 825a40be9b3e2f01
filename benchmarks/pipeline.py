"""What perfkit adds to one call: CPU per chat through everything, beside the same POST through a bare urllib3 pool.

Paired runs in one process against a server in its own: rounds of each in turn, so that a noisy machine slows both.

    python benchmarks/pipeline.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib import resources
from typing import Any

import urllib3

import perfkit
from perfkit.testing import FaultServer, isolated

TEXT = (resources.files("perfkit.testing") / "corpus.txt").read_text()
MESSAGES = [{"role": "system", "content": TEXT[:1000]}, {"role": "user", "content": TEXT[1000:2000]}]  # 2 KB of prose


def cpu_us(call: Callable[[], object], times: int) -> float:
    """Return microseconds of this process's CPU per call."""
    started = time.process_time()
    for _ in range(times):
        call()
    return 1e6 * (time.process_time() - started) / times


def paired(calls: dict[str, Callable[[], object]], rounds: int, times: int) -> dict[str, float]:
    """Return the median over `rounds` of each call's CPU microseconds, taken in turn."""
    for call in calls.values():
        cpu_us(call, times // 4)
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(cpu_us(call, times))
    return {name: statistics.median(values) for name, values in taken.items()}


def bare_urllib3(server: FaultServer) -> Callable[[], object]:
    """Return the POST that a chat makes, through a pool handle of urllib3 and nothing else."""
    pool = urllib3.HTTPConnectionPool("127.0.0.1", server.port, maxsize=4, block=True)
    headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-test"}

    def call() -> object:
        body = json.dumps({"model": "tiny", "messages": MESSAGES, "temperature": 0}).encode()
        return json.loads(pool.urlopen("POST", "/v1/chat/completions", body=body, headers=headers).data)

    return call


def litellm_router(server: FaultServer) -> Callable[[], object] | None:
    """Return the same chat through litellm.Router, None where litellm is not installed."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it asks the internet for prices at import
    try:
        import litellm
    except ImportError:
        return None
    parameters = {"model": "openai/tiny", "api_base": server.base_url, "api_key": "sk-test"}
    router = litellm.Router(model_list=[{"model_name": "tiny", "litellm_params": parameters}])
    return lambda: router.completion("tiny", MESSAGES, temperature=0)


def measure(*, rounds: int, times: int) -> dict[str, Any]:
    """Return CPU microseconds a call of each way, and what perfkit adds."""
    tables: dict[str, Any] = {
        "providers": {"local": {"kind": "openai", "api_key": "sk-test"}},
        "tokens": {"prices": {"tiny": {"input": 0.15, "output": 0.60}}},
    }
    with FaultServer() as server:
        tables["providers"]["local"]["base_url"] = server.base_url
        with isolated(**tables):
            number = iter(range(10**9))
            calls: dict[str, Callable[[], object]] = {
                "bare urllib3 pool handle": bare_urllib3(server),
                "perfkit.chat, not cacheable": lambda: perfkit.chat(MESSAGES, model="tiny", cache="never"),
                "perfkit.chat, cache miss": lambda: perfkit.chat(
                    MESSAGES, model="tiny", temperature=0, context={"n": next(number)}
                ),
                "perfkit.chat, miss of new words": lambda: perfkit.chat(
                    [MESSAGES[0], {"role": "user", "content": f"{next(number)} {MESSAGES[1]['content']}"}],
                    model="tiny",
                    temperature=0,
                ),
                "perfkit.chat, cache hit": lambda: perfkit.chat(MESSAGES, model="tiny", temperature=0),
            }
            rival = litellm_router(server)
            if rival is not None:
                calls["litellm.Router"] = rival
            taken = paired(calls, rounds, times)
    bare = taken["bare urllib3 pool handle"]
    return {
        "cpu_us_per_call": taken,
        "added_by_a_miss_us": taken["perfkit.chat, cache miss"] - bare,
        "added_by_a_miss_of_new_words_us": taken["perfkit.chat, miss of new words"] - bare,
        "hit_us": taken["perfkit.chat, cache hit"],
        "ratio_to_bare": {name: us / bare for name, us in taken.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds instead of half a minute")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options = parser.parse_args()
    found = measure(rounds=3, times=150) if options.quick else measure(rounds=9, times=500)
    if options.json:
        json.dump(found, sys.stdout, indent=2)
        return
    for name, us in found["cpu_us_per_call"].items():
        print(f"{name:30} {us:8.1f} us CPU   x{found['ratio_to_bare'][name]:.2f}")
    words = found["added_by_a_miss_of_new_words_us"]
    print(f"a miss adds {found['added_by_a_miss_us']:.1f} us, {words:.1f} us with 1 KB of words never read before")
    print(f"a hit costs {found['hit_us']:.1f} us")


if __name__ == "__main__":
    main()
