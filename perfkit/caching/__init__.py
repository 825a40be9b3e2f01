"""No call paid twice, no answer given to the wrong person or the wrong question."""

from perfkit.caching.freshness import NOT_ASKED, CachePolicy, Decision, decide, read_traits
from perfkit.caching.keys import request_digest, scoped_key
from perfkit.caching.response import Cached, ResponseCache

__all__ = [
    "NOT_ASKED",
    "CachePolicy",
    "Cached",
    "Decision",
    "ResponseCache",
    "decide",
    "read_traits",
    "request_digest",
    "scoped_key",
]
