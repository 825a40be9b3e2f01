"""A distribution of values in little memory: exact count, sum, minimum and maximum, quantiles within 0.542 %.

Buckets are base-2 exponential at scale 6, 64 an octave, as in OpenTelemetry's exponential histogram (whose index is
ours less one): merging adds counts, so it loses nothing, and gaps in the data cost no accuracy, as they do with
t-digests. A distribution of up to 64 values keeps the values themselves, and is exact.
"""

from __future__ import annotations

import math
import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from contextlib import suppress
from itertools import accumulate, repeat
from operator import mul
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["QUANTILES", "ZERO", "Sketch"]

QUANTILES = {"p50": 500, "p90": 900, "p95": 950, "p99": 990, "p99_9": 999}  # per mille, so that ranks are exact
_RAW = 64  # values
_OCTAVE = 64.0  # buckets
_RUN = 8  # values in a bucket, on average, from which on looking for its end is faster than looking at each value
_CENTRE = math.log2((1 + 2 ** (1 / _OCTAVE)) / 2)  # from a bucket's upper end down to the value of least relative error
# The logarithm of a float lies within ±1075, its index within ±68 800: zero, then the negatives mirrored, sort below.
ZERO = -(2**17)
_MIRROR = -(2**18)
_HEADER = struct.Struct("<QdddccI")  # count, total, minimum, maximum, types of what follows, and how many of each


def _index(value: float) -> int:
    if value > 0:
        return math.ceil(math.log2(value) * _OCTAVE)
    return _MIRROR - _index(-value) if value else ZERO


def _value(index: int) -> float:
    if index > ZERO:
        return float(2.0 ** (index / _OCTAVE - _CENTRE))
    return -_value(_MIRROR - index) if index < ZERO else 0.0


def _count_runs(buckets: Counter[int], ordered: Sequence[float], first: int, last: int) -> None:
    """Count sorted positive values that lie in the buckets from `first` to `last`."""
    start = 0
    for index in range(first, last):
        end = bisect_right(ordered, 2.0 ** (index / _OCTAVE), start)
        if end > start:
            buckets[index] += end - start
            start = end
    buckets[last] += len(ordered) - start


