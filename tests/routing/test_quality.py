from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from perfkit.routing import Quality
from perfkit.tokens import TokenOptimizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit.metrics import PerformanceTracker
    from perfkit.routing import ProviderRouter
    from perfkit.values import ChatRequest

    MakeRouter = Callable[..., ProviderRouter]


def test_what_answers_were_worth_is_expected_of_the_next_of_that_route(
    router: MakeRouter, request_: ChatRequest, tracker: PerformanceTracker
) -> None:
    optimizer = TokenOptimizer(tracker=tracker)
    made, poor = router(a=0.0), request_.evolve(agent="poor")
    for request, worth in ((request_, 1.0), (poor, 0.0)):
        quality = Quality(score=lambda *_, worth=worth: worth, threshold=0.0, tracker=tracker, optimizer=optimizer)
        assert optimizer.predict_quality(request) is None or worth == 0.0
        for _ in range(100):
            made.execute_with_fallback(request, quality=quality)
    assert optimizer.predict_quality(request_) == pytest.approx(1.0, abs=0.1)
    assert optimizer.predict_quality(poor) == pytest.approx(0.0, abs=0.1)
