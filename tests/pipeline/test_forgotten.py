"""Streams that nobody closes."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from _servers import Datagrams, environment, polled

import perfkit
from perfkit.testing import FaultServer, faults


@pytest.fixture(autouse=True)
def _configured(fault: FaultServer) -> None:
    fault.behave(faults.ok("word " * 2000, interval=0.02))
    perfkit.configure(
        providers={"local": {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}},
        client={"default_model": "tiny"},
    )


def forget() -> None:
    stream = perfkit.stream("hi")
    next(stream)
    box = [stream]
    box.append(box)  # type: ignore[arg-type]  # only the collector finds it


def test_the_collector_may_find_a_stream_while_any_lock_is_held(fault: FaultServer) -> None:
    candidate, optimizer = perfkit.router._candidates["local"], perfkit.optimizer

    def collected() -> None:
        with candidate._lock, optimizer._budgets._lock, optimizer._usage._lock:
            gc.collect()

    forget()
    thread = threading.Thread(target=collected, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    fault.wait_until(lambda counters: counters["aborted_by_client"] == 1)
    polled(lambda: perfkit.router.health()["local"]["in_flight"] == 0)


def test_a_forgotten_stream_is_counted_like_one_that_was_left(fault: FaultServer) -> None:
    stream = perfkit.stream("hi")
    next(stream)
    del stream
    polled(perfkit.optimizer.get_usage_report)
    assert perfkit.optimizer.get_usage_report()["default"]["tiny"]["request_count"] == 1
    assert fault.stats()["requests"] == 1


@pytest.mark.parametrize("end", [list, perfkit.ChatStream.close])
def test_a_stream_that_was_ended_leaves_nothing_to_do(
    end: Callable[[perfkit.ChatStream], object], fault: FaultServer
) -> None:
    fault.behave()
    stream = perfkit.stream("one two three")
    next(stream)
    assert stream._forgotten is not None
    assert stream._forgotten.alive
    end(stream)
    assert not stream._forgotten.alive


OPEN_AT_EXIT = """
import sys, perfkit
provider = {"kind": "openai", "base_url": sys.argv[1], "api_key": "k"}
perfkit.configure(providers={"local": provider}, client={"default_model": "tiny"}, metrics={"statsd": sys.argv[2]})
stream = perfkit.stream("hi")
next(stream)
"""


def test_a_stream_still_open_when_the_process_ends_is_closed_and_counted(fault: FaultServer) -> None:
    with Datagrams() as heard:
        run = subprocess.run(
            [sys.executable, "-c", OPEN_AT_EXIT, fault.base_url, heard.address],
            env=environment(), capture_output=True, text=True, timeout=15, check=False,
        )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    assert heard.count("token_usage.*") > 0
    fault.wait_until(lambda counters: counters["aborted_by_client"] == 1)


def test_streams_forgotten_under_load_stop_nobody() -> None:
    program = Path(__file__).with_name("forgetting.py")
    run = subprocess.run(
        [sys.executable, str(program)], env=environment(), capture_output=True, text=True, timeout=90, check=False
    )
    assert run.stdout == "done\n", run.stderr
