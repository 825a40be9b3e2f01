"""No call paid twice, no answer given to the wrong person or the wrong question."""

from perfkit.caching.backends import BACKENDS, Backend
from perfkit.caching.entry import Cached, Entry
from perfkit.caching.freshness import NOT_ASKED, TTLS, Decision, decide, read_traits
from perfkit.caching.keys import request_digest, scoped_key
from perfkit.caching.policy import CachePolicy
from perfkit.caching.response import ResponseCache
from perfkit.caching.service import CachedAgent, cached

__all__ = [
    "BACKENDS",
    "NOT_ASKED",
    "TTLS",
    "Backend",
    "CachePolicy",
    "Cached",
    "CachedAgent",
    "Decision",
    "Entry",
    "ResponseCache",
    "cached",
    "decide",
    "read_traits",
    "request_digest",
    "scoped_key",
]
