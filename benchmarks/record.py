"""Run every benchmark and keep what it printed in benchmarks/results/, with the machine and the versions it ran on.

    python benchmarks/record.py [NAME ...] [-- ARGUMENTS]

Arguments after "--", such as the path of data outside the project, are passed on. What depends on the Python that runs
it is kept once for each, and for each list of arguments.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NAMES = sorted(path.stem for path in HERE.glob("[a-z]*.py") if path.stem != "record")
BY_PYTHON = {"garbage"}  # what these measure is the interpreter's own
PACKAGES = [
    "urllib3",
    "cachetools",
    "requests",
    "statsd",
    "openai",
    "anthropic",
    "httpx2",
    "pycurl",
    "litellm",
    "langchain-openai",
    "prometheus-client",
    "numpy",
    "usearch",
    "datadog",
    "opentelemetry-sdk",
    "ddsketch",
    "dogpile.cache",
    "diskcache",
    "gptcache",
    "Django",
    "redis",
    "gunicorn",
    "Flask",
    "SQLAlchemy",
    "pyinstrument",
]


def versions() -> dict[str, str]:
    """Return the versions of the peers that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "packages": versions(),
    }


def with_others(path: Path, row: dict[str, Any], arguments: list[str]) -> dict[str, Any]:
    """Return a row beside those that other Pythons, or the same with other arguments, have left at a path."""
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    major, minor, _ = platform.python_version_tuple()
    return dict(sorted((kept | {" ".join([f"{major}.{minor}", *arguments]): row}).items()))


def main() -> None:
    names, more = sys.argv[1:], list[str]()
    if "--" in names:
        names, more = names[: names.index("--")], names[names.index("--") + 1 :]
    for name in names or NAMES:
        row = {"machine": machine()}
        command = [sys.executable, str(HERE / f"{name}.py"), "--json", *more]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=900, check=True)
        path = HERE / "results" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        row["result"] = json.loads(done.stdout)
        path.write_text(json.dumps(with_others(path, row, more) if name in BY_PYTHON else row, indent=1) + "\n")
        print(f"{name}: {path.relative_to(HERE.parent)}", file=sys.stderr)


if __name__ == "__main__":
    main()
