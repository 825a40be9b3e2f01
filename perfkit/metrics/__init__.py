"""What happened, how often and how long: recorded in nanoseconds, asked for in process, sent on to StatsD.

A value goes into the buffer of its series (`handle`), in batches into the sketch of the current time slot (`sketch`,
`window`), and from there to the sinks and to the other workers (`sharing`). `PerformanceTracker` is the face of it all.
"""

from perfkit.metrics.handle import Handle
from perfkit.metrics.reading import Readable, Series
from perfkit.metrics.sharing.view import MergedView, Worker
from perfkit.metrics.sinks import SINKS
from perfkit.metrics.tracker import PerformanceTracker

__all__ = ["SINKS", "Handle", "MergedView", "PerformanceTracker", "Readable", "Series", "Worker"]
