"""What is done once, after start-up and before load: pools are filled, the collector is set for its workload.

Nothing of it happens at import. Web integrations do it with the first request of a process, beside it and not before
it; scripts and workers call `perfkit.prepare()`.
"""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from perfkit import _process
from perfkit._shared import current_config
from perfkit.agents import AgentPool
from perfkit.memory import GCOptimizer
from perfkit.routing import ProviderRouter

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["prepare", "prepare_beside"]

log = logging.getLogger("perfkit.startup")


def prepare() -> dict[str, Any]:
    """Do what the configuration asks for before load comes, and return how each step went.

    The steps are `[agents] warm_up` (agents made by type), `[router] warm_up` (connections to each provider), `[gc]
    workload` and `compaction`, in this order: the collector freezes what is alive then. A step that fails is told in
    the result and in the log, and never raises.
    """
    config = current_config()
    gc, done = config.table("gc"), {}
    sources = {row["setting"]: row["source"] for row in config.explain()}
    level = logging.INFO if sources["agents.warm_up"] == "preset" else logging.WARNING  # a preset's need not be there
    for agent_type, number in config.table("agents").warm_up.items():
        done[f"agents.{agent_type}"] = _try(partial(AgentPool.instance().warm_up, agent_type, number), level)
    connections = config.table("router").warm_up
    if connections:
        done["router"] = _try(lambda: ProviderRouter.instance().warm_up(connections))
    if gc.workload is not None:
        done["gc.workload"] = _try(lambda: GCOptimizer.instance().optimize_for_workload(gc.workload).workload)
    if gc.compaction:
        done["gc.compaction"] = _try(GCOptimizer.instance().enable_gc_compaction)
    return done


def _try(step: Callable[[], Any], level: int = logging.WARNING) -> Any:
    try:
        return step()
    except Exception as error:
        log.log(level, "a step of the preparation failed: %s: %s", type(error).__name__, error)
        return error


class _Once:
    """Whether this process is prepared."""

    def __init__(self) -> None:
        self._after_fork()
        _process.bind(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards _done
        self._done = False

    def first(self) -> bool:
        """Return True to the first caller in this process."""
        if self._done:
            return False
        with self._lock:
            first, self._done = not self._done, True
        return first


_once = _Once()


def prepare_beside() -> None:
    """Run `prepare` in a thread of its own, once a process, unless the configuration asks for nothing."""
    _process.check()
    if _once.first():
        config = current_config()
        gc, agents, router = config.table("gc"), config.table("agents"), config.table("router")
        if agents.warm_up or router.warm_up or gc.workload or gc.compaction:
            threading.Thread(target=prepare, name="perfkit-prepare", daemon=True).start()
