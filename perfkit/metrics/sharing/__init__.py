"""Metrics of all processes of an application, on one host or several, exact to the last closed slot.

Theory of operation: each process writes what its slots held when they were over as a delta, a blob of its own name that
is never changed (`exchange`). Whoever finds many deltas folds them, one process at a time: their slots are added to a
few big blobs, one a tier of time and one of totals, under new names, and a manifest that names those and the deltas
now in them takes the place of the old one in a single step (`ledger`). Then what it replaced is removed. So a reader of
one manifest, its blobs and the deltas it does not name counts everything once, whenever a process is forked, recycled
or killed, and the dead leave nothing behind. Where blobs are kept is a store's business (`files`, `redis`).
"""

from perfkit.metrics.sharing.exchange import Exchange
from perfkit.metrics.sharing.stores import Store
from perfkit.metrics.sharing.view import MergedView, Worker

__all__ = ["Exchange", "MergedView", "Store", "Worker"]
