"""Work done by several threads at once, bounded."""

from perfkit.agents.batch import Result, map_bounded

__all__ = ["Result", "map_bounded"]
