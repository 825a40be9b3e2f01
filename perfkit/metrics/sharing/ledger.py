"""The manifest and what it names: read as one consistent whole, and folded so that nothing counts twice.

A manifest names four blobs (a tier of time each, and totals) and the deltas that are in them. A fold takes up the other
deltas and puts a new manifest in the place of the old one; only then it removes what is no longer needed. Whoever dies
in between leaves blobs that no manifest names, or deltas that it does name: the next fold removes both.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from perfkit.metrics.sharing.blobs import Blob, decode
from perfkit.metrics.sharing.worker import Worker
from perfkit.metrics.window import TIERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perfkit.metrics.sharing.stores import Store

__all__ = ["DELTA", "MANIFEST", "PARTS", "TOTALS", "Ledger", "Manifest", "Worker", "newest_reports"]

log = logging.getLogger("perfkit.metrics")

MANIFEST = "manifest"
DELTA = "delta."
TOTALS = str(len(TIERS))
PARTS = (*map(str, range(len(TIERS))), TOTALS)  # what a manifest names
LIVE = 60.0  # seconds after its last report that a worker is taken for dead
_TRIES = 20  # readings that a fold may overtake


@dataclass(frozen=True, slots=True)
class Manifest:
    """What counts."""

    generation: int = 0
    parts: dict[str, str] = field(default_factory=dict)  # of PARTS, to the names of blobs
    included: dict[str, float] = field(default_factory=dict)  # deltas that are in them, to the second they were folded
    workers: list[Worker] = field(default_factory=list)

    def encode(self) -> bytes:
        """Return it as JSON."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes | None) -> Manifest:
        """Return what was encoded, an empty one for None."""
        if data is None:
            return cls()
        try:
            fields = json.loads(data)
            return cls(**{**fields, "workers": [Worker(*row) for row in fields["workers"]]})
        except (ValueError, TypeError, KeyError) as error:
            raise OSError("the manifest of the metrics store cannot be read: remove all in it") from error


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything that counts at one moment."""

    manifest: Manifest
    parts: dict[str, Blob]
    deltas: dict[str, Blob]

    @property
    def workers(self) -> list[Worker]:
        """All that have reported lately, with their last report."""
        return newest_reports(self.manifest.workers, self.deltas.values())

    @classmethod
    def read(cls, store: Store, before: Ledger | None = None) -> Ledger:
        """Return what is in a store; blobs already in `before` are not read again.

        Raises:
            OSError: the store is away.
        """
        known = _known(before)
        for _ in range(_TRIES):
            names = [name for name in store.names() if name.startswith(DELTA)]
            manifest = Manifest.decode(store.read([MANIFEST])[0])
            names = [name for name in names if name not in manifest.included]
            wanted = [*manifest.parts.values(), *names]
            _load(store, wanted, known)
            still = Manifest.decode(store.read([MANIFEST])[0])
            if still.generation == manifest.generation:
                return cls(
                    manifest,
                    {part: known[name] for part, name in manifest.parts.items() if name in known},
                    {name: known[name] for name in names if name in known},
                )
        raise OSError(f"{store!r} was folded {_TRIES} times while it was read")


def _known(before: Ledger | None) -> dict[str, Blob]:
    if before is None:
        return {}
    parts = {name: before.parts[part] for part, name in before.manifest.parts.items() if part in before.parts}
    return {**parts, **before.deltas}


def _load(store: Store, wanted: Iterable[str], known: dict[str, Blob]) -> None:
    missing = [name for name in wanted if name not in known]
    for name, data in zip(missing, store.read(missing), strict=True):
        if data is not None:
            known[name] = _decoded(name, data)


def _decoded(name: str, data: bytes) -> Blob:
    try:
        return decode(data)
    except (ValueError, KeyError, TypeError, AttributeError):
        log.warning("metrics blob %s cannot be read; it is left out", name)
        return Blob({}, {})


def newest_reports(workers: Sequence[Worker], deltas: Iterable[Blob]) -> list[Worker]:
    """Return the last report of every worker."""
    reports: dict[str, Worker] = {worker.id: worker for worker in workers}
    for delta in deltas:
        row: Any = delta.about.get("worker")
        if row is not None:
            worker = Worker(*row)
            if worker.id not in reports or reports[worker.id].reported <= worker.reported:
                reports[worker.id] = worker
    return list(reports.values())


def by_series(blobs: Iterable[Blob]) -> dict[Any, list[tuple[Any, bytes]]]:
    """Return for each series what the blobs hold of it."""
    found: dict[Any, list[tuple[Any, bytes]]] = defaultdict(list)
    for blob in blobs:
        for key, row in blob.series.items():
            found[key].append(row)
    return found
