"""Real peers for tests: a llama.cpp server with a tiny model, a server that fails on command, a clock that waits.

For perfkit's own tests, its demo, and the tests of applications that use it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from perfkit._registry import load
from perfkit._shared import reset, start_over
from perfkit.clock import FakeClock
from perfkit.config import Config

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from perfkit.testing.faults import FaultServer
    from perfkit.testing.llm import LlamaServer

__all__ = ["FakeClock", "FaultServer", "LlamaServer", "isolated"]

_LAZY = {"FaultServer": "perfkit.testing.faults", "LlamaServer": "perfkit.testing.llm"}


def __getattr__(name: str) -> Any:
    """Load a server's handle on first use, so that the servers' own processes stay small."""
    if name not in _LAZY:
        raise AttributeError(f"module 'perfkit.testing' has no attribute {name!r}")
    return load(f"{_LAZY[name]}:{name}")


@contextlib.contextmanager
def isolated(**tables: Mapping[str, Any]) -> Iterator[None]:
    """Run a block with fresh shared instances, configured by `tables` alone; forget everything again afterwards.

    Neither the environment nor a file is read. The instances keep their identity, so references held elsewhere see the
    fresh state too.
    """
    start_over(Config(tables, file={}, environ={}))
    try:
        yield
    finally:
        reset()
