"""Provider instances kept by their configuration."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from perfkit.errors import UnknownNameError
from perfkit.providers import Provider, ProviderCache, cached_provider, create_provider

KEY = "sk-1234567890abcdef"


def test_the_same_settings_are_the_same_instance() -> None:
    cache = ProviderCache(create_provider)
    first = cache.get("openai", api_key=KEY, models=["a", "b"], headers={"x": "1"})
    assert cache.get("openai", headers={"x": "1"}, models=("b", "a"), api_key=KEY) is first
    assert (cache.hits, cache.misses, len(cache)) == (1, 1, 1)


@pytest.mark.parametrize(
    "other",
    [
        {"api_key": "sk-another-key-000"},
        {"base_url": "http://127.0.0.1:9/v1"},
        {"models": ["c"]},
        {"models": {"a": "own"}},
        {"name": "second"},
        {"timeout": 3.0},
        {"headers": {"x": "2"}},
        {"headers": {"authorization": "other"}},
    ],
)
def test_any_other_setting_is_another_instance(other: dict[str, Any]) -> None:
    cache = ProviderCache(create_provider)
    settings: dict[str, Any] = {"api_key": KEY, "models": ["a"], "headers": {"x": "1"}}
    assert cache.get("openai", **settings) is not cache.get("openai", **{**settings, **other})


def test_a_key_or_an_address_changed_in_the_environment_is_another_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = ProviderCache(create_provider)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    first = cache.get("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another-key-000")
    second = cache.get("openai")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert len({id(first), id(second), id(cache.get("openai"))}) == 3


def test_the_least_recently_used_goes_first_and_lets_go_of_what_it_holds() -> None:
    closed: list[str] = []

    class Kept(Provider):
        def chat_completion(self, request: Any) -> Any:
            raise AssertionError

        def close(self) -> None:
            closed.append(self.name)

    cache = ProviderCache(lambda kind, **settings: Kept(kind), size=2)
    first = cache.get("a")
    cache.get("b")
    cache.get("a")
    cache.get("c")
    assert closed == ["b"]
    assert cache.get("a") is first
    cache.close()
    assert (sorted(closed), len(cache)) == (["a", "b", "c"], 0)


def test_five_are_kept_by_default() -> None:
    cache = ProviderCache(create_provider)
    for number in range(8):
        cache.get("openai", name=f"p{number}")
    assert len(cache) == 5


def test_the_key_itself_is_not_kept() -> None:
    cache = ProviderCache(create_provider)
    cache.get("openai", api_key=KEY, headers={"api-key": "header-secret-1"})
    shown = repr(cache) + repr(list(cache._kept))
    assert KEY not in shown
    assert "header-secret-1" not in shown


def test_threads_that_come_at_once_share_one_instance() -> None:
    meeting = threading.Barrier(4, timeout=10)

    def create(kind: str, **settings: Any) -> Provider:
        meeting.wait()  # all four are making one
        return create_provider(kind, **settings)

    cache = ProviderCache(create)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: cache.get("openai", api_key=KEY), range(4)))
    assert len(set(map(id, found))) == 1


def test_a_configuration_that_cannot_be_used_is_not_kept() -> None:
    cache = ProviderCache(create_provider)
    with pytest.raises(UnknownNameError):
        cache.get("no such kind")
    assert len(cache) == 0


def test_the_shared_cache_serves_switching() -> None:
    first = cached_provider("groq", api_key=KEY)
    assert cached_provider("groq", api_key=KEY) is first
