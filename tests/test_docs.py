"""What the documents show is run, and where they point to exists."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from _parts import REPOSITORY

from perfkit.config import Config
from perfkit.testing import FaultServer

DOCUMENTS = sorted([REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *(REPOSITORY / "docs").rglob("*.md")])
RUNNER = """
import pathlib, sys
names = {"__name__": "document"}
for block in sys.argv[1:]:
    exec(compile(pathlib.Path(block).read_text(), block, "exec"), names)
"""


def blocks(document: Path, language: str) -> list[tuple[int, str]]:
    """Return each fenced block with the number of its first line."""
    text = document.read_text()
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start(1)) + 1, match[1]) for match in found]


def identify(document: Path) -> str:
    return str(document.relative_to(REPOSITORY))


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if blocks(d, "python")], ids=identify)
def test_the_code_of_a_document_runs_from_top_to_bottom(
    document: Path, fault: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for vendor in ("OPENAI", "ANTHROPIC", "GROQ"):
        monkeypatch.setenv(f"{vendor}_API_KEY", "sk-test")
        monkeypatch.setenv(f"{vendor}_BASE_URL", fault.base_url)
    files = []
    for line, code in blocks(document, "python"):
        path = tmp_path / f"{document.stem}-line-{line}.py"
        path.write_text("\n" * (line - 1) + code)
        files.append(str(path))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUNNER, *files],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if blocks(d, "toml")], ids=identify)
def test_the_settings_of_a_document_are_valid(document: Path) -> None:
    for _, text in blocks(document, "toml"):
        Config(file=tomllib.loads(text), environ={})


@pytest.mark.parametrize("document", DOCUMENTS, ids=identify)
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text()
    anchors = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif "://" not in target:
            assert (document.parent / target.partition("#")[0]).exists(), target
