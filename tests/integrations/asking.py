"""What the tests of both SDKs ask, and how they look at what came of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from perfkit.testing.faults import FaultServer
from perfkit.transport import ConnectionPool

SECRET = "sk-this-must-not-be-seen-0123456789"


def said(text: str = "one two three") -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}]}


def failure(call: Callable[[], Any]) -> tuple[type | None, type | None]:
    """Return the class of what `call` raises and, if that is an SDK's, of what the transport raised."""
    try:
        call()
    except Exception as error:
        return type(error), None if type(error).__module__.startswith("httpx") else type(error.__cause__)
    return None, None


def totals(connections: ConnectionPool) -> dict[str, float]:
    (counts,) = connections.stats().values()
    return counts


def all_free(connections: ConnectionPool) -> bool:
    return totals(connections)["in_use"] == 0


def wrong_answers(ask: Callable[[str], str], who: str, calls: int = 15) -> list[tuple[str, str]]:
    """Return what was asked and answered, where the answer is another's."""
    wrong = []
    for number in range(calls):
        text = f"{who} {number}"
        answer = ask(text)
        if answer != f"echo: {text}":
            wrong.append((text, answer))
    return wrong


def in_threads(count: int, work: Callable[[int], list[Any]]) -> list[Any]:
    """Run `work(number)` in threads that begin together; return all that they return."""
    gate, found, guard = threading.Barrier(count), list[Any](), threading.Lock()

    def run(number: int) -> None:
        gate.wait()
        mine = work(number)
        with guard:
            found.extend(mine)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def settled(server: FaultServer) -> dict[str, Any]:
    """Return the server's counters once nothing is in flight."""
    return server.wait_until(lambda counters: counters["in_flight"] == 0)
