"""Agents lent to one caller at a time, and work done by several threads at once, bounded."""

from perfkit.agents.batch import Result, map_bounded
from perfkit.agents.pool import AgentPool

__all__ = ["AgentPool", "Result", "map_bounded"]
