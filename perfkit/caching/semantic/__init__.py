"""Answers to questions that mean the same: off by default, guarded, and with a promised rate of error.

Needs numpy (`pip install 'perfkit[semantic]'`), which is imported with this package and never by `import perfkit`.
"""

from perfkit.caching.semantic.bound import ErrorBound, Evidence, upper_bound
from perfkit.caching.semantic.embedders import (
    EMBEDDERS,
    EndpointEmbedder,
    HashedNgrams,
    SentenceTransformerEmbedder,
)
from perfkit.caching.semantic.guards import GUARDS, disagreement
from perfkit.caching.semantic.service import Found, Question, SemanticCache, same_text

__all__ = [
    "EMBEDDERS",
    "GUARDS",
    "EndpointEmbedder",
    "ErrorBound",
    "Evidence",
    "Found",
    "HashedNgrams",
    "Question",
    "SemanticCache",
    "SentenceTransformerEmbedder",
    "disagreement",
    "same_text",
    "upper_bound",
]
