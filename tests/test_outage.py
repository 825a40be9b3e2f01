"""An outage in the middle of traffic: callers see none of it, and it costs few calls and few connections.

Three providers, one of them in Anthropic's shape; sixteen threads ask two thousand times (questions that come again,
fresh ones, streams); half way one provider fails in one of the ways providers fail. What was opened, asked and answered
is counted by the servers.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import perfkit
from perfkit._shared import _state
from perfkit.clock import SYSTEM_CLOCK
from perfkit.testing import FaultServer, faults

if TYPE_CHECKING:
    from perfkit.testing.faults import Behaviour

CALLS, THREADS, SEED = 2000, 16, 7
THRESHOLD = 5  # failures in a row that open a circuit
# Each thread may be under way when it begins: with a call that fails, or with one that succeeds yet and is told of in
# between, so that the row of failures begins anew. Without a circuit more than 200 calls are wasted.
WASTED = THRESHOLD + THREADS + (THRESHOLD - 1) * THREADS
BOUND = 8  # connections to one provider
PATIENCE = 20.0  # seconds until a recovery must have been seen
KINDS = {"a": "openai", "b": "openai", "c": "anthropic"}


class Fault(NamedTuple):
    """How one provider fails, and how it is mended."""

    name: str
    victim: str
    strike: Callable[[FaultServer], object]
    mend: Callable[[FaultServer], object] = FaultServer.behave
    cuts: bool = False  # connections in use


def replies(behaviour: Behaviour) -> Callable[[FaultServer], object]:
    return lambda server: server.behave(behaviour)


def refuse(server: FaultServer) -> None:
    server.refuse()
    server.disconnect()


FAULTS = [
    Fault("killed", "a", FaultServer.kill, FaultServer.start, cuts=True),
    Fault("killed, Anthropic", "c", FaultServer.kill, FaultServer.start, cuts=True),
    Fault("refused", "b", refuse, FaultServer.accept, cuts=True),
    Fault("reset", "c", replies(faults.cut(after_bytes=20))),
    Fault("hanging", "a", replies(faults.hang())),
    Fault("500", "b", replies(faults.server_error())),
    Fault("503", "c", replies(faults.server_error(503))),
    Fault("429", "a", replies(faults.rate_limited(60))),
    Fault("401", "c", replies(faults.unauthorized())),
]
EACH = pytest.mark.parametrize("fault_", FAULTS, ids=[fault.name for fault in FAULTS])


@pytest.fixture(scope="module")
def _started() -> Iterator[dict[str, FaultServer]]:
    servers = {name: FaultServer() for name in KINDS}
    try:
        yield {name: server.start() for name, server in servers.items()}
    finally:
        for server in servers.values():
            server.stop()


@pytest.fixture
def servers(_started: dict[str, FaultServer]) -> dict[str, FaultServer]:
    for server in _started.values():
        server.start().reset()
    return _started


def configure(servers: dict[str, FaultServer], **router: Any) -> None:
    perfkit.configure(
        providers={
            name: {"kind": KINDS[name], "base_url": server.base_url, "api_key": "sk-test", "models": ["tiny"]}
            for name, server in servers.items()
        },
        client={"default_model": "tiny"},
        tokens={"prices": {"tiny": {"input": 1.0, "output": 1.0}}},
        connections={"maxsize": BOUND},
        router={
            "strategy": "round_robin",
            "failure_threshold": THRESHOLD,
            "probe_interval": None,
            "outlier_factor": None,  # looks at ten seconds, which a test takes on a busy machine only
            **router,
        },
    )
    perfkit.optimizer.set_budget(("global", ""), 1e6, "day")


def questions(count: int) -> list[tuple[str, dict[str, Any] | None]]:
    """Return (text, arguments of `chat`, or None for a stream): a third each come again, are fresh, are streamed."""
    rng = random.Random(SEED)
    kinds: list[Callable[[int], tuple[str, dict[str, Any] | None]]] = [
        lambda _: (f"often asked {rng.randrange(40)}", {"temperature": 0}),
        lambda number: (f"fresh {number} {rng.random()}", {}),
        lambda number: (f"streamed {number} {rng.random()}", None),
    ]
    return [rng.choice(kinds)(number) for number in range(count)]


def answer(question: str, arguments: dict[str, Any] | None) -> perfkit.ChatResponse:
    if arguments is not None:
        return perfkit.chat(question, max_tokens=20, **arguments)
    with perfkit.stream(question, max_tokens=20) as stream:
        text = "".join(stream)
    assert stream.response is not None
    assert stream.response.text == text
    return stream.response


class Traffic:
    """Asks from many threads; `strike` is called by the one that begins the call in the middle."""

    def __init__(self, strike: Callable[[], object]) -> None:
        self.strike = strike
        self.answers: list[tuple[str, perfkit.ChatResponse]] = []
        self.interrupted: list[tuple[str, str]] = []  # streams, of which text was shown already: nobody can replace it
        self.failures: list[BaseException] = []
        self.begun = 0
        self._lock = threading.Lock()  # guards `begun`

    def run(self, count: int) -> None:
        asked = questions(count)
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda one: self._one(*one, middle=count // 2), asked))

    def _one(self, question: str, arguments: dict[str, Any] | None, *, middle: int) -> None:
        with self._lock:
            self.begun += 1
            strikes = self.begun == middle
        if strikes:
            self.strike()
        try:
            self.answers.append((question, answer(question, arguments)))
        except perfkit.StreamInterruptedError as error:
            self.interrupted.append((question, error.partial))
        except BaseException as error:
            self.failures.append(error)

    def attempts(self) -> list[perfkit.Attempt]:
        return [attempt for _, answer in self.answers for attempt in answer.attempts]


@EACH
def test_outage_of_one_of_three_is_not_seen_by_callers(servers: dict[str, FaultServer], fault_: Fault) -> None:
    configure(servers, attempt_timeout=2.0 if fault_.name == "hanging" else PATIENCE)
    victim, before = servers[fault_.victim], Counter[str]()

    def strike() -> None:
        before.update({name: seen for name, seen in victim.counters().items() if name in ("requests", "connections")})
        fault_.strike(victim)

    traffic = Traffic(strike)
    traffic.run(CALLS)

    assert traffic.failures == []
    assert len(traffic.answers) + len(traffic.interrupted) == CALLS
    assert all(heard and f"echo: {question}".startswith(heard) for question, heard in traffic.interrupted)
    assert len(traffic.interrupted) < (THREADS if fault_.cuts else 1)
    assert {question for question, answer in traffic.answers if answer.text != f"echo: {question}"} == set()
    assert before["requests"] > CALLS / 10  # the provider that failed had its share

    attempts = traffic.attempts()
    wasted = [attempt for attempt in attempts if attempt.outcome != "ok"]
    assert {attempt.provider for attempt in wasted} == {fault_.victim}
    asked = [attempt for attempt in wasted if attempt.error != "PoolTimeout"]  # who waits for a connection asks nobody
    assert 0 < len(asked) <= WASTED
    fresh = [answer for _, answer in traffic.answers if answer.cached is None]
    assert len(attempts) - len(wasted) == len(fresh)

    fault_.mend(victim)
    seen = {name: server.counters() for name, server in servers.items()}
    requests = sum(count["requests"] for count in seen.values())
    killed = fault_.strike is FaultServer.kill  # its counts are lost, but for those of `before`
    most = len(attempts) + len(traffic.interrupted)  # more would be requests that nobody knows of
    least = 0 if killed else len(fresh) if fault_.name in ("refused", "hanging") else most
    assert least <= requests <= most
    opened = {name: count["connections"] for name, count in seen.items()}
    opened[fault_.victim] += before["connections"] if killed else -len(wasted)  # each may take its connection along
    assert {name: count for name, count in opened.items() if count > 2 * BOUND} == {}  # streams that end late

    health = perfkit.router.health()
    assert {name: one["in_flight"] for name, one in health.items()} == dict.fromkeys(KINDS, 0)
    assert {one["status"] for name, one in health.items() if name != fault_.victim} == {"healthy"}
    assert [pool["in_use"] for pool in perfkit.connections.stats().values()] == [0, 0, 0]
    assert [budget["held"] for budget in perfkit.optimizer.budgets()] == [0.0]


def until(condition: Callable[[], bool], do: Callable[[], object]) -> None:
    deadline = SYSTEM_CLOCK.now() + PATIENCE
    while not condition():
        assert SYSTEM_CLOCK.now() < deadline, perfkit.router.health()
        do()


@EACH
def test_provider_gets_traffic_again_once_it_works_again(servers: dict[str, FaultServer], fault_: Fault) -> None:
    configure(servers, open_seconds=0.1, attempt_timeout=0.2 if fault_.name == "hanging" else PATIENCE)
    victim = servers[fault_.victim]
    asked: list[str] = []

    def ask() -> None:
        asked.append(answer("hello", {}).provider)

    until(lambda: fault_.victim in asked, ask)
    strike = replies(faults.rate_limited(0.1)) if fault_.name == "429" else fault_.strike
    strike(victim)
    until(lambda: perfkit.router.health()[fault_.victim]["status"] == "unavailable", ask)
    fault_.mend(victim)
    asked.clear()
    until(lambda: fault_.victim in asked, ask)
    perfkit.router.configure(attempt_timeout=PATIENCE)
    assert Counter(answer("hello", {}).provider for _ in range(9)) == {"a": 3, "b": 3, "c": 3}
    assert perfkit.router.health()[fault_.victim]["state"] == "closed"


def test_default_strategy_leaves_its_favourite_when_it_dies(servers: dict[str, FaultServer]) -> None:
    configure(servers, strategy="least_latency")
    slow = [server for name, server in servers.items() if name != "a"]
    asked: list[int] = []

    def strike() -> None:
        asked.extend(server.counters()["requests"] for server in servers.values())
        servers["a"].kill()
        for server in slow:
            server.behave()

    for server in slow:
        server.behave(faults.ok(delay=1.0))
    traffic = Traffic(strike)
    traffic.run(CALLS // 4)
    assert traffic.failures == []
    assert asked[0] > max(asked[1:])  # a busy machine may be slower than the others' delay for a while
    assert Counter(attempt.outcome for attempt in traffic.attempts())["error"] <= WASTED


def test_two_of_three_may_fail_at_once(servers: dict[str, FaultServer]) -> None:
    configure(servers)

    def strike() -> None:
        servers["a"].kill()
        servers["c"].behave(faults.server_error(503))

    traffic = Traffic(strike)
    traffic.run(CALLS // 2)
    assert traffic.failures == []
    assert Counter(attempt.outcome for attempt in traffic.attempts())["error"] <= 2 * WASTED


def test_nobody_gets_a_shared_object_before_it_is_configured() -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(perfkit.Profiler):
        configured = False

        def _configured(self, config: Any) -> None:
            begun.set()
            go_on.wait(PATIENCE)
            self.configured = True

    first = threading.Thread(target=Slow.instance)
    first.start()
    begun.wait(PATIENCE)
    with ThreadPoolExecutor(1) as other:
        found = other.submit(lambda: Slow.instance().configured)
        wait([found], timeout=0.1)  # it has to wait for the first; if it does not, it is done by now
        go_on.set()
        assert found.result(PATIENCE)
    first.join()
    _state.objects.pop(Slow)


def test_threads_may_make_the_first_calls_of_a_process_together(servers: dict[str, FaultServer]) -> None:
    code = f"""
import sys, threading
import perfkit
sys.setswitchinterval(1e-6)
perfkit.configure(
    providers={{"a": {{"kind": "openai", "base_url": "{servers["a"].base_url}", "api_key": "k"}}}},
    client={{"default_model": "tiny"}},
)
barrier, answers = threading.Barrier({THREADS}), []
def call():
    barrier.wait()
    try:
        answers.append(perfkit.chat("hi").text)
    except BaseException as error:
        answers.append(repr(error))
threads = [threading.Thread(target=call) for _ in range({THREADS})]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(set(answers), len(answers))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == f"{{'echo: hi'}} {THREADS}\n", done.stdout + done.stderr
