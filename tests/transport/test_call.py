from __future__ import annotations

import math
from typing import Any

import pytest

from perfkit.clock import FakeClock
from perfkit.transport.call import Call, prepare


def prepared(method: str = "POST", body: Any = None, **options: Any) -> Call:
    return prepare(method, "/", {}, body, **{"now": FakeClock().now, "timeout": 5.0, **options})


def test_call_knows_its_end() -> None:
    clock = FakeClock()
    assert prepared(now=clock.now).deadline == clock.now() + 5.0
    assert prepared(timeout=None).deadline == math.inf


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf, "1"])
def test_timeout_that_is_no_time_is_refused(timeout: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        prepared(timeout=timeout)


def test_fields_of_the_body_are_added() -> None:
    assert prepared(body={"a": 1}).fields == {"content-type": "application/json", "content-length": "7"}
    assert prepared(body=None).fields == {"content-length": "0"}
    assert prepared("GET").fields == {}
