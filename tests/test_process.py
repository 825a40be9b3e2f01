from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import threading
import weakref
from contextlib import ExitStack
from pathlib import Path

import pytest
from _forks import held_by_another, in_child, places_are_free
from _servers import polled

from perfkit import _process
from perfkit._process import Background, Deferred, forks, life


class Owner:
    """Something with a lock and a buffer."""

    def __init__(self) -> None:
        self.forks = 0
        self.closed = 0
        self._after_fork()
        self.forks = 0
        _process.bind(self)

    def _after_fork(self) -> None:
        self.lock = threading.Lock()
        self.buffer: list[int] = []
        self.forks = getattr(self, "forks", 0) + 1

    def close(self) -> None:
        self.closed += 1


def test_a_lock_held_at_fork_is_free_in_the_child() -> None:
    owner = Owner()
    with held_by_another(owner.lock):
        assert in_child(lambda: owner.lock.acquire(timeout=5))


def test_what_was_unsent_at_fork_is_the_parents_alone() -> None:
    owner = Owner()
    owner.buffer.append(1)
    assert in_child(lambda: owner.buffer) == []
    assert owner.buffer == [1]


def test_the_reset_in_the_child_happens_once_however_often_it_is_asked_for() -> None:
    owner = Owner()

    def child() -> int:
        _process.check()
        life.in_child()
        return owner.forks

    assert in_child(child) == 1


def pretend_to_be_a_child() -> None:
    """Make this process look like one forked without hooks: it has another id than the one that was reset."""
    life._pid = life._resetting = -1


def test_check_notices_a_fork_that_ran_no_hooks() -> None:
    owner = Owner()
    pretend_to_be_a_child()
    _process.check()
    assert life._pid == os.getpid()
    assert owner.forks == 1


def test_threads_that_come_during_the_reset_wait_for_its_end() -> None:
    begun, go_on, early = threading.Event(), threading.Event(), []

    class Slow(Owner):
        def _after_fork(self) -> None:
            super()._after_fork()
            if self.forks > 1:
                begun.set()
                go_on.wait(10)

    def second() -> None:
        _process.check()
        early.append(not go_on.is_set())

    owner = Slow()
    owner.forks = 1
    pretend_to_be_a_child()
    threads = [threading.Thread(target=_process.check), threading.Thread(target=second)]
    threads[0].start()
    assert begun.wait(10)
    threads[1].start()
    threads[1].join(0.2)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert early == [False]
    assert owner.forks == 2


def test_a_reset_that_makes_itself_asked_for_again_goes_on() -> None:
    class Asking(Owner):
        def _after_fork(self) -> None:
            super()._after_fork()
            _process.check()

    owner = Asking()
    pretend_to_be_a_child()
    _process.check()
    assert owner.forks == 1


def test_a_child_that_did_nothing_forgets_at_exit_what_is_the_parents() -> None:
    class Sending(Owner):
        def close(self) -> None:
            sent.extend(self.buffer)

    sent: list[int] = []
    owner = Sending()
    owner.buffer.append(1)
    pretend_to_be_a_child()
    _process.close_all()
    assert sent == []


def test_a_failing_reset_does_not_stop_the_others() -> None:
    class Broken(Owner):
        def _after_fork(self) -> None:
            if hasattr(self, "lock"):
                raise RuntimeError("broken")
            super()._after_fork()

    broken, owner = Broken(), Owner()
    assert in_child(lambda: owner.forks) == 1
    assert broken.closed == 0


class Ticking:
    def __init__(self) -> None:
        self.ticked = threading.Event()
        self.threads: set[str] = set()

    def tick(self) -> None:
        self.threads.add(threading.current_thread().name)
        self.ticked.set()


