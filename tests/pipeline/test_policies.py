"""What the cache policy of a call does to it, over real sockets."""

from __future__ import annotations

import pytest

from perfkit import CachePolicy, ChatRequest, Client, FakeClock, ResponseCache
from perfkit.providers import create_provider
from perfkit.routing import ProviderRouter
from perfkit.testing import FaultServer

SMART_BY_PLACE = CachePolicy(smart=True, context=("location",), time_bucket=21_600)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(wall=21_600 * 50_000.0)


@pytest.fixture
def client(fault: FaultServer, clock: FakeClock) -> Client:
    router = ProviderRouter()
    router.register_provider("local", create_provider("openai", base_url=fault.base_url, api_key="k", models=["m"]))
    return Client(router=router, cache=ResponseCache(clock=clock), clock=clock)


def test_chosen_context_makes_the_question(client: Client, fault: FaultServer) -> None:
    def found(**context: object) -> str | None:
        return client.chat("sort", model="m", temperature=0, cache=SMART_BY_PLACE, context=context).cached

    assert found(location="Rome", page=1) is None
    assert found(location="Rome", page=2) == "context"
    assert found(location="Oslo", page=1) is None
    assert found(page=1) is None
    assert fault.stats()["requests"] == 3


def test_the_next_time_bucket_is_another_question(client: Client, clock: FakeClock) -> None:
    policy = CachePolicy(smart=True, time_bucket=600)  # far less than an answer's time to live

    def found() -> str | None:
        return client.chat("sort", model="m", temperature=0, cache=policy).cached

    assert [found(), found()] == [None, "context"]
    clock.advance(599)
    assert found() == "context"
    clock.advance(2)
    assert found() is None


def test_users_are_kept_apart_whatever_context_is_chosen(client: Client) -> None:
    for user in ("anna", "bert"):
        ask = {"model": "m", "temperature": 0, "cache": SMART_BY_PLACE}
        assert client.chat("my balance", context={"user_id": user}, **ask).cached is None  # type: ignore[arg-type]


def test_context_left_out_of_the_key_still_decides(client: Client) -> None:
    def ask(**context: object) -> str:
        return client.chat("sort", model="m", temperature=0, cache=SMART_BY_PLACE, context=context).cache_decision

    assert ask() == "public"
    assert ask(personalized=True) == "personalised context and no user given"


def test_a_policy_may_be_a_function_of_the_request(client: Client) -> None:
    def policy(request: ChatRequest) -> CachePolicy | str:
        return CachePolicy(scope="public") if request.agent == "faq" else "never"

    def found(agent: str) -> list[str | None]:
        return [client.chat("hi", model="m", cache=policy, agent=agent).cached for _ in range(2)]

    assert found("faq") == [None, "exact"]
    assert found("other") == [None, None]


def test_a_function_that_names_no_policy_is_refused_before_anything_is_sent(client: Client, fault: FaultServer) -> None:
    with pytest.raises(ValueError, match="'smart', 'always', 'never'"):
        client.chat("hi", model="m", cache=lambda _: "sometimes")
    assert fault.stats()["requests"] == 0


def test_times_to_live_by_kind_can_be_set(client: Client, clock: FakeClock) -> None:
    client._cache.configure(ttls={"factual": 10.0})

    def found() -> str | None:
        return client.chat("what is a queue", model="m", temperature=0).cached

    assert [found(), found()] == [None, "exact"]
    clock.advance(11)
    assert found() is None
    client._cache.configure(ttls={"factual": 60.0})
    assert found() == "exact"
