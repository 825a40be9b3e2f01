"""Ten thousand calls, plain and over TLS, to a server that breaks in every way the tests know: what came of them.

    python benchmarks/transport_storm.py [--quick] [--json]

Printed are how each kind of fault ended, how many requests the server began twice, and what was left over: slots in
use, threads and descriptors.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this directory, where another "transport" is
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from _servers import polled
from transport.peers import Peer, descriptors
from transport.test_storm import Storm, check, storm

from perfkit.testing.tls import Authority


def run(authority: Authority | None, calls: int) -> dict[str, Any]:
    """Return how each kind ended and what was left over; calls that hang or end wrongly are an error."""
    before, threads, began, storming = descriptors(), threading.active_count(), time.perf_counter(), Storm()
    server = Peer(storming, tls=None if authority is None else authority.server_file)
    outcomes = storm(server, storming, calls, ca_file=None if authority is None else authority.ca_file)
    check(outcomes)
    server.close()
    polled(lambda: descriptors() <= before + 1)  # the poll of the background thread
    return {
        "calls": calls,
        "seconds": time.perf_counter() - began,
        "ends": dict(sorted(outcomes.items())),
        "begun_twice": sum(times > 1 for times in storming.answered.values()),
        "descriptors_left": max(0, descriptors() - before - 1),
        "threads_left": max(0, threading.active_count() - threads - 1),  # but for the background thread
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the calls, under 10 seconds")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    calls = 1000 if options.quick else 10_000
    with Authority() as authority:
        found = {"plain": run(None, calls), "tls": run(authority, calls)}
    if options.json:
        print(json.dumps(found))
        return 0
    for kind, row in found.items():
        print(f"{kind}: {row['calls']} calls in {row['seconds']:.0f} s, {row['begun_twice']} begun twice, ", end="")
        print(f"{row['descriptors_left']} descriptors and {row['threads_left']} threads left")
        for end, times in row["ends"].items():
            print(f"  {end:32}{times:6}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
