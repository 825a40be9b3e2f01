from __future__ import annotations

import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from _parts import needs_module

from perfkit.testing import model
from perfkit.testing.llm import LlamaServer
from perfkit.testing.model import model_path

if TYPE_CHECKING:
    from collections.abc import Callable

CORPUS = Path(model.__file__).with_name("corpus.txt").read_text("utf-8")
MAKE = "import sys; from pathlib import Path; from perfkit.testing.model import model_path; sys.stdin.readline()"


def maker(cache: Path, hash_seed: int) -> subprocess.Popen[str]:
    """Start a process that makes the model in `cache` as soon as it gets a line, and prints the path."""
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", f"{MAKE}; print(model_path(Path({str(cache)!r})))"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def copied(folder: Path, corpus: str) -> Any:
    """Return the module loaded from a copy beside another corpus."""
    folder.mkdir()
    source = shutil.copy(model.__file__, folder)
    (folder / "corpus.txt").write_text(corpus)
    spec = importlib.util.spec_from_file_location("copied_model", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_same_bytes_in_every_process(tmp_path: Path) -> None:
    here = model_path(tmp_path / "here")
    there, _ = maker(tmp_path / "there", hash_seed=4711).communicate("\n", timeout=30)
    assert here.name == Path(there.strip()).name
    assert here.read_bytes() == Path(there.strip()).read_bytes()


def test_processes_that_make_it_together_leave_one_whole_file(tmp_path: Path) -> None:
    makers = [maker(tmp_path / "shared", seed) for seed in range(2)]
    for process in makers:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    paths = {process.communicate(timeout=60)[0].strip() for process in makers}
    assert [process.returncode for process in makers] == [0] * 2
    assert [str(path) for path in (tmp_path / "shared" / "perfkit").iterdir()] == [*paths]
    assert Path(*paths).read_bytes() == model_path(tmp_path / "alone").read_bytes()


def test_file_is_small_and_made_once(tmp_path: Path) -> None:
    first = model_path(tmp_path).stat()
    assert first.st_size < 3_000_000
    assert model_path(tmp_path).stat() == first


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:1000])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        model_path(tmp_path)
    assert list((tmp_path / "perfkit").iterdir()) == []


def test_cache_directory_of_the_user_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert model_path().parent == tmp_path / "xdg" / "perfkit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert model_path().parent == tmp_path / "home" / ".cache" / "perfkit"


@pytest.mark.parametrize("home", ["a file", "relative"])
def test_unusable_cache_directory_falls_back_to_the_temporary_one(
    home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", "relative" if home == "relative" else str(tmp_path / "a file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert model_path().parent == tmp_path / f"perfkit-{os.getuid()}" / "perfkit"


def test_unusable_given_directory_raises(tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(OSError, match="a file"):
        model_path(tmp_path / "a file")


def test_name_follows_the_corpus(tmp_path: Path) -> None:
    same = copied(tmp_path / "same", CORPUS).model_path(tmp_path)
    other = copied(tmp_path / "other", CORPUS + "\n\nA new word.\n").model_path(tmp_path)
    assert same == model_path(tmp_path)
    assert other.name != same.name


def test_corpus_has_only_what_the_tokeniser_splits() -> None:
    for paragraph in CORPUS.split("\n\n"):
        assert "".join(model._split(paragraph)).replace("Ġ", " ") == " ".join(paragraph.split())


def test_corpus_words_are_single_tokens_to_the_server(llm: LlamaServer, ask: Callable[..., Any]) -> None:
    paragraph = " ".join(CORPUS.split("\n\n")[7].split())
    words = re.findall(r"[A-Za-z]+|[,.]", paragraph)
    _, answer = ask(f"{llm.root_url}/tokenize", {"content": paragraph})
    assert len(answer["tokens"]) == len(words)


@pytest.mark.parametrize("text", ["Zwölf Boxkämpfer", "日本語 🚀", 'x = {"a": [1, 2]}\n\t# 100 %', "perfkit's caches"])
def test_any_text_survives_the_tokeniser(text: str, llm: LlamaServer, ask: Callable[..., Any]) -> None:
    _, tokens = ask(f"{llm.root_url}/tokenize", {"content": text})
    _, back = ask(f"{llm.root_url}/detokenize", tokens)
    assert back["content"] == text


def test_server_loads_the_file_and_every_pair_of_words_is_from_the_corpus(
    tmp_path: Path, ask: Callable[..., Any]
) -> None:
    needs_module("xllamacpp")
    known = set(itertools.pairwise(re.findall(r"\w+|[,.]", CORPUS)))
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 400, "ignore_eos": True}
    with LlamaServer(model_path(tmp_path)) as server:
        _, answer = ask(f"{server.base_url}/chat/completions", {**body, "seed": 5, "temperature": 1.0})
    said = re.findall(r"\w+|[,.]", answer["choices"][0]["message"]["content"])
    assert len(said) > 200
    assert set(itertools.pairwise(said)) <= known
