"""Locks that are taken without queueing for them."""

from __future__ import annotations

import threading

import pytest

from perfkit import _taking
from perfkit._taking import taken


class Counted:
    """A lock that is given at its nth try."""

    def __init__(self, given_at: int) -> None:
        self.given_at = given_at
        self.tries: list[bool] = []

    def acquire(self, blocking: bool = True) -> bool:
        self.tries.append(blocking)
        return blocking or len(self.tries) >= self.given_at


def test_a_free_lock_is_taken_at_once() -> None:
    lock = threading.Lock()
    assert taken(lock) is lock
    assert lock.locked()


def test_a_lock_in_use_is_tried_again_without_queueing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_taking, "PAUSE", 0.0)
    lock = Counted(given_at=5)
    taken(lock)  # type: ignore[arg-type]
    assert lock.tries == [False] * 5


def test_who_has_tried_for_long_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_taking, "PAUSE", 0.0)
    lock = Counted(given_at=1000)
    taken(lock)  # type: ignore[arg-type]
    assert lock.tries == [False] * (1 + _taking.TRIES) + [True]
