"""Who measures CPU and memory on demand: two tables of names, imported on first use, and what each part has to be."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Protocol

from perfkit._registry import Registry

__all__ = ["CPU_ENGINES", "MEMORY_ENGINES", "Engine", "best_cpu_engine"]


class Engine(Protocol):
    """Measures one block, in the thread that calls it."""

    def start(self) -> None:
        """Begin.

        Raises:
            RuntimeError: somebody else measures in a way that does not allow for this.
        """
        ...

    def stop(self) -> dict[str, Any]:
        """End, and return fields of a CPUReport or MemoryReport."""
        ...


CPU_ENGINES = Registry(
    "CPU profiler", {"pyinstrument": "perfkit.profiling.cpu:Pyinstrument", "sampler": "perfkit.profiling.cpu:OwnThread"}
)
MEMORY_ENGINES = Registry(
    "memory profiler",
    {
        "rss": "perfkit.profiling.memory:Resident",
        "tracemalloc": "perfkit.profiling.memory:Traced",
        "memray": "perfkit.profiling.memory:Memray",
    },
)


def best_cpu_engine() -> str:
    """Return pyinstrument where it is installed, which sees every call, else the own sampler."""
    return "pyinstrument" if find_spec("pyinstrument") is not None else "sampler"
