from __future__ import annotations

import csv
import io
import json
import sys
import urllib.request
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

import perfkit
from perfkit import cli
from perfkit.bench import command, measure
from perfkit.bench.comparing import TIMES
from perfkit.bench.loading import PROMPTS
from perfkit.bench.rows import DEFINITIONS
from perfkit.testing import FaultServer, faults
from perfkit.testing.llm import LlamaServer

HOSTILE = "=cmd|'/c'!A1\"><script>alert(1)</script>\x1b[2J\u202e&{{x}}"
QUICK = ("--requests", "6", "--max-tokens", "16")


def bench(*arguments: str) -> int:
    return cli.main(["bench", *arguments])


def document(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


def test_every_combination_is_measured(fault: FaultServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    provider = {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}
    perfkit.configure(providers={"one": provider, "two": {**provider, "models": ["gpt-4o-mini"]}})
    prompts = tmp_path / "long.txt"
    prompts.write_text("Tell me more.\n\nAnd more.\n")
    arguments = ["--model", "gpt-4o-mini", "--concurrency", "1,2", "--rate", "500", "--prompts", str(prompts)]
    assert bench(*arguments, *QUICK, "--json") == 0
    captured = capsys.readouterr()
    rows = document(captured.out)["rows"]
    assert [(row["provider"], row["concurrency"], row["rate"]) for row in rows] == [
        (name, *load) for name in ("one", "two") for load in ((1, None), (2, None), (None, 500.0))
    ]
    assert {(row["prompts"], row["requests"], row["errors"]) for row in rows} == {("long", 6, 0)}
    assert all(row["cost"] > 0 for row in rows)
    assert captured.err.count("6 of 6") == 6


def test_models_are_crossed_with_prompts_and_loads(
    fault: FaultServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "short.txt", tmp_path / "long.txt"]
    for path in files:
        path.write_text(f"A {path.stem} question?\n")
    prompts = [part for path in files for part in ("--prompts", str(path))]
    models = ("--model", "small", "--model", "large")
    assert bench("--url", fault.base_url, *models, *prompts, "--concurrency", "1,2", *QUICK, "--json") == 0
    rows = document(capsys.readouterr().out)["rows"]
    measured = [(row["model"], row["prompts"], row["concurrency"]) for row in rows]
    assert sorted(measured) == sorted(product(("small", "large"), ("short", "long"), (1, 2)))
    assert {(row["requests"], row["errors"]) for row in rows} == {(6, 0)}


@pytest.mark.parametrize("load", [("--concurrency", "3"), ("--rate", "200")], ids=["closed", "open"])
def test_figures_agree_with_the_servers_own_count(
    load: tuple[str, str], llm: LlamaServer, capsys: pytest.CaptureFixture[str]
) -> None:
    before = llama_counts(llm)
    assert bench("--url", llm.base_url, *load, "--requests", "24", "--warm-up", "0", "--json") == 0
    grown = {name: value - before[name] for name, value in llama_counts(llm).items()}
    [row] = document(capsys.readouterr().out)["rows"]
    output, prompt = grown["tokens_predicted_total"], grown["prompt_tokens_total"] + grown["prompt_tokens_cached_total"]
    assert row["completion_tokens"] == pytest.approx(output, rel=0.02)
    assert row["prompt_tokens"] == pytest.approx(prompt, rel=0.02)
    assert row["cached_tokens"] == pytest.approx(grown["prompt_tokens_cached_total"], rel=0.02)
    assert row["requests"] == pytest.approx(prompt / mean(llama_tokens(llm, text) for text in PROMPTS), rel=0.02)
    assert row["output_tokens_per_second"] == pytest.approx(output / row["seconds"], rel=0.02)
    computing = grown["prompt_seconds_total"] + grown["tokens_predicted_seconds_total"]
    assert sum(sample["latency_ms"] for sample in row["samples"]) > 1000 * computing


def llama_tokens(llm: LlamaServer, prompt: str) -> int:
    said = {"content": prompt}
    for path, key in (("apply-template", "prompt"), ("tokenize", "tokens")):
        asked = {"messages": [{"role": "user", **said}]} if key == "prompt" else {**said, "add_special": True}
        body = json.dumps({**asked, "parse_special": True}).encode()
        request = urllib.request.Request(f"{llm.root_url}/{path}", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as reply:
            found = json.load(reply)[key]
        said = {"content": found}
    return len(found)


def llama_counts(llm: LlamaServer) -> dict[str, float]:
    with urllib.request.urlopen(f"{llm.root_url}/metrics") as reply:
        lines = [line.split() for line in reply.read().decode().splitlines() if not line.startswith("#")]
    return {name.removeprefix("llamacpp:"): float(value) for name, value in lines}


def test_figures_stand_beside_each_other_as_far_as_the_terminal_is_wide(
    fault: FaultServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = ("--url", fault.base_url, "--model", "m", "--concurrency", "1,2,3,4,5", *QUICK)
    assert bench(*url) == 0
    assert capsys.readouterr().out.count("requests   ") == 1
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert bench(*url) == 0
    figures, _, _ = capsys.readouterr().out.partition("SLOs")
    assert figures.count("requests   ") == 2
    assert max(map(len, figures.splitlines())) <= 80
    assert figures.count(" at a time") == 5


def test_a_missed_threshold_is_exit_code_1_and_is_named(fault: FaultServer, capsys: pytest.CaptureFixture[str]) -> None:
    url = ("--url", fault.base_url, "--model", "m", *QUICK)
    assert bench(*url, "--threshold", "p50_latency_ms<=60000", "--threshold", "errors<1") == 0
    assert bench(*url, "--threshold", "p50_latency_ms<=0.0001") == 1
    assert "missed: p50_latency_ms<=0.0001 by url/m" in capsys.readouterr().err


def test_nothing_answered_is_exit_code_3(fault: FaultServer, capsys: pytest.CaptureFixture[str]) -> None:
    fault.behave(faults.server_error())
    assert bench("--url", fault.base_url, "--model", "m", *QUICK) == 3
    assert "5xx 6" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "no provider is configured"),
        (("--provider", "nope"), "no provider 'nope'"),
        (("--url", "http://127.0.0.1:9/v1", "--model", "m", "--threshold", "nonsense"), "no bound"),
        (("--url", "http://127.0.0.1:9/v1", "--model", "m", "--slo", "latency_ms>=3"), "most milliseconds"),
        (("--url", "http://127.0.0.1:9/v1", "--model", "m", "--slo", "latency<=3"), "did you mean 'latency_ms'"),
        (("--url", "http://127.0.0.1:9/v1", "--model", "m", "--prompts", "nowhere"), "--prompts nowhere"),
        (("--url", "http://127.0.0.1:9/v1", "--model", "m", *2 * ("--prompts", "p.txt")), "two have the same"),
        (("--url", "http://127.0.0.1:9/v1", "--model", "m", "--compare", "nowhere"), "no JSON of perfkit bench"),
        (("--url", "http://127.0.0.1:9/v1", "--model", "m", "--compare", "odd.json"), "no JSON of perfkit bench"),
        (("--url", "http://127.0.0.1:9/v1", "--model", "m", "--compare", "empty.json"), "none of the cases, such as"),
        (("--url", "http://127.0.0.1:9/v1", "--model", "m", "--worse-by", "5"), "a run to compare with"),
        (("--url", "http://127.0.0.1:9/v1", "--model", "m", "--threshold", "p95_latncy_ms<1"), "'p95_latency_ms'"),
        (("--url", "http://127.0.0.1:9/v1", "--model", "m", "--api-key-env", "NO_KEY"), "NO_KEY is not set"),
    ],
)
def test_what_cannot_be_measured_is_exit_code_2(
    arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("odd.json").write_text('{"rows": [1]}')
    Path("empty.json").write_text('{"rows": []}')
    Path("p.txt").write_text("hello")
    assert bench(*arguments) == 2
    assert told in (said := capsys.readouterr().err)
    assert "30 of 30" not in said  # nothing was asked


def test_what_was_measured_before_ctrl_c_is_kept(
    fault: FaultServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left = iter([True])

    def interrupted(*args: Any, **terms: Any) -> Any:
        if not next(left, False):
            raise KeyboardInterrupt
        return measure(*args, **terms)

    monkeypatch.setattr(command, "measure", interrupted)
    url = ("--url", fault.base_url, "--model", "m", "--concurrency", "1,2", "--output", "run.json")
    assert bench(*url, *QUICK) == 130
    assert "1 of 2 cases were measured" in capsys.readouterr().err
    assert [row["concurrency"] for row in document(Path("run.json").read_text())["rows"]] == [1]


def test_what_cannot_be_written_is_printed_all_the_same(fault: FaultServer, capsys: pytest.CaptureFixture[str]) -> None:
    url = ("--url", fault.base_url, "--model", "m", *QUICK)
    assert bench(*url, "--output", "/dev/full", "--csv", "run.csv") == 1
    printed = capsys.readouterr()
    assert "--output /dev/full: No space left" in printed.err
    assert "requests   " in printed.out
    assert Path("run.csv").read_text().count("\n") == 2


def test_there_is_room_for_as_many_connections_as_requests_at_a_time_and_each_is_warmed_up(fault: FaultServer) -> None:
    assert bench("--url", fault.base_url, "--model", "m", "--concurrency", "30", "--requests", "60") == 0
    assert perfkit.connections.settings.maxsize == 30
    assert fault.stats()["requests"] == 90


def test_a_run_is_compared_with_an_earlier_one(
    fault: FaultServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = ("--url", fault.base_url, "--model", "m", "--requests", "6")
    assert bench(*url, "--output", str(tmp_path / "old.json")) == 0
    old = document((tmp_path / "old.json").read_text())
    for sample in old["rows"][0]["samples"]:
        sample.update({key: sample[key] / 100 for key in TIMES if sample[key]})
    (tmp_path / "old.json").write_text(json.dumps(old))
    capsys.readouterr()
    assert bench(*url, "--compare", str(tmp_path / "old.json"), "--worse-by", "50", "--json") == 1
    printed = capsys.readouterr()
    found = document(printed.out)["differences"]
    assert "worse: latency_ms by url/m, default prompts, 1 at a time" in printed.err
    assert "its max_tokens was 128, not 9" not in printed.err
    assert {one["key"]: one["verdict"] for one in found}["latency_ms"] == "slower"
    assert (
        bench(*url, "--compare", str(tmp_path / "old.json"), "--html", str(tmp_path / "r.html"), "--max-tokens=9") == 0
    )
    printed = capsys.readouterr()
    assert "slower" in printed.out
    assert "its max_tokens was 128, not 9" in printed.err
    assert "Against the other run" in (tmp_path / "r.html").read_text()


class Page(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_files_hold_the_run_and_hostile_names_do_nothing_in_them(
    fault: FaultServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fault.behave(faults.status(400), then="ok")
    files = {kind: tmp_path / f"run.{kind}" for kind in ("output", "csv", "html")}
    options = [part for kind, path in files.items() for part in (f"--{kind}", str(path))]
    perfkit.configure(providers={HOSTILE: {"kind": "openai", "base_url": fault.base_url, "api_key": "sk-secret"}})
    assert bench("--model", HOSTILE, "--warm-up", "0", *QUICK, *options) == 0
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    page = Page(files["html"].read_text())
    assert "script" not in page.tags
    assert page.links == []
    assert page.tags.count("svg") == 3
    assert all(text in page.text for text in DEFINITIONS.values())
    [line] = csv.DictReader(io.StringIO(files["csv"].read_text(), newline=""))
    assert line["provider"] == line["model"] == "'" + HOSTILE
    assert (line["requests"], line["errors"], line["error_kinds"]) == ("6", "1", "4xx:1")
    kept = document(files["output"].read_text())
    assert kept["rows"][0]["provider"] == HOSTILE
    assert len(kept["rows"][0]["samples"]) == 6
    assert all("sk-secret" not in path.read_text() for path in files.values())


def test_definitions_stand_beside_the_numbers(fault: FaultServer, capsys: pytest.CaptureFixture[str]) -> None:
    slo = ("--slo", "latency_ms<=2000")
    assert bench("--url", fault.base_url, "--model", "m", *slo, *QUICK) == 0
    out = capsys.readouterr().out
    assert "SLOs of goodput: latency_ms <= 2000" in out
    assert all(text in out for text in DEFINITIONS.values())


def test_the_bundled_model_needs_no_provider(capsys: pytest.CaptureFixture[str]) -> None:
    from _parts import needs_module

    needs_module("xllamacpp")
    assert bench("--bundled", *QUICK, "--json") == 0
    [row] = document(capsys.readouterr().out)["rows"]
    assert (row["provider"], row["model"], row["errors"]) == ("bundled", "tiny", 0)


def test_models_are_the_providers_or_the_default(fault: FaultServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--url", fault.base_url, *QUICK, "--json") == 0
    [row] = document(capsys.readouterr().out)["rows"]
    assert row["model"] == json.loads(urllib.request.urlopen(f"{fault.base_url}/models").read())["data"][0]["id"]
    perfkit.configure(providers={"one": {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}})
    assert bench(*QUICK) == 2
    assert "provider 'one' does not say which models it has: name them by --model" in capsys.readouterr().err
    perfkit.configure(client={"default_model": "tiny"})
    assert bench(*QUICK, "--json") == 0
    assert document(capsys.readouterr().out)["rows"][0]["model"] == "tiny"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (("--prompts", "none.txt"), 2, "--prompts none.txt: "),
        (("--prompts", "empty.json"), 2, "one prompt a line, or a JSON list of strings"),
        (("--output", "missing/run.json"), 1, "--output missing/run.json: No such file"),
        (("--requests", "0"), 2, "must be a whole number of at least 1, not '0'"),
        (("--rate", "1,0"), 2, "must be a number above 0, not '0'"),
        (("--timeout", "nan"), 2, "must be a number above 0, not 'nan'"),
        (("--bundled",), 2, "not allowed with argument --url"),
    ],
)
def test_what_cannot_be_read_or_written_is_named(
    arguments: tuple[str, str], exit_code: int, said: str, fault: FaultServer, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty.json").write_text("[]")
    try:
        code: object = bench("--url", fault.base_url, "--model", "m", *QUICK, *arguments)
    except SystemExit as end:
        code = end.code
    assert code == exit_code
    assert said in capsys.readouterr().err
