"""Whether the machine's clock is kept right: the kernel knows, and tells through `adjtimex`."""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING

from perfkit.doctor.finding import Finding, fine, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["clock", "kernel_status"]

_UNSYNCHRONISED = 0x0040  # STA_UNSYNC of <sys/timex.h>
_STATUS_AT = 5  # longs before it in struct timex: modes, offset, freq, maxerror, esterror
_ROOM = 512  # bytes; the struct has 208


def kernel_status() -> int | None:
    """Return the status bits of the kernel's clock, None where it cannot be asked."""
    if not sys.platform.startswith("linux"):
        return None
    told = (ctypes.c_long * (_ROOM // ctypes.sizeof(ctypes.c_long)))()
    if ctypes.CDLL(None, use_errno=True).adjtimex(told) < 0:
        return None
    return int(told[_STATUS_AT]) & 0xFFFF


def clock(status: Callable[[], int | None] = kernel_status) -> Iterator[Finding]:
    """Say whether anything keeps the clock right."""
    bits = status()
    if bits is None:
        return
    if not bits & _UNSYNCHRONISED:
        yield fine("clock", "synchronised")
        return
    yield warning(
        "clock",
        "the kernel says that nothing keeps the clock right",
        "signed requests (AWS Bedrock) are refused when it is 5 minutes off; Retry-After dates, daily budgets and ages "
        "shared between hosts go wrong before",
        "run chronyd or systemd-timesyncd; in a container, on its host",
    )
