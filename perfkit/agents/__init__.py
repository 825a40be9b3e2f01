"""Agents and their tools, agents lent to one caller at a time, and work done by several threads at once, bounded."""

from perfkit.agents.agent import Agent
from perfkit.agents.batch import Cancellation, Result, map_bounded
from perfkit.agents.pool import AgentPool
from perfkit.agents.tools import TOOLS, Tool, load_tool, tool

__all__ = ["TOOLS", "Agent", "AgentPool", "Cancellation", "Result", "Tool", "load_tool", "map_bounded", "tool"]