class Sketch:
    """Counts of values by size; not safe for threads, its owner holds a lock.

    Attributes:
        count: number of values.
        total: their sum, exact up to the rounding of float additions.
        minimum: the least value, `inf` when there is none.
        maximum: the greatest value, `-inf` when there is none.
    """

    __slots__ = ("_buckets", "_packed", "_raw", "count", "maximum", "minimum", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.minimum = math.inf
        self.maximum = -math.inf
        self._raw: array[float] | None = array("d")
        self._buckets: Counter[int] = Counter()
        self._packed: tuple[array[int], array[int]] | None = None

    def add(self, values: Sequence[float]) -> None:
        """Count finite floats; there must be at least one."""
        ordered = sorted(values)  # in which least, greatest and runs of one bucket are found faster than one by one
        least, greatest = ordered[0], ordered[-1]
        self._widen(len(ordered), sum(values), least, greatest)
        if least <= 0 or self.count <= _RAW:
            self._put(values)
            return
        first, last = _index(least), _index(greatest)
        if last - first > len(ordered) // _RUN:
            self._put(values)
        else:
            _count_runs(self._open(), ordered, first, last)

    def merge(self, other: Sketch) -> None:
        """Count everything `other` has counted."""
        self._widen(other.count, other.total, other.minimum, other.maximum)
        if other._raw is not None:
            self._put(other._raw)
            return
        buckets = self._open()
        for index, n in other._items():
            buckets[index] = buckets.get(index, 0) + n

    def _widen(self, count: int, total: float, minimum: float, maximum: float) -> None:
        self.count += count
        self.total += total
        self.minimum = min(self.minimum, minimum)
        self.maximum = max(self.maximum, maximum)

    def _put(self, values: Iterable[float]) -> None:
        if self._raw is not None and self.count <= _RAW:
            self._raw.extend(values)
        elif self.minimum > 0:  # without a Python frame a value
            self._open().update(map(math.ceil, map(mul, map(math.log2, values), repeat(_OCTAVE))))
        else:
            self._open().update(map(_index, values))

    def _open(self) -> Counter[int]:
        """Return the buckets, to be changed; from here on the values themselves are no longer kept."""
        if self._raw is not None:
            self._buckets, self._raw = Counter(map(_index, self._raw)), None
        elif self._packed is not None:
            self._buckets, self._packed = Counter(dict(self._items())), None
        return self._buckets

    def _items(self) -> Iterable[tuple[int, int]]:
        return zip(*self._packed, strict=True) if self._packed is not None else self._buckets.items()

    def pack(self) -> None:
        """Take a fraction of the memory; still readable, and opened again by the next change."""
        if self._raw is None and self._packed is None:
            self._packed = _small("hi", self._buckets), _small("HIQ", self._buckets.values())
            self._buckets = Counter()

    @property
    def nbytes(self) -> int:
        """Memory held, roughly."""
        if self._raw is not None:
            return 300 + 8 * len(self._raw)
        if self._packed is None:
            return 300 + 100 * len(self._buckets)
        return 400 + sum(part.itemsize * len(part) for part in self._packed)

    def quantiles(self, per_mille: Iterable[int]) -> list[float]:
        """Return the values of nearest rank, the ceil(p * count)-th smallest; there must be at least one value."""
        if self._raw is not None:
            values, ends = sorted(self._raw), list(range(1, self.count + 1))
        else:
            indices, counts = zip(*sorted(self._items()), strict=True)
            values, ends = list(map(_value, indices)), list(accumulate(counts))
        ranks = (max(1, -(-p * self.count // 1000)) for p in per_mille)
        return [self._exact_at_ends(rank, values[bisect_left(ends, rank)]) for rank in ranks]

    def _exact_at_ends(self, rank: int, value: float) -> float:
        if rank == 1:
            return self.minimum
        return self.maximum if rank == self.count else min(max(value, self.minimum), self.maximum)

    def buckets(self) -> list[tuple[int, int]]:
        """Return (index, number of values), sorted.

        Bucket `i` holds values above 2**((i - 1) / 64) and up to 2**(i / 64), `ZERO` zeros, and below it come the
        negatives. OpenTelemetry's index of a bucket at scale 6 is `i - 1`.
        """
        return sorted(Counter(map(_index, self._raw)).items() if self._raw is not None else self._items())

    def at_most(self, bounds: Iterable[float]) -> list[int]:
        """Return how many values are not above each of `bounds`, give or take half a bucket around it."""
        if self._raw is not None:
            return [sum(value <= bound for value in self._raw) for bound in bounds]
        indices, counts = zip(*self.buckets(), strict=True)
        values, ends = list(map(_value, indices)), [0, *accumulate(counts)]
        return [self.count if bound >= self.maximum else ends[bisect_right(values, bound)] for bound in bounds]

    def stats(self) -> dict[str, float]:
        """Return count, sum, avg, min, max and the percentiles of `QUANTILES`; nothing when there are no values."""
        if not self.count:
            return {}
        return {
            "count": self.count,
            "sum": self.total,
            "avg": self.total / self.count,
            "min": self.minimum,
            "max": self.maximum,
            **dict(zip(QUANTILES, self.quantiles(QUANTILES.values()), strict=True)),
        }

    def dump(self) -> dict[str, Any]:
        """Return everything as JSON types, for `load`."""
        counted = {"buckets": [list(item) for item in self._items()]} if self._raw is None else {"raw": list(self._raw)}
        return {"count": self.count, "sum": self.total, "min": self.minimum, "max": self.maximum, **counted}

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Sketch:
        """Build from what `dump` returned."""
        sketch = cls()
        sketch._widen(data["count"], data["sum"], data["min"], data["max"])
        if "raw" in data:
            sketch._raw = array("d", data["raw"])
        else:
            sketch._raw, sketch._buckets = None, Counter(dict(data["buckets"]))
        return sketch

    def encode(self) -> bytes:
        """Return everything in a few bytes, for `decode`."""
        self.pack()
        parts: tuple[array[Any], ...] = (self._raw,) if self._raw is not None else self._packed or ()
        types = [part.typecode.encode() for part in parts]
        head = _HEADER.pack(self.count, self.total, self.minimum, self.maximum, types[0], types[-1], len(parts[0]))
        return head + b"".join(_little_endian(part).tobytes() for part in parts)

    @classmethod
    def decode(cls, data: bytes, start: int = 0) -> tuple[Sketch, int]:
        """Return what `encode` returned and stands in `data` from `start` on, and where it ends."""
        sketch = cls()
        *totals, first, second, n = _HEADER.unpack_from(data, start)
        sketch._widen(*totals)
        values, middle = _array(first.decode(), data, start + _HEADER.size, n)
        if first == b"d":
            sketch._raw = values
            return sketch, middle
        counts, end = _array(second.decode(), data, middle, n)
        sketch._raw, sketch._packed = None, (values, counts)
        return sketch, end


def _small(codes: str, values: Iterable[int]) -> array[int]:
    """Return an array of the first type that all values fit."""
    for code in codes[:-1]:
        with suppress(OverflowError):
            return array(code, values)
    return array(codes[-1], values)


def _array(code: str, data: bytes, start: int, n: int) -> tuple[array[Any], int]:
    found: array[Any] = array(code)
    end = start + n * found.itemsize
    found.frombytes(data[start:end])
    return _little_endian(found), end


def _little_endian(values: array[Any]) -> array[Any]:
    """Swap on big-endian machines, so that hosts of both kinds may share a store."""
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values
