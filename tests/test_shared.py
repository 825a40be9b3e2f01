from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest

import perfkit
from perfkit.errors import ConfigError
from perfkit.profiling import Profiler

INSTANCES: dict[str, Any] = {
    "tracker": perfkit.PerformanceTracker,
    "connections": perfkit.ConnectionPool,
    "cache": perfkit.ResponseCache,
    "router": perfkit.ProviderRouter,
    "optimizer": perfkit.TokenOptimizer,
    "agent_pool": perfkit.AgentPool,
    "profiler": perfkit.Profiler,
    "gc_optimizer": perfkit.GCOptimizer,
    "client": perfkit.Client,
}


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout


def test_every_public_name_can_be_imported() -> None:
    for name in perfkit.__all__:
        assert getattr(perfkit, name) is not None
    assert set(perfkit.__all__) == set(dir(perfkit))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = perfkit.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", INSTANCES)
def test_a_shared_instance_keeps_its_identity(name: str) -> None:
    shared = getattr(perfkit, name)
    perfkit.configure(cache={"ttl": 1})
    perfkit.reset()
    assert shared is INSTANCES[name].instance()
    assert shared is getattr(perfkit, name)
    assert INSTANCES[name]() is not shared


def test_methods_belong_to_the_shared_client() -> None:
    assert perfkit.chat == perfkit.client.chat
    assert perfkit.profile == perfkit.profiler.profile


def test_threads_that_race_get_one_instance() -> None:
    class Racing(Profiler):
        made = 0

        def __init__(self, **settings: object) -> None:
            Racing.made += 1
            super().__init__(**settings)  # type: ignore[arg-type]

    barrier = threading.Barrier(16)
    got: list[Racing] = []

    def take() -> None:
        barrier.wait()
        got.append(Racing.instance())

    threads = [threading.Thread(target=take) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(one) for one in got}) == 1
    assert Racing.made == 1


def test_a_private_instance_refuses_unknown_settings() -> None:
    with pytest.raises(ConfigError, match="did you mean 'ttl'"):
        perfkit.ResponseCache(tttl=1)


def test_import_is_light_and_starts_nothing() -> None:
    heavy = [
        "urllib3",
        "requests",
        "ssl",
        "socket",
        "asyncio",
        "numpy",
        "redis",
        "cachetools",
        "logging",
        "dataclasses",
    ]
    out = run(
        "import sys, os, threading; before = set(os.listdir('/proc/self/fd')); had = set(sys.modules);"
        "import perfkit;"
        "print(threading.active_count(), len(set(os.listdir('/proc/self/fd')) - before),"
        f" [m for m in {heavy!r} if m in sys.modules and m not in had])"
    )
    assert out.split(maxsplit=2) == ["1", "0", "[]\n"]


def test_making_every_shared_object_opens_nothing() -> None:
    out = run(
        "import os, threading, socket;"
        "import perfkit; perfkit.client; perfkit.profiler; perfkit.connections;"
        "sockets = [f for f in os.listdir('/proc/self/fd') if os.path.realpath('/proc/self/fd/' + f).count('socket')];"
        "print(threading.active_count(), len(sockets))"
    )
    assert out.split() == ["1", "0"]
