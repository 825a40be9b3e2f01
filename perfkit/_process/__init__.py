"""All that perfkit knows about process life: fork, prefork servers, exit, and its one background thread.

Objects that own locks, threads, sockets or buffers call `bind(self)` once. In a forked child their `_after_fork` makes
new locks, forgets threads, and drops inherited sockets and unsent data (drops, does not close: the parent still uses
the same TLS session); at exit their `close` runs once. `life` sees to that, in the order of binding: the background
thread of `periodic` first, then the work that finalizers left to `finalizing`, then everybody else.
"""

from perfkit._process.finalizing import Deferred, deferred
from perfkit._process.life import ProcessBound, bind, check, close_all
from perfkit._process.periodic import Background, background

__all__ = ["Background", "Deferred", "ProcessBound", "background", "bind", "check", "close_all", "deferred"]
