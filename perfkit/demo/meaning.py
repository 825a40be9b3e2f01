"""What the semantic cache does with a question put in other words, and with one that differs in a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from perfkit.caching import CachePolicy
from perfkit.demo.ways import Perfkit

if TYPE_CHECKING:
    from perfkit.demo.ways import Setting

__all__ = ["Told", "by_meaning"]

_QUESTION = "How long should an answer of 30 lines be kept"
_ASKED = (f"{_QUESTION}?", f"{_QUESTION}, please?", f"{_QUESTION}?".replace("30", "90"))
_THRESHOLD = 0.85  # hashed n-grams know spelling only: the guards are what tells 30 from 90


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a question.

    Attributes:
        question: as it was asked.
        served: it got the answer of another one.
        refused_by: the guard that told it from the nearest other one, None where none did.
    """

    question: str
    served: bool
    refused_by: str | None


def by_meaning(setting: Setting) -> list[Told]:
    """Ask three questions through a semantic cache that needs no download; two of them reach a provider."""
    from perfkit.caching.semantic import SemanticCache

    semantic = SemanticCache(embedder="hashed", threshold=_THRESHOLD, verify=0.0)
    way, told = Perfkit(setting, cache=True), list[Told]()
    try:
        for question in _ASKED:
            before = semantic.stats()["refused"]
            cached = way.cached(question, CachePolicy(semantic=semantic))
            after = semantic.stats()["refused"]
            guards = [guard for guard in after if after[guard] != before.get(guard)]
            told.append(Told(question, cached == "semantic", guards[0] if guards else None))
    finally:
        way.close()
        semantic.close()
    return told
