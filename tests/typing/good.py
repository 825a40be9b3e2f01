"""What a typed application writes; mypy --strict must find nothing here."""

from collections.abc import Iterator
from typing import assert_type

import perfkit

perfkit.configure({"cache": {"ttl": 60}}, router={"strategy": "priority"})
answer = perfkit.chat([{"role": "user", "content": "hi"}], model="tiny", temperature=0, top_p=0.5)
assert_type(answer, perfkit.ChatResponse)
assert_type(answer.cost, float | None)
assert_type(answer.usage.total_tokens, int)
request = perfkit.ChatRequest([{"role": "user", "content": "hi"}], "tiny", tools=[{"type": "function"}])
assert_type(perfkit.client.run(request), perfkit.ChatResponse)

with perfkit.stream("hi", model="tiny") as stream:
    for text in stream:
        assert_type(text, str)
    assert_type(stream.response, perfkit.ChatResponse | None)

assert_type(perfkit.batch(["a", "b"]), list[perfkit.ChatResponse])


@perfkit.profile
def twice(n: int) -> int:
    return 2 * n


@perfkit.profile("named")
def count(n: int) -> Iterator[int]:
    yield n


assert_type(twice(3), int)
assert_type(list(count(3)), list[int])
with perfkit.profile("block"):
    pass
with perfkit.tracker.timer("render"):
    pass
assert_type(perfkit.cache.hit_rate, float)
assert_type(perfkit.connections, perfkit.ConnectionPool)
try:
    perfkit.chat("hi")
except perfkit.RateLimitError as error:
    assert_type(error.retry_after, float | None)
