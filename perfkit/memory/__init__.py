"""Garbage collection out of the way of requests, and the memory of the process.

`GCOptimizer` is the face of it. What it does is decided by data and pure functions: bundles per workload and per
collector of the Python at hand (`workloads`), when to collect what (`steering`), and what to propose (`suggestions`).
"""

from perfkit.memory.collector import GCOptimizer
from perfkit.memory.pauses import GCMonitor, GCReport
from perfkit.memory.suggestions import Suggestion
from perfkit.memory.workloads import WORKLOADS, Plan

__all__ = ["WORKLOADS", "GCMonitor", "GCOptimizer", "GCReport", "Plan", "Suggestion"]
