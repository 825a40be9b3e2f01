"""Taking deltas up into the tiers: what keeps the store small, in time that depends on the deltas alone.

New slots are appended to the finest tier as bytes; only when the oldest of a tier have outstayed their time by a fair
part they are read, moved to the next and merged there.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from perfkit.metrics.series import OVERFLOW
from perfkit.metrics.sharing.blobs import Blob, decode_slots, encode, encode_slots, rows
from perfkit.metrics.sharing.ledger import DELTA, LIVE, MANIFEST, PARTS, TOTALS, Ledger, by_series
from perfkit.metrics.sketch import Sketch
from perfkit.metrics.window import DAY, DAYS, SLOT, TIERS, Slots, add_slot, age_tiers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from perfkit.metrics.series import Key
    from perfkit.metrics.sharing.ledger import Manifest
    from perfkit.metrics.sharing.stores import Store

__all__ = ["fold"]

_GRACE = (300, 1800, 3600)  # seconds that slots of a tier may outstay their time, so that few folds move any
_REMEMBERED = 300.0  # seconds that folded deltas stay named: one written twice after a lost reply counts once

Bodies = dict["Key", bytes]
Totals = dict["Key", tuple[dict[str, Any], Sketch]]


def fold(store: Store, worker: str, now: float, *, limit: int, least: int) -> bool:
    """Fold the deltas of a store, if there are at least `least` and nobody else does; return whether it was done.

    Args:
        store: where they are.
        worker: who folds; part of the names of new blobs.
        now: epoch seconds.
        limit: series allowed; further tag sets of a name are counted together, idle ones make room.
        least: fewer deltas are not worth it.

    Raises:
        OSError: the store is away.
    """
    with store.folding() as commit:
        if commit is None:
            return False
        names = store.names()
        ledger = Ledger.read(store)
        if len(ledger.deltas) < least:
            _sweep(store, names, ledger.manifest, {})
            return False
        generation = ledger.manifest.generation + 1
        blobs = _folded(ledger, now, limit)
        parts = {part: f"part{part}.{generation}.{worker}" for part in PARTS}
        kept = {part: ledger.manifest.parts[part] for part in PARTS if part not in blobs}
        for part, data in blobs.items():
            store.write(parts[part], data)
        manifest = _next(ledger, now, {**parts, **kept}, names)
        if not commit(MANIFEST, manifest.encode()):
            return False
        _sweep(store, names, manifest, ledger.manifest.parts)
        return True


def _next(ledger: Ledger, now: float, parts: dict[str, str], names: list[str]) -> Manifest:
    old, there = ledger.manifest, set(names)
    included = {name: at for name, at in old.included.items() if name in there or at > now - _REMEMBERED}
    workers = [worker for worker in ledger.workers if not worker.ended and worker.reported > now - LIVE]
    included.update(dict.fromkeys(ledger.deltas, now))
    return replace(old, generation=old.generation + 1, parts=parts, included=included, workers=workers)


def _sweep(store: Store, names: Iterable[str], manifest: Manifest, replaced: Mapping[str, str]) -> None:
    """Remove deltas that are folded, blobs just replaced, and those that somebody left who died while folding."""
    used = {MANIFEST, *manifest.parts.values()}
    gone = [name for name in (*names, *replaced.values()) if name not in used]
    store.remove({name for name in gone if not name.startswith(DELTA) or name in manifest.included})


def _folded(ledger: Ledger, now: float, limit: int) -> dict[str, bytes]:
    """Return the new blobs of all parts that change."""
    totals = _totals(ledger.parts.get(TOTALS))
    fresh = _fresh(ledger.deltas.values(), totals, now, limit)
    tiers = [{key: body for key, (_, body) in _series(ledger, str(tier)).items()} for tier in range(len(TIERS))]
    for key, slots in fresh.items():
        tiers[0][key] = tiers[0].get(key, b"") + encode_slots(slots)
    changed = {0, *_aged(tiers, now), *(tier for tier in range(len(TIERS)) if str(tier) not in ledger.manifest.parts)}
    blobs = {str(tier): encode({}, ((key, {}, body) for key, body in tiers[tier].items() if body)) for tier in changed}
    blobs[TOTALS] = encode({}, ((key, extras, encode_slots({0: total})) for key, (extras, total) in totals.items()))
    return blobs


def _series(ledger: Ledger, part: str) -> Mapping[Key, tuple[Mapping[str, Any], bytes]]:
    return ledger.parts[part].series if part in ledger.parts else {}


def _totals(blob: Blob | None) -> Totals:
    if blob is None:
        return {}
    return {key: (dict(extras), decode_slots(body)[0]) for key, (extras, body) in blob.series.items()}


def _fresh(deltas: Iterable[Blob], totals: Totals, now: float, limit: int) -> dict[Key, Slots]:
    """Return the slots of all deltas together, and count them in the totals."""
    fresh: dict[Key, Slots] = defaultdict(dict)
    for key, found in by_series(deltas).items():
        place = _place(key, totals, now, limit)
        extras, total = totals.setdefault(place, ({"days": {}, "last": None}, Sketch()))
        for index, sketch in decode_slots(b"".join(body for _, body in found)).items():
            add_slot(fresh[place], index, sketch)
            total.merge(sketch)
            add_day(extras["days"], index, sketch.total)
        for told, _ in found:
            extras["last"] = newer(extras["last"], told.get("last"))
        extras["seen"] = now
    return fresh


def newer(held: list[float] | None, told: list[float] | None) -> list[float] | None:
    """Return the later of two [value, epoch seconds]."""
    if held is None or told is None:
        return told if held is None else held
    return told if told[1] >= held[1] else held


def add_day(days: dict[str, float], index: int, amount: float) -> None:
    """Add to the sum of the day that a slot of the finest tier is in."""
    day = str(int(index * SLOT // DAY))  # JSON's keys are text
    days[day] = days.get(day, 0.0) + amount
    if len(days) > DAYS:
        del days[min(days, key=int)]


def _place(key: Key, totals: Totals, now: float, limit: int) -> Key:
    """Return the series that counts: the key itself while there is room, else that of the overflow of its name."""
    if key in totals or len(totals) < limit:
        return key
    for idle in [one for one, (extras, _) in totals.items() if extras["seen"] < now - DAY]:
        del totals[idle]
    return key if len(totals) < limit else (key[0], key[1], OVERFLOW)


def _aged(tiers: list[Bodies], now: float) -> set[int]:
    """Move slots that are overdue to the next tier; return the tiers that have changed."""
    changed: set[int] = set()
    for tier, (width, keep) in enumerate(TIERS):
        due = (now - _GRACE[tier]) // width - keep
        if not any(index < due for body in tiers[tier].values() for index, _ in rows(body)):
            continue
        changed |= {tier, min(tier + 1, len(TIERS) - 1)}
        for key, body in tiers[tier].items():
            slots: list[Slots] = [{} for _ in TIERS]
            slots[tier] = decode_slots(body)
            age_tiers(slots, now)
            tiers[tier][key] = encode_slots(slots[tier])
            for later in range(tier + 1, len(TIERS)):
                if slots[later]:
                    changed.add(later)
                    tiers[later][key] = tiers[later].get(key, b"") + encode_slots(slots[later])
    return changed
