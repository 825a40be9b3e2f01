from __future__ import annotations

import dis
import itertools
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty
from types import FrameType
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from transport.peers import until

from perfkit.transport import slots as slots_module
from perfkit.transport.slots import FairLifo


class Interrupted(BaseException): ...


def full(size: int) -> FairLifo:
    slots = FairLifo(size)
    slots.clear()
    return slots


def test_slots_start_empty_as_urllib3_fills_them() -> None:
    slots = FairLifo(3)
    for _ in range(3):
        slots.put(None)
    assert slots.qsize() == 3
    slots.put(None)
    assert slots.qsize() == 3


def test_most_recently_used_connection_is_taken_first_and_empty_slots_last() -> None:
    slots = full(3)
    for _ in range(3):
        slots.get()
    for item in ("old", None, "new"):
        slots.put(item)
    assert [slots.get() for _ in range(3)] == ["new", "old", None]


def test_no_slot_within_the_time_is_empty() -> None:
    slots = full(1)
    slots.get()
    with pytest.raises(Empty):
        slots.get(timeout=0.01)
    with pytest.raises(Empty):
        slots.get(block=False)
    assert slots.counts() == (1, 0, 0)


def waiting(slots: FairLifo, name: str, served: list[tuple[str, Any]]) -> threading.Thread:
    """Start a thread that waits for a slot, and return once it does."""
    before = slots.counts()[2]
    thread = threading.Thread(target=lambda: served.append((name, slots.get(timeout=10))))
    thread.start()
    until(lambda: slots.counts()[2] == before + 1)
    return thread


def test_waiting_callers_are_served_in_the_order_they_came() -> None:
    slots, served = full(1), list[tuple[str, Any]]()
    slots.get()
    names = [f"caller {number}" for number in range(12)]
    threads = [waiting(slots, name, served) for name in names]
    for position, thread in enumerate(threads):
        slots.put("connection")
        thread.join(10)
        assert served[position] == (names[position], "connection")


def test_late_comer_does_not_take_what_is_meant_for_a_waiting_one() -> None:
    slots, served = full(1), list[tuple[str, Any]]()
    slots.get()
    thread = waiting(slots, "first", served)
    slots.put("connection")
    with pytest.raises(Empty):  # handed over already, though the other thread may not have run yet
        slots.get(block=False)
    thread.join(10)
    assert served == [("first", "connection")]


def test_sixty_four_threads_share_ten_slots_evenly() -> None:
    slots, counts, left = full(10), Counter[int](), deque(range(6400))
    together = threading.Barrier(64)

    def work(number: int) -> None:
        together.wait(10)
        while left:
            slots.get(timeout=10)
            try:
                left.pop()
            except IndexError:
                return
            finally:
                threading.Event().wait(0.0002)  # holding a slot lets go of the interpreter, as waiting for a reply does
                slots.put(None)
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(counts.values()) == 6400
    assert min(counts.values()) >= 30  # of 100; a LIFO queue leaves some with none
    assert slots.qsize() == 10


def test_interrupted_caller_takes_no_slot_with_it() -> None:
    slots = full(1)
    slots.get()

    class Gate:
        def acquire(self, timeout: float) -> bool:
            slots.put("handed over in the last moment")
            raise Interrupted

        def release(self) -> None: ...

        def locked(self) -> bool:
            return True

    slots_await = slots._await

    def interrupted(waiter: Any, timeout: float | None) -> Any:
        waiter.gate = Gate()
        return slots_await(waiter, timeout)

    slots._await = interrupted  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        slots.get(timeout=1)
    assert slots.counts() == (0, 1, 0)


def test_slot_returned_in_the_middle_of_any_line_is_not_lost_and_does_not_block() -> None:
    slots = full(1)
    slots.get()
    with slots._lock:  # a finalizer runs on the thread that holds the lock
        slots.put("from a finalizer")
    assert slots.get(timeout=5) == "from a finalizer"


def test_slot_returned_while_the_lock_is_held_reaches_who_waits() -> None:
    slots, served = full(2), list[tuple[str, Any]]()
    slots.get()
    slots.get()
    thread = waiting(slots, "caller", served)
    with slots._lock:
        slots.put("held up")
    slots.counts()  # any later use sorts it in
    thread.join(10)
    assert served == [("caller", "held up")]


def test_removed_connections_leave_their_slots() -> None:
    slots = full(3)
    for _ in range(3):
        slots.get()
    for item in (1, 2, 3):
        slots.put(item)
    assert slots.remove(lambda item: item != 2) == [1, 3]
    assert [slots.get() for _ in range(3)] == [2, None, None]


class Interruption:
    """A trace function that raises where the interpreter looks for signals: after a call, a jump back, an entry."""

    LOOKS = frozenset({"CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD", "RESUME"})

    def __init__(self, step: int) -> None:
        self.left, self.came = step, False
        self._last: dict[FrameType, str] = {}

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != slots_module.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and not self.came:
            last = self._last.get(frame, "RESUME")
            self._last[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            self.left -= last in self.LOOKS
            if self.left < 0:
                self.came = True
                raise Interrupted
        return self

    def during(self, work: Callable[[], Any]) -> None:
        before = sys.gettrace()
        sys.settrace(self)
        try:
            with suppress(Interrupted):
                work()
        finally:
            sys.settrace(before)


@pytest.mark.parametrize("item", ["connection", None])
@pytest.mark.parametrize("someone_waits", [False, True])
def test_exception_between_any_two_steps_loses_no_slot_that_has_come_back(item: Any, someone_waits: bool) -> None:
    for step in itertools.count():
        slots = full(1)
        slots.get()
        waiter = slots_module._Waiter()
        if someone_waits:
            slots._waiting.append(waiter)
        slots._returned.append(item)
        interruption = Interruption(step)
        interruption.during(slots._settle)
        assert not slots._lock.locked()
        in_use, idle, waiting = slots.counts()  # whoever comes next finishes what was left half done
        if someone_waits:
            assert (list(waiter.box), waiter.gate.locked(), in_use, waiting) == ([item], False, 1, 0)
        else:
            assert (in_use, idle, slots.get(block=False)) == (0, int(item is not None), item)
        if not interruption.came:
            assert step > 8
            return


class SlotsModel(RuleBasedStateMachine):
    """Against a list: connections on top, the most recent last; empty slots below."""

    def __init__(self) -> None:
        super().__init__()
        self.slots, self.model, self.out, self.made = full(4), list[int](), 0, 0

    @precondition(lambda self: self.out < 4)
    @rule()
    def get(self) -> None:
        expected = self.model.pop() if self.model else None
        assert self.slots.get(block=False) == expected
        self.out += 1

    @precondition(lambda self: self.out == 4)
    @rule()
    def get_too_many(self) -> None:
        with pytest.raises(Empty):
            self.slots.get(timeout=0)

    @precondition(lambda self: self.out > 0)
    @rule()
    def put_connection(self) -> None:
        self.made += 1
        self.slots.put(self.made)
        self.model.append(self.made)
        self.out -= 1

    @precondition(lambda self: self.out > 0)
    @rule()
    def put_nothing(self) -> None:
        self.slots.put(None)
        self.out -= 1

    @rule()
    def remove_odd(self) -> None:
        assert self.slots.remove(lambda item: item % 2) == [item for item in self.model if item % 2]
        self.model = [item for item in self.model if not item % 2]

    @invariant()
    def counts_agree(self) -> None:
        assert self.slots.counts() == (self.out, len(self.model), 0)


SlotsModel.TestCase.settings = settings(max_examples=50, stateful_step_count=30)
test_slots_behave_like_the_model = SlotsModel.TestCase
