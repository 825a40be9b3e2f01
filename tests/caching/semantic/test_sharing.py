"""What semantic caches of several processes, or caches that stand for them, learn from each other."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from _backends import prepared
from _forks import await_child, start_child
from _parts import REPOSITORY
from _servers import Redis, environment, polled
from cryptography.fernet import Fernet

import perfkit
from perfkit.caching.keys import scope_of
from perfkit.caching.response import ResponseCache
from perfkit.caching.semantic import SemanticCache, sharing
from perfkit.caching.semantic.sharing import Sharing
from perfkit.metrics import PerformanceTracker
from perfkit.providers import create_provider
from perfkit.routing import ProviderRouter
from perfkit.state import RedisLink
from perfkit.testing import FaultServer
from perfkit.values import ChatResponse, Usage

PARTITION = "chat:0:public"
ANNAS = "chat:0:user:anna"


def embed(texts: Sequence[str]) -> list[list[float]]:
    return [[1.0, len(text) / 1000, 0.0] for text in texts]


def same(cached: ChatResponse, fresh: ChatResponse) -> bool:
    return cached.text == fresh.text


def answer(text: str) -> ChatResponse:
    return ChatResponse(text, Usage(1, 1), "m", "p")


def of_a_script(cached: ChatResponse, fresh: ChatResponse) -> bool:
    return cached is fresh


of_a_script.__module__ = "__main__"  # where any other script may have one of that name


class Worker:
    """One process, as far as its caches go; it reads and sends when told."""

    def __init__(self, where: dict[str, Any], **settings: Any) -> None:
        tracker = PerformanceTracker()
        given = {"embed": embed, "judge": same, "verify": 0.0, **settings}
        self.cache = ResponseCache(tracker=tracker, **where)
        self.semantic = SemanticCache(tracker=tracker, rng=random.Random(1), **given)
        self.semantic.attend(self.cache)

    @property
    def sharing(self) -> Sharing:
        assert self.semantic._sharing is not None
        return self.semantic._sharing

    def sync(self) -> None:
        self.sharing.sync()

    def find(self, text: str, partition: str = PARTITION) -> Any:
        question = self.semantic.ask(partition, "r", text)
        assert question is not None
        return question, self.semantic.search(question)

    def know(self, text: str, partition: str = PARTITION, **how: Any) -> None:
        question, _ = self.find(text, partition)
        self.semantic.add(question, f"key of {text}", **how)

    def learn(self, text: str, *, right: bool) -> None:
        question, found = self.find(text)
        self.semantic.learn(question, found, answer("a"), answer("a" if right else "b"))

    def rows(self) -> list[tuple[Any, bytes]]:
        return self.sharing._log.read(self.sharing._log.start, 10_000)


Make = Callable[..., Worker]


def link_of(worker: Worker) -> RedisLink:
    link = worker.cache.shelf.link
    assert isinstance(link, RedisLink)
    return link


@pytest.fixture(params=["redis", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr(sharing, "EVERY", 3600.0)  # only when a test says so
    made = []
    with prepared(request.param, tmp_path) as where:

        def one(*, cache: dict[str, Any] | None = None, **settings: Any) -> Worker:
            made.append(Worker({**where, **(cache or {})}, **settings))
            return made[-1]

        yield one
        for worker in made:
            worker.semantic.reset()
            worker.cache.close()


def told(*workers: Worker) -> None:
    for worker in (*workers, *workers):
        worker.sync()


def test_what_one_is_asked_all_know_and_so_does_who_comes_later(make: Make) -> None:
    one, two = make(), make()
    one.know("xxxx")
    assert two.find("xxxxx")[1] is None
    told(one, two)
    later = make()
    told(later)
    for worker in (two, later):
        assert worker.find("xxxxx")[1].key == "key of xxxx"
        assert worker.find("xxxxx", ANNAS)[1] is None


def test_what_one_has_verified_counts_for_all(make: Make) -> None:
    one, two = make(max_error_rate=0.05), make(max_error_rate=0.05)
    told(one, two)
    one.know("xxxx")
    for number in range(200):
        one.learn("x" * (5 + number % 20), right=True)
    assert one.find("xxxxx")[1].action == "serve"
    assert two.find("xxxxx")[1] is None
    told(one, two)
    later = make(max_error_rate=0.05)
    told(later)
    for worker in (two, later):
        assert worker.find("xxxxx")[1].action == "serve"
        assert worker.semantic.stats()["routes"]["r"]["verified"] == 200
    later.learn("xxxxx", right=False)
    told(later, one)
    assert one.find("xxxx" + "x")[1].match.answer.wrong == 1


@pytest.mark.parametrize("make", ["sqlite"], indirect=True)
def test_nothing_is_served_before_all_that_was_learned_is_read(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "AT_ONCE", 50)
    monkeypatch.setattr(sharing, "BUSY", -1.0)
    one = make(max_error_rate=0.05)
    told(one)
    one.know("xxxx")
    for number in range(220):
        one.learn("x" * (5 + number % 20), right=number < 180)
    told(one)
    assert one.find("xxxxx")[1].action == "learn"
    later, actions = make(max_error_rate=0.05), []
    while not later.sharing.ready:
        actions.append(found.action if (found := later.find("xxxxx")[1]) else None)
        later.sync()
    assert len(actions) == 5  # at 180 right ones it would have served
    assert "serve" not in actions
    assert later.find("xxxxx")[1].action == "learn"


@pytest.mark.parametrize("make", ["sqlite"], indirect=True)
def test_two_that_share_are_not_wrong_more_often_than_one(make: Make) -> None:
    """Questions of 6 topics, 2 in 100 of which are of another one; each served, wrong or not, is counted."""
    chosen = random.Random(4)
    topics = [chosen.randrange(6) for _ in range(700)]
    texts = [
        f"{'x' * (1 + 20 * topic + chosen.randrange(3))}{'?' * (number % 5)}" for number, topic in enumerate(topics)
    ]
    truths = [topic if chosen.random() > 0.02 else -number for number, topic in enumerate(topics, 1)]

    def served(*workers: Worker) -> tuple[int, int]:
        hits = wrong = 0
        for number, (text, truth) in enumerate(zip(texts, truths, strict=True)):
            worker = workers[number % len(workers)]
            question, found = worker.find(text)
            if found is not None and found.action == "serve":
                hits += 1
                wrong += answers[found.key] != truth
                continue
            like = None
            if found is not None and worker.semantic.learn(
                question, found, answer(str(answers[found.key])), answer(str(truth))
            ):
                like = found
            answers[f"{number}"] = truth
            worker.semantic.add(question, f"{number}", like=like)
            if number % 20 == 0:
                told(*workers)
        return hits, wrong

    answers: dict[str, int] = {}
    settings = {"max_error_rate": 0.1, "verify": 0.1, "threshold": 0.9, "explore": 0.99}
    alone, wrong_alone = served(make(**settings, name="alone"))
    both, wrong_both = served(make(**settings, name="both"), make(**settings, name="both"))
    apart, _ = served(make(**settings, name="left"), make(**settings, name="right"))
    assert both >= 0.8 * alone > 0
    assert both > apart
    assert wrong_both <= max(wrong_alone, 0.1 * both)


def test_what_leaves_the_process_is_encrypted_and_of_no_use_without_the_key(make: Make) -> None:
    key, other = (Fernet.generate_key().decode() for _ in range(2))
    one = make(cache={"encryption_key": key})
    one.know("secret question")
    told(one)
    assert len(one.rows()) == 1
    assert all(b"question" not in record for _, record in one.rows())
    plain, wrong, right = make(), make(cache={"encryption_key": other}), make(cache={"encryption_key": key})
    told(plain, wrong, right)
    assert [len(worker.semantic) for worker in (plain, wrong, right)] == [0, 0, 1]


def test_what_does_not_go_together_is_not_shared(make: Make) -> None:
    one = make()
    one.know("xxxx")
    told(one)
    for other in (make(name="b"), make(cache={"generation": "2"}), make(judge=None)):
        told(other)
        assert len(other.semantic) == 0
    nameless = make(judge=lambda *_: True)
    assert make(judge=of_a_script).semantic._sharing is None
    assert nameless.semantic._sharing is None
    assert make(judge=lambda *_: True, name="c").sharing


def test_what_is_invalidated_is_forgotten_by_all_and_leaves_the_log(make: Make) -> None:
    one, two = make(), make()
    for partition in (PARTITION, ANNAS, ANNAS[:-4] + scope_of("anna")[5:]):
        one.know("xxxx", partition)
    told(one, two)
    two.cache.forget(user="anna")
    told(two, one)
    assert [len(worker.semantic) for worker in (one, two)] == [2, 2]
    two.cache.clear()
    told(two, one)
    assert [len(worker.semantic) for worker in (one, two)] == [0, 0]
    later = make()
    told(later)
    assert len(later.semantic) == 0
    assert all(b"xxxx" not in record for _, record in later.rows())
    later.know("xxxx")
    told(later, one)
    one.semantic.clear()
    told(one, later)
    assert len(later.semantic) == 0


def test_what_has_ended_with_its_answer_is_not_learned_again(make: Make) -> None:
    one = make()
    one.know("xxxx", ttl=1e-6)
    one.know("x" * 99)
    told(one)
    later = make()
    told(later)
    assert len(later.semantic) == 1


def test_the_log_is_bounded(make: Make) -> None:
    one = make(max_entries=150)
    for number in range(500):
        one.know("x" * (1 + number))
        if number % 100 == 99:
            told(one)
    assert len(one.rows()) <= 350  # Redis drops whole nodes of 100


def test_garbage_and_what_another_version_wrote_is_passed_over(make: Make) -> None:
    one, two = make(), make()
    one.know("xxxx")
    told(one)
    (_, good), most = one.rows()[0], 100
    one.sharing._log.append([b"", b"garbage", good[:-9]], most)
    one.sharing.tell({"partition": PARTITION, "text": "t", "vector": "~", "key": "k", "like": None}, life=60)
    one.know("x" * 99)
    told(one, two)
    assert len(two.semantic) == 2


def test_what_is_sent_twice_is_learned_once(make: Make) -> None:
    one, two = make(max_error_rate=0.05), make(max_error_rate=0.05)
    one.know("xxxx")
    one.learn("xxxxx", right=True)
    told(one)
    one.sharing._log.append([record for _, record in one.rows()], 100)
    told(two)
    assert two.semantic.stats()["routes"]["r"]["verified"] == 1
    assert len(two.semantic) == 1


@pytest.mark.parametrize("make", ["redis"], indirect=True)
def test_a_forked_child_learns_what_its_parent_knew_once_and_tells_as_himself(make: Make) -> None:
    parent, other = make(max_error_rate=0.05), make(max_error_rate=0.05)
    told(parent)
    parent.know("xxxx")
    parent.learn("xxxxx", right=True)
    gate, opener = os.pipe()

    def learns() -> int:
        os.read(gate, 1)
        parent.learn("xxxxxx", right=True)
        told(parent)
        return int(parent.semantic.stats()["routes"]["r"]["verified"])

    child = start_child(learns)
    told(parent)
    os.write(opener, b"x")
    assert await_child(*child) == 2
    told(parent, other)
    for worker in (parent, other):
        assert worker.semantic.stats()["routes"]["r"]["verified"] == 2


def test_with_answers_of_its_own_a_process_shares_only_what_it_learned_of_similarity(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "EVERY", 3600.0)
    perfkit.configure(state={"url": redis.url, "timeout": 5.0})
    one, two = Worker({}, max_error_rate=0.05), Worker({}, max_error_rate=0.05)
    one.know("xxxx")
    one.learn("xxxxx", right=True)
    told(one, two)
    assert len(two.semantic) == 0
    assert two.semantic.stats()["routes"]["r"]["verified"] == 1
    for worker in (one, two):
        worker.semantic.reset()


def test_while_redis_is_away_each_goes_on_and_tells_the_others_afterwards(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "EVERY", 3600.0)
    where = {"backend": "redis", "url": redis.url}
    perfkit.configure(state={"timeout": 5.0})
    one, two = Worker(where, max_error_rate=0.05), Worker(where, max_error_rate=0.05)
    told(one, two)
    redis.kill()
    one.know("xxxx")
    for number in range(200):
        one.learn("x" * (5 + number % 20), right=True)
    told(one, two)
    assert one.find("xxxxx")[1].action == "serve"
    begun = Worker(where, max_error_rate=0.05)
    told(begun)
    assert begun.sharing.ready
    redis.start()
    polled(lambda: [link_of(worker).available for worker in (one, two, begun)] == [True] * 3)
    told(one, two, begun)
    for worker in (two, begun):
        assert worker.find("xxxxx")[1].action == "serve"
    for worker in (one, two, begun):
        worker.semantic.reset()
        worker.cache.close()


def test_the_log_sends_no_command_that_looks_at_or_removes_what_is_not_its_own(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "EVERY", 3600.0)
    perfkit.configure(state={"timeout": 5.0})
    one = Worker({"backend": "redis", "url": redis.url})
    link = link_of(one)
    link.call("CONFIG", "RESETSTAT")
    one.know("xxxx")
    told(one)
    one.semantic.clear()
    told(one)
    sent = {name for name in link.call("INFO", "commandstats") if "|" not in name}
    assert {"cmdstat_xadd", "cmdstat_xread", "cmdstat_xdel"} <= sent
    assert not sent & {f"cmdstat_{name}" for name in ("keys", "scan", "flushall", "flushdb", "del", "unlink")}
    one.semantic.reset()
    one.cache.close()


LEARN = """
import os, signal, sys, time
import perfkit
from test_sharing import Worker

