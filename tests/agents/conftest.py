from __future__ import annotations

from collections.abc import Iterator

import pytest
from agents.workshop import Workshop

from perfkit.agents import AgentPool
from perfkit.clock import FakeClock


@pytest.fixture
def pool(clock: FakeClock) -> Iterator[AgentPool]:
    made = AgentPool(clock=clock)
    yield made
    made.reset()


@pytest.fixture
def shop() -> Workshop:
    return Workshop()
