"""The figures that README.md and docs/figures.md quote are those that the benchmarks have kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from _parts import REPOSITORY

PROMISED = {  # by the guides: percent, milliseconds, or what the row says
    "10 calls: latency": {67},
    "10 calls: input tokens": {45},
    "10 calls: cost": {47},
    "10 calls: connection time": {90},
    "5 nodes: 4 s to 1.6 s": {2.4},
    "100 runs a day": {4},
    "2nd call": {350},
    "cached tokens: cost": {50},
    "TLS a request": {200, 500},
    "average saved a request": {100, 300},
    "a connection, TCP and TLS": {80, 350},
    "TCP handshake": {20, 100},
    "TLS handshake": {50, 200},
    "first API call (cold)": {100, 500},
    "pooling: response time": {65},
    "pooling: CPU usage": {40},
    "pooling: server resources": {20},
    "pooling: timeouts": {83},
    "caching: hit rate": {73},
    "caching: API calls": {73},
    "caching: response time of a hit": {95},
    "caching: perceived speed": {43},
}
QUOTED = [(REPOSITORY / name).read_text() for name in ("README.md", "docs/figures.md")]


def kept(name: str) -> Any:
    found = json.loads((REPOSITORY / f"benchmarks/results/{name}.json").read_text())
    return found.get("result", found)


def calls() -> Iterator[str]:
    chat, miss = kept("pipeline")["ratio_to_bare"], kept("pipeline")
    yield f"{chat['perfkit.chat, not cacheable']:.2f}x of the same POST"
    yield f"litellm.Router {chat['litellm.Router']:.0f}x"
    yield f"| {miss['hit_us']:.0f} us, {chat['perfkit.chat, cache hit']:.2f}x |"
    yield f"{miss['added_by_a_miss_us']:.0f} us more than a bare POST"
    yield f"{miss['added_by_a_miss_of_new_words_us']:.0f} us with 1 KB of words"
    post = [kept("transport")["tls"][f"{threads} threads"] for threads in (1, 16, 64)]
    one, some, many = (f"{row['perfkit']['rate_ratio']:.1f}x" for row in post)
    yield f"{one} of http.client with 1 thread, {some} with 16 and with 64"
    assert some == many
    yield f"urllib3 pool {', '.join(format(row['urllib3_pool']['rate_ratio'], '.1f') for row in post)}x"
    sdk = kept("sdk")["rates"]
    yield f"{sdk['openai, 16 threads']['ratio']:.2f}x and {sdk['anthropic, 16 threads']['ratio']:.2f}x of their own"
    first = {who: kept("distance")[who]["first_token_ms"] for who in ("perfkit", "stock")}
    yield f"| {first['perfkit']:.0f} ms | its own client {first['stock']:.0f} ms |"
    waits = kept("guards")["waiting"]
    yield f"| {waits['perfkit']['longest']:.1f}x the fair share | urllib3 {waits['urllib3']['longest']:.1f}x |"


def routes() -> Iterator[str]:
    fail = [row for row in kept("failover")["results"].values() if isinstance(row, dict) and "wasted" in row]
    failed, asked = (sum(row[key] for row in fail) for key in ("failed", "calls"))
    yield f"| {failed} of {asked:,} calls failed, at most {max(row['wasted'] for row in fail)} wasted"
    rivals = kept("rivals")["results"]
    mine, router, tuned, chain = (
        rivals[name]["behind_ms"]
        for name in ("perfkit router", "litellm.Router", "litellm.Router, tuned", "LangChain fallbacks")
    )
    seconds = f"litellm.Router {router / 1000:.1f} s, {tuned:.1f} ms tuned; LangChain {chain / 1000:.1f} s"
    yield f"| {mine:.2f} ms | {seconds} |"
    yield f"litellm.Router: {rivals['litellm.Router']['cpu_us']:,} us, the call included"
    hedged = kept("simulate")["results"]["one answer in 200 takes 10 s"]["hedged"]
    more = float(hedged["more requests"].rstrip("%"))
    yield f"p99.9 {hedged['times less']:.1f}x lower for {more:.0f} % more requests"


def money() -> Iterator[str]:
    budgets = kept("budgets")
    reserve = budgets["redis"]["price_in_gets"]["reserve"]
    yield f"| {budgets['redis']['four_processes']['spent']:.2f} spent, a reservation costs {reserve:.2f} GETs"
    yield f"look first, add later: {budgets['check_then_add']:.2f}"
    laid_out, written = (100 * kept("prefix")[f"cached_share_{name}"] for name in ("laid_out", "as_written"))
    yield f"| {laid_out:.0f} % laid out | {written:.0f} % as written"
    held_out = kept("tokens")["errors"]["held out o200k"]
    yield f"| {held_out['error_percent']:.1f} % | len/4: {held_out['len_4_error_percent']:.1f} %"


def process() -> Iterator[str]:
    rows = [kept("cache")[what] for what in ("hit, 1 thread", "set with eviction, 1 thread")]
    mine, theirs = ([f"{row[who]['ratio']:.1f}x" for row in rows] for who in ("perfkit store", "cachetools LRU + Lock"))
    yield f"| {mine[0]}; {mine[1]} of a dict with a lock | cachetools {theirs[0]}; {theirs[1]} |"
    pool = {row["case"]: row["times"] for row in kept("pool")["cost"]}
    yield f"| {pool['perfkit take + give']:.0f}x of list.pop and append |"
    yield f"| queue.LifoQueue {pool['queue.LifoQueue']:.0f}x |"
    web = [row["added_p50_us"] for row in kept("web")["results"].values()]
    yield f"{min(web):.0f} to {max(web):.0f} us a request"
    yield f"| {kept('dashboard')['first_paint']['median']:.2f} s in Chromium"
    served = list(kept("app_load")["results"].values())
    yield f"{sum(row['lost'] for row in served)} of {sum(row['requests'] for row in served):,} requests lost"
    heap = {row["case"]: row for row in kept("garbage")["3.11"]["result"]["latency"]}
    p99, p99_9 = (heap["default"][key] / heap["low_latency"][key] for key in ("p99", "p99_9"))
    yield f"| {p99:.0f} and {p99_9:.0f}x lower than with Python's own settings"
    yield f"| {heap['low_latency']['throughput'] / heap['default']['throughput']:.2f}x | never collecting"


def demo() -> Iterator[str]:
    today, perfkit = kept("demo")["rows"][:2]
    assert today["calls"] == perfkit["calls"]
    yield (
        f"| {perfkit['calls']:,} calls, one of three providers killed while it streams | {perfkit['failed']} failed "
        f"| `requests.post` today: {today['failed']} failed |"
    )


def meaning() -> Iterator[str]:
    asked = [row for name, row in kept("semantic")["streams"].items() if "simulated" not in name and "once" not in name]

    def ends(name: str) -> tuple[float, float]:
        return min(row[name] for row in asked), max(row[name] for row in asked)

    (least, most), (_, wrong) = ends("hit_percent"), ends("wrong_percent")
    yield f"| {least:.0f} to {most:.0f} %, at most {wrong:.1f} % of them wrong |"
    (least, most), (_, wrong) = ends("bare_95_hit_percent"), ends("bare_95_wrong_percent")
    yield f"| similarity 0.95 alone {least:.0f} to {most:.0f} %, up to {wrong:.1f} % wrong |"
    assert all(row["hit_percent"] > row["bare_95_hit_percent"] for row in asked)
    assert all(row["wrong_percent_upper_95"] < 1 for row in asked)


@pytest.mark.parametrize("figure", [*calls(), *routes(), *money(), *process(), *demo(), *meaning()])
def test_figures_are_quoted_as_they_were_kept(figure: str) -> None:
    assert any(figure in text for text in QUOTED)


@pytest.mark.parametrize("promise", PROMISED)
def test_each_promised_figure_has_a_measured_one_or_a_reason_beside_it(promise: str) -> None:
    rows = [row for row in kept("promises")["promises"] if row["promise"] == promise]
    assert {row["promised"] for row in rows} == PROMISED[promise]
    assert all((row["measured"] is None) == (row["verdict"] == "not applicable") for row in rows)
    assert all(row["condition"] for row in rows)
