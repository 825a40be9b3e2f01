"""Exceptions from outside (Ctrl-C, PyThreadState_SetAsyncExc), at any place where the interpreter lets one in."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any


class Interrupted(BaseException): ...


class Interruption:
    """A trace function that raises where the interpreter looks for signals: after a call, a jump back, an entry.

    Args:
        step: how many such places it lets pass.
        files: source files it does so in.
    """

    LOOKS = frozenset({"CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD", "RESUME"})

    def __init__(self, step: int, *files: str | None) -> None:
        self.left, self.came, self._files = step, False, frozenset(files)
        self._last: dict[int, str] = {}  # by frame, which must not live longer for it

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        frame.f_trace_opcodes = True
        if event == "call":
            self._last[id(frame)] = "RESUME"
        if event == "opcode" and not self.came:
            last = self._last[id(frame)]
            self._last[id(frame)] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
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
