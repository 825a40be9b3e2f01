"""What keeps one failing part from taking others down; each part is useful alone and knows nothing of providers."""

from perfkit.resilience.allowance import Allowance
from perfkit.resilience.breaker import CircuitBreaker
from perfkit.resilience.bulkhead import Bulkhead, GradientLimit
from perfkit.resilience.rate import RateLimit, SharedRateLimit
from perfkit.resilience.singleflight import SingleFlight

__all__ = [
    "Allowance",
    "Bulkhead",
    "CircuitBreaker",
    "GradientLimit",
    "RateLimit",
    "SharedRateLimit",
    "SingleFlight",
]
