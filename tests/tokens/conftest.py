"""What the tests of tokens share."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def _give_way() -> Iterator[None]:
    """Let another thread run at every function call of threads started now, so that a missing lock shows."""
    before = threading.gettrace()
    threading.settrace(lambda *_: time.sleep(0))
    yield
    threading.settrace(before)
