"""The collector of this process as it was, after each test."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from perfkit._process import background


@pytest.fixture(autouse=True)
def _same_collector() -> Iterator[None]:
    background.close()  # an earlier test's thread may be about to end
    before = gc.get_threshold(), gc.isenabled(), list(gc.callbacks)
    yield
    thresholds, enabled, callbacks = before
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    (gc.enable if enabled else gc.disable)()
    gc.callbacks[:] = callbacks
