from __future__ import annotations

import ssl
import sys

import pytest

from perfkit.clock import FakeClock
from perfkit.errors import DeadlineExceeded, NetworkError, PoolTimeout, TransportError
from perfkit.transport.call import Call, prepare
from perfkit.transport.retry import persist, worth_another_try

REFUSED = NetworkError("refused", sent=False)
RESET = NetworkError("reset")


def a_call(clock: FakeClock, method: str = "POST", timeout: float = 60.0) -> Call:
    return prepare(method, "/", {}, None, now=clock.now, timeout=timeout)


@pytest.mark.parametrize(
    ("error", "method", "expected"),
    [
        (REFUSED, "POST", True),
        (RESET, "POST", False),
        (RESET, "GET", True),
        (RESET, "PUT", True),
        (RESET, "PATCH", False),
        (DeadlineExceeded("connect_timeout", sent=False), "POST", True),
        (DeadlineExceeded("read_timeout"), "POST", False),
        (PoolTimeout("full"), "GET", False),
        (ValueError("bad header"), "GET", False),
    ],
)
def test_only_harmless_and_promising_tries_are_made_again(error: Exception, method: str, expected: bool) -> None:
    assert worth_another_try(error, method) is expected


def test_untrusted_certificate_is_not_tried_again() -> None:
    error = NetworkError("not trusted", sent=False)
    error.__cause__ = ssl.SSLError("wrapped")
    error.__cause__.__cause__ = ssl.SSLCertVerificationError("self-signed")
    assert not worth_another_try(error, "GET")


def test_tries_are_counted_and_the_last_error_is_raised() -> None:
    clock, tries = FakeClock(), list[int]()
    call = a_call(clock)

    def send() -> str:
        tries.append(call.attempt)
        raise NetworkError(f"try {call.attempt}", sent=False)

    with pytest.raises(NetworkError, match="try 4"):
        persist(send, REFUSED, call, 3, clock)
    assert tries == [2, 3, 4]


def test_success_ends_the_tries() -> None:
    clock = FakeClock()
    assert persist(lambda: "answer", REFUSED, a_call(clock), 3, clock) == "answer"


def test_pauses_grow_and_are_taken_from_the_clock() -> None:
    clock, at = FakeClock(), list[float]()
    start = clock.now()

    def send() -> str:
        at.append(clock.now() - start)
        raise REFUSED

    with pytest.raises(NetworkError):
        persist(send, REFUSED, a_call(clock), 6, clock)
    pauses = [b - a for a, b in zip([0.0, *at], at, strict=False)]
    for number, pause in enumerate(pauses, 1):
        longest = min(2.0, 0.1 * 2 ** (number - 1))
        assert 0.5 * longest <= pause <= longest


def test_no_try_begins_that_the_deadline_would_cut() -> None:
    clock, tries = FakeClock(), list[float]()
    call = a_call(clock, timeout=0.5)

    def send() -> str:
        tries.append(clock.now())
        raise REFUSED

    with pytest.raises(NetworkError, match="refused"):
        persist(send, REFUSED, call, 100, clock)
    assert 1 <= len(tries) < 5
    assert max(tries) < call.deadline


def test_an_error_that_may_have_arrived_ends_the_tries() -> None:
    clock, tries = FakeClock(), list[int]()

    def send() -> str:
        tries.append(1)
        raise RESET

    with pytest.raises(TransportError, match="reset"):
        persist(send, REFUSED, a_call(clock), 5, clock)
    assert len(tries) == 1


def test_retry_library_is_imported_on_the_first_failure_only() -> None:
    import subprocess

    from _parts import REPOSITORY

    code = (
        "import sys, perfkit.transport as t; t.HTTPClient('http://127.0.0.1:1');"
        "assert 'tenacity' not in sys.modules; c = t.HTTPClient('http://127.0.0.1:1', retries=1)\n"
        "try: c.get('/')\nexcept ConnectionError: assert 'tenacity' in sys.modules; print('fine')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "fine\n", done.stderr
