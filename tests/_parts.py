"""Parts of the machine that some tests need: there, or a skip that names what is missing.

With PERFKIT_REQUIRE_ALL=1 a missing part fails the test instead.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
untraced = (
    pytest.mark.skipif(  # its locks are lost with a thread that is interrupted or not forked, and there can be one
        sys.gettrace() is not None, reason="a tracer, such as that of coverage, is there"
    )
)
REQUIRE_ALL = os.environ.get("PERFKIT_REQUIRE_ALL") == "1"


def missing(what: str, how: str) -> NoReturn:
    """Skip, or fail where everything is required."""
    message = f"{what} is not here; {how}"
    if REQUIRE_ALL:
        pytest.fail(f"PERFKIT_REQUIRE_ALL=1: {message}", pytrace=False)
    pytest.skip(message)


def needs_module(name: str) -> None:
    """Go on only where the Python package `name` can be imported."""
    if importlib.util.find_spec(name) is None:
        missing(f"package {name}", "pip install -e '.[dev]'")


def needs_program(name: str) -> str:
    """Return the path of a program, or skip."""
    found = shutil.which(name)
    if found is None:
        missing(f"program {name}", "install it to run this test")
    return found


def needs_statsd_daemon() -> tuple[str, Path]:
    """Return node and the npm statsd daemon's directory, or skip."""
    node = needs_program("node")
    directory = Path(os.environ.get("PERFKIT_STATSD_DIR", REPOSITORY / ".ci/node/node_modules/statsd"))
    if not (directory / "stats.js").is_file():
        missing("the statsd daemon", "npm install --prefix .ci/node --ignore-scripts --omit=optional statsd@0.9.0")
    return node, directory


def needs_aimock() -> tuple[str, Path]:
    """Return node and the program of aimock, a server of others that speaks most vendors' formats, or skip."""
    node = needs_program("node")
    default = REPOSITORY / ".ci/node/node_modules/@copilotkit/aimock"
    program = Path(os.environ.get("PERFKIT_AIMOCK_DIR", default)) / "dist/cli.js"
    if not program.is_file():
        missing("aimock", "npm install --prefix .ci/node --ignore-scripts @copilotkit/aimock@1.43.0")
    return node, program


def needs_axe() -> Path:
    """Return the script of axe-core, which finds what keeps people from using a page, or skip."""
    script = Path(os.environ.get("PERFKIT_NODE_DIR", REPOSITORY / ".ci/node")) / "node_modules/axe-core/axe.min.js"
    if not script.is_file():
        missing("axe-core", "npm install --prefix .ci/node --ignore-scripts axe-core@4.14.1")
    return script
