"""What is imported when, and what is said about what is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from perfkit.errors import ConfigError
from perfkit.integrations._extra import load_extra

LATE = ("openai", "anthropic", "httpx2", "httpx", "requests", "litellm", "urllib3")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", ["openai", "anthropic", "requests", "litellm"])
def test_importing_an_integration_imports_its_library_later(name: str) -> None:
    code = (
        f"import sys, perfkit.integrations.{name} as one, perfkit\n"
        f"assert perfkit.integrations.{name} is one\n"
        "print([m for m in sys.modules if m.startswith('perfkit.integrations.') and m.split('.')[2][0] != '_'])\n"
        f"print([m for m in {LATE[:-1]} if m in sys.modules])"
    )
    assert run(code).splitlines() == [f"['perfkit.integrations.{name}']", "[]"]


def test_perfkit_itself_imports_no_integration() -> None:
    assert run("import perfkit, sys; print([m for m in sys.modules if 'integrations' in m])") == "[]"


MISSING = """
import sys
from perfkit._registry import load
for name, call in {calls}.items():
    sys.modules[name] = None
    try: load(f"perfkit.integrations.{{name}}:{{call}}")()
    except Exception as error: print(type(error).__name__, error)
"""


def test_a_missing_library_names_its_extra() -> None:
    calls = {"openai": "http_client", "anthropic": "http_client", "requests": "session", "litellm": "install"}
    said = run(MISSING.format(calls={**calls, "flask": "Perfkit", "celery": "setup"})).splitlines()
    assert said == [
        *(f"ConfigError the package {name} is not installed; pip install 'perfkit[{name}]'" for name in calls),
        *(
            f"ModuleNotFoundError {name} is not installed; pip install 'perfkit[{name}]'"
            for name in ("flask", "celery")
        ),
    ]


def test_a_command_that_misses_a_library_says_what_to_install() -> None:
    code = (
        "import importlib.util as found, sys; from perfkit import cli\n"
        "find = found.find_spec; found.find_spec = lambda name, *a: None if name == 'xllamacpp' else find(name, *a)\n"
        "sys.stderr = sys.stdout; print(cli.main(['bench', '--bundled']))"
    )
    said = "perfkit: the test server needs the llama.cpp wheel: pip install 'perfkit[demo]'"
    assert run(code).splitlines() == [said, "2"]


def test_library_that_misses_something_else_says_so_itself() -> None:
    with pytest.raises(ModuleNotFoundError):
        load_extra("no_such_package:thing", "openai")
    with pytest.raises(ConfigError):
        load_extra("no_such_package:thing", "no_such_package")
