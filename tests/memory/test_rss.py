from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest
from _forks import in_child

from perfkit.memory import rss
from perfkit.memory.rss import ProcessMemory, can_trim, process_memory, trim

MB = 2**20


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def statm_opened(memory: ProcessMemory) -> int:
    assert memory._open is not None
    return memory._open[0]


def test_memory_that_is_written_to_shows() -> None:
    memory = ProcessMemory()
    before = memory.rss()
    with mmap.mmap(-1, 64 * MB) as block:
        for at in range(0, len(block), 4096):
            block[at] = 1
        now = memory.rss()
    assert before is not None
    assert now is not None
    assert now - before > 60 * MB
    memory.close()


def test_the_descriptor_is_opened_once_and_closed() -> None:
    memory = ProcessMemory()
    before = descriptors()
    for _ in range(3):
        memory.rss()
    assert descriptors() == before + 1
    memory.close()
    assert descriptors() == before
    assert memory.rss() is not None  # usable again
    memory.close()


def test_a_forked_child_reads_its_own_memory() -> None:
    memory = ProcessMemory()
    before = memory.rss()
    assert before is not None

    def child() -> tuple[int | None, int]:
        with mmap.mmap(-1, 64 * MB) as block:
            for at in range(0, len(block), 4096):
                block[at] = 1
            fields = Path("/proc/self/statm").read_text().split()
            return memory.rss(), int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    told, truth = in_child(child)
    assert abs(told - truth) < 4 * MB
    memory.close()


def test_a_number_that_now_belongs_to_another_file_is_left_alone(tmp_path: Path) -> None:
    memory = ProcessMemory()
    memory.rss()
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    os.dup2(other, statm_opened(memory))  # as a daemon does that closes everything and opens its own
    taken = statm_opened(memory)
    assert memory.rss() is not None
    assert os.path.samestat(os.fstat(taken), os.fstat(other))
    memory.close()
    os.close(taken)
    os.close(other)


def test_without_proc_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rss, "_STATM", "/nowhere/statm")
    assert ProcessMemory().rss() is None


def test_trim_gives_back_what_was_freed() -> None:
    if not can_trim():
        pytest.skip("this C library has no malloc_trim")
    blocks = [bytes(100_000) + bytes([n % 251]) for n in range(800)]  # below the size that malloc maps by itself
    keep = blocks[::100]
    del blocks
    before = process_memory.rss()
    gained = trim()
    assert gained is not None
    assert before is not None
    assert gained > 20 * MB
    assert len(keep) == 8


def test_where_nothing_can_be_trimmed_nothing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rss, "_malloc_trim", lambda: None)
    assert (can_trim(), trim()) == (False, None)
