"""What a piece of work costs: wall time, thread CPU time, outcome; cheap enough to leave on."""

from perfkit.profiling.profiler import Profile, Profiler

__all__ = ["Profile", "Profiler"]
