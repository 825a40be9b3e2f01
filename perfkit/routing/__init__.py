"""Which provider answers: choice, health, fallback and deadlines."""

from perfkit.routing.ab import ABTest
from perfkit.routing.factory import ProviderFactory
from perfkit.routing.health import Candidate
from perfkit.routing.mirror import Mirror
from perfkit.routing.multi import (
    AnthropicConfig,
    GoogleConfig,
    GroqConfig,
    MultiLLMConfig,
    OpenAIConfig,
    ProviderConfig,
)
from perfkit.routing.profiles import ModelProfile
from perfkit.routing.quality import Quality
from perfkit.routing.router import ProviderRouter
from perfkit.routing.strategies import STRATEGIES
from perfkit.routing.trial import Reservation, Reserve
from perfkit.routing.warming import Outcome

__all__ = [
    "STRATEGIES",
    "ABTest",
    "AnthropicConfig",
    "Candidate",
    "GoogleConfig",
    "GroqConfig",
    "Mirror",
    "ModelProfile",
    "MultiLLMConfig",
    "OpenAIConfig",
    "Outcome",
    "ProviderConfig",
    "ProviderFactory",
    "ProviderRouter",
    "Quality",
    "Reservation",
    "Reserve",
]
