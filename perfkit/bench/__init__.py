"""Trying things out before they cost anything, and measuring what they cost then.

`simulate` runs strategies of the router on a simulated day; `perfkit bench` (`measure`) asks real providers under load.
Both are loaded on first use: the simulator needs greenlets, the measuring does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perfkit._registry import load

if TYPE_CHECKING:
    from perfkit.bench.comparing import compare
    from perfkit.bench.loading import Case, Load, measure
    from perfkit.bench.models import Change, Model
    from perfkit.bench.report import Simulation, Summary
    from perfkit.bench.simulation import simulate

__all__ = ["Case", "Change", "Load", "Model", "Simulation", "Summary", "compare", "measure", "simulate"]

_LAZY = {
    "Case": "loading",
    "Change": "models",
    "Load": "loading",
    "Model": "models",
    "Simulation": "report",
    "Summary": "report",
    "compare": "comparing",
    "measure": "loading",
    "simulate": "simulation",
}


def __getattr__(name: str) -> Any:
    """Load a name on first use."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = load(f"{__name__}.{_LAZY[name]}:{name}")
    return found
