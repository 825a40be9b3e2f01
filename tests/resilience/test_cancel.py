from __future__ import annotations

import threading
from contextvars import copy_context

import pytest

from perfkit.errors import NetworkError
from perfkit.resilience.cancel import Scope, watch
from perfkit.testing.faults import FaultServer, hang
from perfkit.transport import HTTPClient


def test_everything_begun_inside_is_let_go_of_once() -> None:
    dropped: list[str] = []
    watch(lambda: dropped.append("outside"))
    with Scope() as outer:
        watch(lambda: dropped.append("outer"))
        with Scope() as inner:
            watch(lambda: dropped.append("inner"))
        inner.cancel()
        inner.cancel()
    outer.cancel()
    assert dropped == ["inner", "outer"]


def test_what_begins_after_the_end_is_dropped_at_once() -> None:
    scope, dropped = Scope(), []
    scope.cancel()
    with scope:
        watch(lambda: dropped.append(1))
    assert dropped == [1]


def test_a_thread_with_the_context_of_a_scope_belongs_to_it_and_another_does_not() -> None:
    dropped: list[str] = []
    with Scope() as scope:
        inside = threading.Thread(target=copy_context().run, args=(watch, lambda: dropped.append("inside")))
        outside = threading.Thread(target=watch, args=(lambda: dropped.append("outside"),))
        for thread in (inside, outside):
            thread.start()
            thread.join()
    scope.cancel()
    assert dropped == ["inside"]


def test_a_blocked_request_ends_at_once_and_the_server_notices(fault: FaultServer) -> None:
    fault.behave(hang())
    scope, ended = Scope(), []

    def ask() -> None:
        with scope, pytest.raises(NetworkError) as caught:
            HTTPClient(fault.base_url, 60, retries=0).post("/chat/completions", {"messages": []})
        ended.append(caught.value)

    thread = threading.Thread(target=ask)
    thread.start()
    fault.wait_until(lambda seen: seen["held"] == 1)
    scope.cancel()
    thread.join(10)
    assert len(ended) == 1
    fault.wait_until(lambda seen: seen["aborted_by_client"] == 1)
