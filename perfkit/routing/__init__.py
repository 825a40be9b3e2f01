"""Which provider answers: choice, health, fallback and deadlines."""

from perfkit.routing.attempts import Reservation, Reserve
from perfkit.routing.health import Candidate
from perfkit.routing.router import ProviderRouter
from perfkit.routing.strategies import STRATEGIES

__all__ = ["STRATEGIES", "Candidate", "ProviderRouter", "Reservation", "Reserve"]
