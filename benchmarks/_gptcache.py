"""GPTCache as the cache benchmark runs it: its map of exact questions, and its look-up by meaning with our embedder.

It installs missing packages by itself when they are first wanted, so only what is installed already is tried: the
look-up needs faiss and SQLAlchemy. Both caches are given the same vectors of hashed n-grams, ours its guards, and it
its defaults; what is compared is the share of pairs of which the second question gets the first one's answer.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["exact", "served_pairs"]

Embed = Callable[[Sequence[str]], Sequence[Any]]
Pairs = list[tuple[str, str]]


def _is_installed(*names: str) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in names)


def exact(room: int) -> tuple[Callable[[str], object], Callable[[str, str], object]] | None:
    """Return get and put of its map, None where it is not installed."""
    if not _is_installed("gptcache"):
        return None
    from gptcache import Cache
    from gptcache.adapter.api import get, put
    from gptcache.manager.factory import manager_factory
    from gptcache.processor.pre import get_prompt

    one = Cache()
    manager = manager_factory("map", data_dir=tempfile.mkdtemp(), max_size=room)
    one.init(pre_embedding_func=get_prompt, data_manager=manager)
    return lambda key: get(key, cache_obj=one), lambda key, value: put(key, value, cache_obj=one)


def _by_meaning(embed: Embed, dimensions: int, folder: Path) -> Any:
    from gptcache import Cache
    from gptcache.manager import CacheBase, VectorBase
    from gptcache.manager.factory import get_data_manager
    from gptcache.processor.pre import get_prompt
    from gptcache.similarity_evaluation import SearchDistanceEvaluation

    index = VectorBase("faiss", dimension=dimensions, index_path=str(folder / "index"))
    one = Cache()
    one.init(
        pre_embedding_func=get_prompt,
        embedding_func=lambda text, **_: embed([text])[0],
        data_manager=get_data_manager(CacheBase("sqlite", sql_url=f"sqlite:///{folder}/answers.db"), index),
        similarity_evaluation=SearchDistanceEvaluation(),
    )
    return one


def served_pairs(pairs: Pairs) -> dict[str, float | str]:
    """Return the percentage of pairs of which the second question gets the first one's answer, by perfkit and by it."""
    import numpy as np

    from perfkit.caching.semantic import HashedNgrams, SemanticCache
    from perfkit.metrics import PerformanceTracker

    hashed = HashedNgrams()

    def embed(texts: Sequence[str]) -> list[Any]:
        return [vector / np.linalg.norm(vector) for vector in hashed(texts)]

    found: dict[str, float | str] = {"pairs": len(pairs)}
    for threshold in (0.95, 0.6):
        cache = SemanticCache(embed=embed, tracker=PerformanceTracker(), threshold=threshold, verify=0.0)
        served = sum(_serves(cache, str(number), *pair) for number, pair in enumerate(pairs))
        found[f"perfkit, {threshold}, %"] = round(100 * served / len(pairs), 1)
    found["GPTCache, its defaults (cosine 0.6), %"] = _served_by_gptcache(pairs, embed, hashed.dimensions)
    return found


def _serves(cache: Any, partition: str, known: str, asked: str) -> bool:
    cache.add(cache.ask(partition, "route", known), known)
    found = cache.search(cache.ask(partition, "route", asked))
    return found is not None and found.action == "serve"


def _served_by_gptcache(pairs: Pairs, embed: Embed, dimensions: int) -> float | str:
    if not _is_installed("gptcache", "faiss", "sqlalchemy"):
        return "not installed"
    from gptcache.adapter.api import get, put

    served = 0
    for known, asked in pairs:
        one = _by_meaning(embed, dimensions, Path(tempfile.mkdtemp()))  # it writes there as the process ends
        put(known, known, cache_obj=one)
        served += get(asked, cache_obj=one) is not None
    return round(100 * served / len(pairs), 1)
