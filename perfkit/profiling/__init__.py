"""What a piece of work costs: wall time, thread CPU time, outcome; cheap enough to leave on.

On demand also where time and memory go, and, by themselves, the runs that take too long. `Profiler` is the face of it;
all that is measured on demand is imported when it is asked for.
"""

from perfkit.profiling.profiler import Profiler
from perfkit.profiling.runs import Profile
from perfkit.profiling.slow import Capture, SlowRun

__all__ = ["Capture", "Profile", "Profiler", "SlowRun"]
