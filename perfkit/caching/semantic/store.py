"""The questions a semantic cache knows, apart by partition, and the answers they lead to.

A partition is everything of a request but the words of its last question: scope, model, system prompt, parameters,
tools, context and the conversation so far. Nothing is ever looked for in another one. An answer may have several
questions: those that were verified to have the same answer stand for it too.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

from perfkit.caching.semantic.bound import Evidence
from perfkit.caching.semantic.index import BRUTE_FORCE_LIMIT, BruteForce, Graph
from perfkit.caching.semantic.wording import wording

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perfkit.caching.matching import Match as Invalidation
    from perfkit.caching.semantic.index import Vector, VectorIndex

__all__ = ["Answer", "Match", "Questions"]

VOTERS = 7  # nearest questions that are asked which answer they have
LOOKED_AT = 3  # of those, how many may be refused by a guard before the search is given up


class Answer:
    """An answer in the exact cache, and how often it was verified; changed under the lock of its Questions."""

    __slots__ = ("gone", "key", "right", "rows", "worst", "wrong")

    def __init__(self, key: str) -> None:
        self.key = key
        self.right = self.wrong = 0
        self.worst = 0.0  # similarity of the nearest question it was wrong for
        self.rows = 0
        self.gone = False


class Match(NamedTuple):
    """A known question near the one asked, and its answer."""

    answer: Answer
    text: str
    evidence: Evidence


class _Partition:
    """The questions of one partition."""

    def __init__(self, index: VectorIndex) -> None:
        self.index = index
        self.texts: list[str] = []
        self.answers: list[Answer] = []
        self.by_key: dict[str, Answer] = {}  # answers by the keys of all their questions
        self.dead = 0

    def known(self, key: str | None) -> Answer | None:
        """Return the answer that a question with this key has, if it is not gone."""
        answer = self.by_key.get(key) if key is not None else None
        return answer if answer is not None and not answer.gone else None


class Questions:
    """Questions by partition, at most `max_entries` in all; the partition unused for longest makes room.

    Args:
        max_entries: questions kept; beyond 100,000 in one partition usearch is needed.
    """

    def __init__(self, max_entries: int) -> None:
        self.max_entries = max_entries
        self._partitions: OrderedDict[str, _Partition] = OrderedDict()
        self._count = 0
        self._lock: Any = None
        self.renew()

    def renew(self) -> bool:
        """Make the lock new; after a fork, begin without questions if a thread of the parent was changing them.

        Return whether they are all still there.
        """
        whole = self._lock is None or not self._lock.locked()
        if not whole:
            self._partitions, self._count = OrderedDict(), 0
        self._lock = threading.Lock()  # guards the table, its partitions' growth, and the counts of answers
        return whole

    def matches(self, partition: str, text: str, vector: Vector, least: float) -> Iterator[Match]:
        """Yield known questions at least that similar, the nearest first, each with what is known of it."""
        with self._lock:
            found = self._partitions.get(partition)
            if found is None:
                return
            self._partitions.move_to_end(partition)
        near = found.index.near(vector, least, 8 * VOTERS)  # outside the lock: it takes milliseconds
        rows = [(found.answers[row], found.texts[row], cosine) for row, cosine in near]
        rows = [row for row in rows if not row[0].gone]
        for at in range(min(LOOKED_AT, len(rows))):
            yield _match(text, rows, at, least)

    def add(self, partition: str, text: str, vector: Vector, key: str, *, like: str | None = None) -> None:
        """Remember a question whose answer is kept under `key`.

        Args:
            partition: where it is looked for.
            text: the question.
            vector: of it.
            key: each question has its own.
            like: the key of an answer that was verified to answer this question too, which is now this one.
        """
        with self._lock:
            found = self._partitions.get(partition)
            if found is None:
                found = self._partitions[partition] = _Partition(BruteForce(len(vector)))
            self._partitions.move_to_end(partition)
            before, answer = found.known(key), found.known(like)
            if answer is not None:
                answer.key = key
                if before is not None:  # the question itself is here already
                    return
            else:
                answer = Answer(key)
                if before is not None:
                    self._bury(partition, found, before)  # it was asked anew: what was learned of the old one is over
                    found = self._partitions[partition]
            self._put(found, text, vector, answer, key)
            self._make_room()

    def _put(self, found: _Partition, text: str, vector: Vector, answer: Answer, key: str) -> None:
        if len(found.index) == BRUTE_FORCE_LIMIT and isinstance(found.index, BruteForce):
            found.index = _as_graph(found.index)
        found.texts.append(text)
        found.answers.append(answer)
        found.by_key[key] = answer
        answer.rows += 1
        found.index.add(vector)  # last: a search may read the lists up to the rows it finds
        self._count += 1

    def _make_room(self) -> None:
        while self._count > self.max_entries:
            name, oldest = next(iter(self._partitions.items()))
            if len(self._partitions) == 1:
                self._partitions[name] = _newer_half(oldest)
                self._count = len(self._partitions[name].index)
                return
            del self._partitions[name]
            self._count -= len(oldest.index)

    def forget(self, partition: str, answer: Answer) -> None:
        """Lead no question to `answer` any more: it has left the cache."""
        with self._lock:
            found = self._partitions.get(partition)
            if not answer.gone and found is not None:
                self._bury(partition, found, answer)

    def _bury(self, partition: str, found: _Partition, answer: Answer) -> None:
        answer.gone = True
        found.dead += answer.rows
        if found.dead > len(found.index) // 2:
            kept = self._partitions[partition] = _compacted(found, 0)
            self._count -= len(found.index) - len(kept.index)

    def drop(self, match: Invalidation) -> None:
        """Forget the questions of all partitions that an invalidation means."""
        with self._lock:
            for name in [name for name in self._partitions if match.covers(name, frozenset())]:
                self._count -= len(self._partitions.pop(name).index)

    def judge(self, partition: str, key: str, similarity: float, *, right: bool) -> None:
        """Take in whether an answer was right for a question of this similarity."""
        with self._lock:
            found = self._partitions.get(partition)
            answer = None if found is None else found.known(key)
            if answer is None:
                return
            if right:
                answer.right += 1
            else:
                answer.wrong += 1
                answer.worst = max(answer.worst, similarity)

    def clear(self) -> None:
        """Forget all questions."""
        with self._lock:
            self._partitions.clear()
            self._count = 0

    def __len__(self) -> int:
        return self._count


def _match(asked: str, rows: list[tuple[Answer, str, float]], at: int, least: float) -> Match:
    answer, text, similarity = rows[at]
    others = [cosine for other, _, cosine in rows if other is not answer]
    voters = rows[:VOTERS]
    shared, different = wording(asked, text)
    evidence = Evidence(
        similarity=similarity,
        margin=similarity - max(others, default=min(least, similarity)),
        vote=sum(other is answer for other, _, _ in voters) / len(voters),
        right=answer.right,
        wrong=answer.wrong,
        shared=shared,
        different=different,
    )
    return Match(answer, text, evidence)


def _newer_half(partition: _Partition) -> _Partition:
    return _compacted(partition, len(partition.index) // 2)


def _compacted(partition: _Partition, first: int) -> _Partition:
    """Return a partition without the rows before `first` and those whose answer is gone."""
    rows = [row for row in range(first, len(partition.index)) if not partition.answers[row].gone]
    kind = BruteForce if len(rows) <= BRUTE_FORCE_LIMIT else Graph
    made = _Partition(kind(partition.index.dimensions))
    for row in rows:
        made.index.add(partition.index.row(row))
    made.texts = [partition.texts[row] for row in rows]
    made.answers = [partition.answers[row] for row in rows]
    left = set(map(id, made.answers))
    made.by_key = {key: answer for key, answer in partition.by_key.items() if id(answer) in left}
    return made


def _as_graph(index: BruteForce) -> VectorIndex:
    graph = Graph(index.dimensions)
    for row in range(len(index)):
        graph.add(index.row(row))
    return graph
