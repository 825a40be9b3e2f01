"""`perfkit report` beside a running application."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import perfkit
from perfkit.cli import main
from perfkit.metrics import PerformanceTracker
from perfkit.testing import FaultServer


@pytest.fixture
def store(tmp_path: Path, fault: FaultServer) -> Iterator[str]:
    """What an application that has asked three questions, one of them twice, has shared."""
    store = str(tmp_path / "metrics")
    perfkit.configure(
        providers={"local": {"kind": "openai", "base_url": fault.base_url, "api_key": "sk-test"}},
        client={"default_model": "tiny"},
        tokens={"prices": {"tiny": {"input": 1.0, "output": 2.0}}},
        metrics={"store": store},
    )
    for question in ("a", "b", "c", "c"):
        perfkit.chat(question, temperature=0, agent="[bold]")
    perfkit.tracker.feedback(perfkit.chat("d").id, score=0.5)
    perfkit.tracker.record_metric("batch_size", 12.5)
    perfkit.tracker.gauge("queue_depth", 3)
    perfkit.tracker.flush()
    yield store
    perfkit.tracker.close()


def test_the_tables_tell_what_was_measured(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--since", "15m"]) == 0
    shown = capsys.readouterr().out
    assert "Last 0:15:00 h; 1 worker on 1 host reported" in shown
    for text in ("local/tiny", "100.0%", "agent_response_time", "batch_size", "12.5", "queue_depth", "llm_cache"):
        assert text in shown


def test_names_are_whole_and_move_no_cursor(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the terminal is narrow and where it is none."""
    perfkit.tracker.record_metric(
        "\x1b[2Jmetric of a name that is longer than any terminal of eighty columns is wide", 1.0
    )
    perfkit.tracker.flush()
    assert main(["report"]) == 0
    shown = capsys.readouterr().out
    assert (
        "\N{REPLACEMENT CHARACTER}[2Jmetric of a name that is longer than any terminal of eighty columns is wide"
        in shown
    )
    assert "\x1b" not in shown
    row, _ = [line.split() for line in shown.splitlines() if line.startswith("local/tiny")]
    assert row[1:3] == ["4", "100.0%"]


def test_one_json_document_has_everything(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["since_seconds"] == 3600
    assert [worker["pid"] > 0 for worker in found["workers"]] == [True]
    assert found["age_seconds"] < 60
    assert found["llm"]["local/tiny"]["requests"] == 4
    assert found["llm"]["local/tiny"]["quality_score"] == 0.5
    assert found["metrics"]["agent_response_time"]["count"] == 5
    assert found["metrics"]["llm_cache"]["kind"] == "counter"


def test_a_store_can_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = PerformanceTracker(store=str(tmp_path / "other"))
    tracker.record_metric("x", 1.0)
    tracker.close()
    assert main(["report", "--store", str(tmp_path / "other")]) == 0
    assert "no worker reports" in capsys.readouterr().out
    assert main(["report", "--store", str(tmp_path / "nowhere"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["age_seconds"] is None


def test_without_a_store_it_says_what_to_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report"]) == 2
    assert "metrics.store" in capsys.readouterr().err


def test_a_span_must_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_code:
        main(["report", "--since", "yesterday"])
    assert exit_code.value.code == 2
    assert "15m" in capsys.readouterr().err
