from __future__ import annotations

import pytest

from perfkit.clock import FakeClock
from perfkit.memory import compaction
from perfkit.memory.compaction import Compaction


class Machine:
    """Time and processor time that go on as told."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.cpu = 0.0

    def made(self) -> Compaction:
        return Compaction(100.0, now=self.clock.now, cpu=lambda: self.cpu)

    def go(self, seconds: float, *, busy: bool = False) -> None:
        self.clock.advance(seconds)
        self.cpu += seconds if busy else 0.0


def test_it_waits_for_its_time_and_a_quiet_moment() -> None:
    machine = Machine()
    made = machine.made()
    machine.go(90)
    assert not made.due()
    machine.go(20, busy=True)
    assert not made.due()
    machine.go(10)
    assert made.due()


def test_it_does_not_wait_for_ever() -> None:
    machine = Machine()
    made = machine.made()
    machine.go(200, busy=True)
    assert made.due()


def test_trims_that_gain_little_become_rarer(monkeypatch: pytest.MonkeyPatch) -> None:
    gains = [0, 0, 0, 0, 2**40]
    monkeypatch.setattr(compaction, "trim", lambda: gains.pop(0))
    machine = Machine()
    made = machine.made()
    waits = []
    for _ in range(6):
        waited = 0
        while not made.due():
            machine.go(100)
            waited += 100
        waits.append(waited)
        if gains:
            made.run()
    assert waits == [100, 200, 400, 800, 800, 100]
    assert (made.trims, made.gained) == (5, 2**40)
