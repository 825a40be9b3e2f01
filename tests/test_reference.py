"""docs/reference.md says what the docstrings say."""

from __future__ import annotations

import runpy

from _parts import REPOSITORY, needs_module

import perfkit


def test_the_reference_is_current() -> None:
    needs_module("greenlet")  # without it the simulator's names cannot be told
    made = runpy.run_path(str(REPOSITORY / "docs/reference.py"))["document"]()
    kept = (REPOSITORY / "docs/reference.md").read_text()
    assert made == kept, "docstrings have changed: run python docs/reference.py"


def test_every_public_name_is_in_it() -> None:
    kept = (REPOSITORY / "docs/reference.md").read_text()
    assert [name for name in perfkit.__all__ if f"### {name}\n" not in kept and f"- `{name}`: " not in kept] == []
