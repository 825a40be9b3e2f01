"""Which provider answers: choice, health, fallback and deadlines."""

from perfkit.routing.ab import ABTest
from perfkit.routing.health import Candidate
from perfkit.routing.mirror import Mirror
from perfkit.routing.profiles import ModelProfile
from perfkit.routing.quality import Quality
from perfkit.routing.router import ProviderRouter
from perfkit.routing.strategies import STRATEGIES
from perfkit.routing.trial import Reservation, Reserve
from perfkit.routing.warming import Outcome

__all__ = [
    "STRATEGIES",
    "ABTest",
    "Candidate",
    "Mirror",
    "ModelProfile",
    "Outcome",
    "ProviderRouter",
    "Quality",
    "Reservation",
    "Reserve",
]