def test_jobs_share_one_thread_that_starts_with_the_first_and_ends_with_the_last() -> None:
    background = Background()
    before = background._thread
    assert before is None
    one, two = Ticking(), Ticking()
    background.every(0.01, one.tick)
    background.every(0.01, two.tick)
    assert one.ticked.wait(10)
    assert two.ticked.wait(10)
    assert one.threads == two.threads == {"perfkit-background"}
    thread = background._thread
    assert thread is not None
    background.cancel(one.tick)
    background.cancel(two.tick)
    background._wake.set()
    thread.join(10)
    assert not thread.is_alive()


def test_a_job_does_not_keep_its_owner_alive() -> None:
    background = Background()
    owner = Ticking()
    background.every(0.01, owner.tick)
    assert owner.ticked.wait(10)
    gone, thread = weakref.ref(owner), background._thread
    del owner
    gc.collect()
    assert thread is not None
    thread.join(10)
    assert gone() is None
    assert not thread.is_alive()


def test_a_failing_job_does_not_stop_the_thread() -> None:
    class Failing(Ticking):
        times = 0

        def tick(self) -> None:
            self.times += 1
            if self.times > 2:
                self.ticked.set()
            raise RuntimeError("job failed")

    background, failing = Background(), Failing()
    background.every(0.01, failing.tick)
    assert failing.ticked.wait(10)
    background.close()


def test_the_thread_runs_again_in_a_child() -> None:
    background, owner = Background(), Ticking()
    background.every(0.01, owner.tick)
    assert owner.ticked.wait(10)

    def child() -> tuple[bool, list[str]]:
        owner.ticked = threading.Event()  # the thread may have had the lock of the other one
        names = [t.name for t in threading.enumerate()]
        background.ensure()
        return owner.ticked.wait(5), names

    assert in_child(child) == (True, ["MainThread"])
    background.close()


def test_work_can_be_asked_for_in_a_child_that_inherited_the_lock_held() -> None:
    background, owner = Background(), Ticking()
    background._lock.acquire()  # by another thread, in the parent
    pretend_to_be_a_child()
    asking = threading.Thread(target=background.every, args=(0.01, owner.tick), daemon=True)
    asking.start()
    asking.join(10)
    assert not asking.is_alive()
    assert owner.ticked.wait(10)
    background.close()


def test_work_waits_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    background, owner = Background(), Ticking()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        background.every(0.01, owner.tick)
    background.ensure()
    assert owner.ticked.wait(10)
    background.close()


def test_close_joins_the_thread_and_a_later_job_starts_it_again() -> None:
    background, owner = Background(), Ticking()
    background.every(0.01, owner.tick)
    thread = background._thread
    background.close()
    assert thread is not None
    assert not thread.is_alive()
    owner.ticked.clear()
    background.every(0.01, owner.tick)
    assert owner.ticked.wait(10)
    background.close()


