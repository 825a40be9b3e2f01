"""The application that all servers run: perfkit as users configure it, and, before any fork, used to the worst.

Where the server imports it in the parent, that process has chatted, so that a pooled connection is open and the
background thread runs; it has metrics that are not sent yet, both in a series and in the sink; and another thread holds
every lock at the moment of the fork. Once its children are gone it asks again.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from _servers import polled, processes_of
from servers import locks

import perfkit

__all__ = ["answer"]

BORN = os.getpid()  # where it was imported
UWSGI = "uwsgi" in sys.modules
FLUSH = (
    1.0 if UWSGI else 30.0
)  # seconds until what the parent has recorded is sent: at its end, but uWSGI's runs no atexit

perfkit.configure(
    providers={"fault": {"kind": "openai", "base_url": os.environ["LLM"], "api_key": "not-needed"}},
    connections={"ca_file": os.environ["CA"]},
    client={"default_model": "tiny"},
    metrics={"statsd": os.environ["STATSD"], "flush_interval": FLUSH},
    tokens={
        "fallback_price": {"input": 1.0, "output": 1.0},
        "budgets": [{"scope": "global", "limit": 1000.0, "period": "day"}],
    },
)


def answer(question: str) -> dict[str, Any]:
    """Ask, and tell of the process that asked."""
    if "BARE" not in os.environ:  # what looks at no process id is right only where a hook has run
        perfkit.tracker.increment("arrived")
        perfkit.cache.get(question)
    text = _ask(question)
    perfkit.tracker.increment("asked")
    if perfkit.tracker.settings.flush_interval == FLUSH:  # in workers only what their end flushes shall be sent
        perfkit.tracker.configure(flush_interval=3600.0)
    return {
        "question": question,
        "text": text,
        "pid": os.getpid(),
        "born": BORN,
        "background": polled(_background_threads),  # another request may just be starting it
        "held": locks.held(),
        "stuck": locks.stuck(os.getpid()),
    }


@perfkit.profile("ask")
def _ask(question: str) -> str:
    if question.endswith("7"):
        with perfkit.stream(question) as deltas:
            return "".join(deltas)
    return perfkit.chat(question, temperature=0).text


def _background_threads() -> int:
    """Count those that the kernel knows in this process too: under uWSGI those of the parent look alive."""
    named = [thread for thread in threading.enumerate() if thread.name == "perfkit-background"]
    return sum(Path(f"/proc/self/task/{thread.native_id}").exists() for thread in named)


def _use() -> None:
    for name in perfkit.__all__:  # all shared instances are there
        getattr(perfkit, name)
    perfkit.chat(f"before {BORN}", model="before")
    perfkit.tracker.increment("arrived", 0)  # so that children inherit the series
    _leave_unsent()


def _leave_unsent() -> None:
    perfkit.tracker.increment("unsent")
    packed = perfkit.tracker.handle("packed")
    packed.record(1.0)
    packed.flush()


def _before_fork() -> None:
    _leave_unsent()
    locks.hold()


def _ask_again() -> None:
    if os.getpid() == BORN:
        perfkit.chat(f"after {BORN}", model="after")


def _ask_again_when_childless() -> None:
    """Stand in for atexit, which uWSGI does not run in its master."""
    time.sleep(locks.MOST)  # by then there are children
    polled(lambda: processes_of(os.getsid(0)) == [BORN])
    _ask_again()


_use()
if not UWSGI:
    atexit.register(_ask_again)
    os.register_at_fork(before=_before_fork, after_in_parent=locks.release)
elif sys.modules["uwsgi"].worker_id() == 0:  # the master
    threading.Thread(target=_ask_again_when_childless, daemon=True).start()
    locks.hold()
