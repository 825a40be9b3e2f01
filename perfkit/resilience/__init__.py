"""What keeps one failing part from taking others down; each part is useful alone and knows nothing of providers."""

from perfkit.resilience.breaker import CircuitBreaker
from perfkit.resilience.singleflight import SingleFlight

__all__ = ["CircuitBreaker", "SingleFlight"]
