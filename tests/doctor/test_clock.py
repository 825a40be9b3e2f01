from __future__ import annotations

from perfkit.doctor.clock import clock, kernel_status


def test_kernel_can_be_asked() -> None:
    status = kernel_status()
    assert status is None or 0 <= status < 0x10000


def test_clock_nobody_keeps_right_is_warned_of() -> None:
    assert [finding.level for finding in clock(lambda: 0x2041)] == ["warning"]
    assert [finding.level for finding in clock(lambda: 0x2001)] == ["ok"]
    assert list(clock(lambda: None)) == []
