from __future__ import annotations

from perfkit.metrics.sinks.memory import Emitted, MemorySink


def test_what_is_emitted_can_be_read() -> None:
    sink = MemorySink()
    sink.emit("timing", "x", 0.5, {"a": "b"})
    assert list(sink.emitted) == [Emitted("timing", "x", 0.5, {"a": "b"})]
    sink.close()
    assert sink.emitted[0].tags == {"a": "b"}


def test_only_the_newest_are_kept() -> None:
    sink = MemorySink(size=3)
    for n in range(10):
        sink.emit("counter", "x", n, {})
    assert [each.value for each in sink.emitted] == [7, 8, 9]