perfkit.configure(state={"timeout": 5.0})
one = Worker({"backend": sys.argv[1], "url": sys.argv[2]}, name="n")
one.know("xxxx")
while one.sharing._unsent or not one.sharing.ready:
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("make", ["redis"], indirect=True)
def test_what_a_killed_process_knew_is_known_after_a_restart(make: Make) -> None:
    settings = make(name="n").cache.settings
    env = environment(
        PYTHONPATH=os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests"), str(Path(__file__).parent)])
    )
    done = subprocess.run(
        [sys.executable, "-c", LEARN, settings.backend, settings.url], env=env, check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    later = make(name="n")
    told(later)
    assert later.find("xxxxx")[1].key == "key of xxxx"


@pytest.mark.parametrize("make", ["redis"], indirect=True)
def test_a_call_is_answered_by_what_another_process_was_asked(make: Make, fault: FaultServer) -> None:
    router = ProviderRouter()
    router.register_provider("p", create_provider("openai", base_url=fault.base_url, api_key="k", models=["m"]))

    def ask(worker: Worker, text: str) -> perfkit.ChatResponse:
        client = perfkit.Client(router=router, cache=worker.cache, tracker=PerformanceTracker())
        policy = perfkit.CachePolicy(semantic=worker.semantic)
        return client.chat(text, model="m", temperature=0, cache=policy)

    one, two = make(), make()
    first = ask(one, "xxxx")
    told(one, two)
    second = ask(two, "xxxxx")
    assert (second.text, second.cached) == (first.text, "semantic")
    one.cache.clear()
    told(one, two)
    assert ask(two, "xxxxxx").cached is None
    assert fault.stats()["requests"] == 2