def test_close_runs_once_in_each_process_at_exit() -> None:
    code = (
        "import os, sys\n"
        "from perfkit import _process\n"
        "class Owner:\n"
        "    def _after_fork(self): pass\n"
        "    def close(self): os.write(1, b'closed\\n')\n"
        "owner = Owner(); _process.bind(owner)\n"
        "if os.fork() == 0: os._exit(0)\n"
        "os.wait()\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout == "closed\n"


WORKERS = """
import multiprocessing, os, sys
from perfkit import _process

class Owner:
    def _after_fork(self): pass
    def close(self): os.write(1, b"closed in %s\\n" % multiprocessing.current_process().name.encode())
    def tick(self): pass

owner = Owner()
_process.bind(owner)

def work():
    for _ in range(2):
        _process.background.every(60, owner.tick)
        _process.background.close()

if __name__ == "__main__":
    work()
    child = multiprocessing.get_context(sys.argv[1]).Process(target=work, name="child")
    child.start()
    child.join()
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing_children_close_once_too(method: str, tmp_path: Path) -> None:
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    command = [sys.executable, str(script), method]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout == "closed in child\nclosed in MainProcess\n"


def test_asking_for_the_thread_never_waits_so_that_records_may_come_from_collections() -> None:
    background, owner = Background(), Ticking()
    background.every(60, owner.tick)
    background.close()
    with background._lock:  # as a gc callback finds it that runs inside `every`
        background.ensure()
        assert not background.every(60, owner.tick, wait=False)
    before = background._thread
    assert before is None
    background.ensure()
    assert background._thread is not None
    background.close()


class Forgotten:
    """Something in a circle, which only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


def test_what_a_finalizer_leaves_is_done_by_the_background_thread_whatever_the_finalizers_thread_holds() -> None:
    deferred, lock, done, threads = Deferred(), threading.Lock(), threading.Event(), list[str]()

    def work() -> None:
        with lock:
            threads.append(threading.current_thread().name)
        done.set()

    deferred.when_gone(Forgotten(), work)
    with lock:
        gc.collect()
    assert done.wait(10)
    assert threads == ["perfkit-background"]


def test_a_call_does_what_has_gathered_and_survives_its_errors() -> None:
    deferred, done = Deferred(), list[str]()

    def fail() -> None:
        raise RuntimeError("work failed")

    deferred.add(fail)
    deferred.add(lambda: done.append("second"))
    deferred.run()
    deferred.run()
    assert done == ["second"]


def test_what_was_ended_in_time_is_not_done_again() -> None:
    deferred, done, owner = Deferred(), list[str](), Forgotten()
    deferred.when_gone(owner, lambda: done.append("late")).detach()
    del owner
    gc.collect()
    deferred.run()
    assert done == []


def test_the_background_thread_looks_for_deferred_work_only_while_there_may_be_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("perfkit._process.finalizing._SOON", 60.0)  # seconds until that thread does it instead
    deferred, done, owner = Deferred(), threading.Event(), Forgotten()
    job = weakref.WeakMethod(deferred._tick)
    deferred.when_gone(owner, done.set)
    deferred._tick()
    assert job in _process.background._jobs
    del owner
    gc.collect()
    deferred._tick()
    assert done.is_set()
    assert job not in _process.background._jobs
    deferred.when_gone(Forgotten(), done.set)
    assert job in _process.background._jobs


def test_what_was_left_at_fork_is_the_parents_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perfkit._process.finalizing._SOON", 60.0)  # seconds until the background thread does it
    deferred, done, owner = Deferred(), list[int](), [Forgotten()]
    deferred.add(lambda: done.append(1))
    deferred.when_gone(owner[0], lambda: done.append(3))

    def child() -> list[int]:
        owner.clear()
        gc.collect()
        deferred.run()
        deferred.add(lambda: done.append(2))
        deferred.run()
        return done

    assert in_child(child) == [2]
    deferred.run()
    assert done == [1]
    deferred.close()
    assert done == [1, 3]


def test_a_fork_waits_for_the_end_of_what_it_must_not_divide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "_PATIENCE", 30.0)
    answers: list[bool] = []
    forking = threading.Thread(target=lambda: answers.append(in_child(places_are_free)))
    before = forks._gate.before.__code__
    with held_by_another(forks.undivided()) as leave:
        forking.start()
        polled(lambda: getattr(sys._current_frames().get(forking.ident or 0), "f_code", None) is before)
        assert answers == []
        leave.set()
        forking.join(20)
    assert answers == [True]


def test_a_fork_waits_for_nobody_for_ever_nor_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "_PATIENCE", 0.001)
    with held_by_another(forks.undivided()), forks.undivided():
        assert in_child(places_are_free)
    assert places_are_free()


def test_the_hooks_of_others_may_wait_for_a_thread_that_a_fork_keeps_from_going_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forks, "_PATIENCE", 0.001)
    with ExitStack() as fork:
        for place in forks._gate.places:  # as they are to a hook that runs after perfkit's
            fork.enter_context(place)
        with held_by_another(forks.undivided()):
            pass


def test_a_fork_that_nobody_was_told_of_leaves_the_child_no_places_that_are_taken() -> None:
    def child() -> bool:
        _process.check()
        return places_are_free()

    with held_by_another(forks.undivided()):
        assert in_child(child, fork=ctypes.PyDLL(None).fork)  # runs no hooks, as uWSGI's
