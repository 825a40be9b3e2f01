from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from _parts import missing, needs_module
from _servers import polled

from perfkit import cli
from perfkit.caching.freshness import read_traits
from perfkit.demo.workload import Call, workload
from perfkit.testing.faults import FaultServer, cut, ok, unauthorized
from perfkit.values import ChatRequest

THREADS = 8
CONNECT_MS, REPLY_MS = 60, 90
PATIENT = """
import sys
from perfkit.transport import hosts
hosts._LEAST_DRAIN = hosts._LONGEST_DRAIN = 20.0  # seconds for a stream's last bytes: connections are counted
from perfkit.cli import main
sys.exit(main(sys.argv[1:]))
"""


class Demo:
    """`perfkit demo` in a process of its own, with everything it starts marked, and files of its own."""

    def __init__(self, directory: Path, *arguments: str, **environment: str) -> None:
        self.temporary = directory / "tmp"
        self.temporary.mkdir()
        self._mark = f"DEMO_TEST_MARK={uuid.uuid4()}"
        name, _, value = self._mark.partition("=")
        self.process = subprocess.Popen(
            [sys.executable, "-c", PATIENT, "demo", *arguments],
            cwd=directory,
            env={**os.environ, "TMPDIR": str(self.temporary), name: value, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that Ctrl-C can be given to all of it
        )

    def end(self) -> tuple[int, str, str]:
        try:
            out, err = self.process.communicate(timeout=100)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            out, err = self.process.communicate()
            pytest.fail(f"the demo does not end: {err[-2000:]}")
        return self.process.returncode, out, err

    def processes(self) -> list[int]:
        if not Path("/proc/self/environ").exists():
            missing("/proc", "run on Linux")
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self._mark.encode() in environ.read_bytes():
                    found.append(int(environ.parent.name))
            except OSError:  # it ended meanwhile, or is another user's
                continue
        return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Demo, dict[str, Any]]:
    """Return a run under everything in a user's surroundings that could change its figures, and what it printed."""
    for package in ("numpy", "xllamacpp", "requests", "trustme", "rich"):
        needs_module(package)
    directory = tmp_path_factory.mktemp("demo")
    (directory / "perfkit.toml").write_text("this is no TOML")
    netrc = directory / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password secret")
    dead_end = "http://127.0.0.1:9"
    demo = Demo(
        directory, "--calls", "60", "--threads", str(THREADS), "--json",
        PERFKIT_CACHE__POLICY="never", PERFKIT_NONSENSE__KEY="x", OPENAI_API_KEY="sk-user", ANTHROPIC_API_KEY="sk-user",
        HTTPS_PROXY=dead_end, https_proxy=dead_end, ALL_PROXY=dead_end, no_proxy="example.com",
        REQUESTS_CA_BUNDLE="/nowhere", NETRC=str(netrc),
    )  # fmt: skip
    code, out, err = demo.end()
    assert code == 0, err
    return demo, json.loads(out)  # fails where there is more than one document


def rows(finished: tuple[Demo, dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    today, perfkit, without_cache = finished[1]["rows"]
    return today, perfkit, without_cache


# --- the workload


def test_workload_is_the_same_for_a_seed() -> None:
    assert workload(7, 200, dying_threads=4) == workload(7, 200, dying_threads=4)
    assert workload(7, 200, dying_threads=4) != workload(8, 200, dying_threads=4)


def test_workload_repeats_at_temperature_zero_and_asks_the_rest_once() -> None:
    calls = workload(1, 1000)
    repeated = [call for call in calls if call.kind == "repeated"]
    others = [call for call in calls if call.kind != "repeated"]
    assert {call.temperature for call in repeated} == {0.0}
    assert len({call.question for call in repeated}) < 20
    assert {call.temperature for call in others} == {None}
    assert len({call.question for call in others}) == len(others)
    assert {call.kind for call in others} == {"fresh", "stream"}


def test_what_is_under_way_when_a_provider_dies_are_streams() -> None:
    calls = workload(1, 1000, dying_threads=16)
    assert {call.kind for call in calls[500 - 16 : 500]} == {"stream"}
    assert {call.kind for call in calls[:484]} == {call.kind for call in calls[500:]} == {"repeated", "fresh", "stream"}


def test_questions_are_neither_personal_nor_about_now() -> None:
    traits = {read_traits(ChatRequest(call.question, "tiny")) for call in workload(1, 1000)}
    assert {(one.personal, one.current, one.personalized) for one in traits} == {(False, False, False)}


# --- the three ways, whatever the user's own settings


def test_perfkit_loses_no_call_to_the_kill_and_today_does(finished: tuple[Demo, dict[str, Any]]) -> None:
    today, perfkit, without_cache = rows(finished)
    assert 0 < today["answered"] < 30 <= today["failed"]
    assert sum(today["failures"].values()) == today["failed"] == today["calls"] - today["answered"]
    assert today["first_failure"]
    assert perfkit["failures"] == without_cache["failures"] == {}
    assert perfkit["answered"] == without_cache["answered"] == finished[1]["calls"] == 60


def test_stream_that_goes_on_elsewhere_is_told_from_one_that_is_replaced_unseen(fault: FaultServer) -> None:
    from perfkit.demo.ways import Endpoint, Perfkit, Setting

    with FaultServer() as other:
        servers = {"first": fault, "second": other}
        endpoints = tuple(Endpoint(name, "openai", server.base_url, "k") for name, server in servers.items())
        for events, resumed in ((3, True), (0, False)):
            way = Perfkit(Setting(endpoints, "m", timeout=10, prices={}), cache=False)
            fault.behave(cut(ok("one two three four"), after_events=events))
            other.behave(ok("one two three four"))
            answers = [way.ask(Call("stream", f"question {number}")) for number in range(3)]
            way.close()
            assert {answer.resumed for answer in answers} <= {resumed, False}
            assert any(answer.resumed for answer in answers) is resumed


def test_servers_count_fewer_connections_and_a_handshake_for_each(finished: tuple[Demo, dict[str, Any]]) -> None:
    today, perfkit, without_cache = rows(finished)
    assert 30 - THREADS <= today["connections"] <= 30
    assert max(perfkit["connections"], without_cache["connections"]) <= 3 * THREADS
    for row in rows(finished):
        assert 0 <= row["connections"] - row["tls_handshakes"] <= THREADS  # the kill may come before a handshake's end
    assert without_cache["requests"] >= 60


def test_own_metrics_count_every_answer_and_agree_with_the_watch(finished: tuple[Demo, dict[str, Any]]) -> None:
    today, *perfkit = rows(finished)
    assert (today["recorded"], today["recorded_p95_ms"]) == (None, None)
    for row in perfkit:
        assert row["recorded"] == row["answered"]
        assert row["recorded_p95_ms"] <= 1.02 * row["p95_ms"] + 1  # the watch is outside of it


def test_only_the_row_with_a_cache_has_hits_and_saves(finished: tuple[Demo, dict[str, Any]]) -> None:
    today, perfkit, without_cache = rows(finished)
    assert perfkit["cache_hits"] > 0
    assert perfkit["saved"] > 0
    assert today["cache_hits"] == without_cache["cache_hits"] == 0
    assert today["saved"] == without_cache["saved"] == 0


@pytest.mark.parametrize("cache", [True, False])
def test_answer_from_the_cache_sends_nothing_and_saves_its_price(fault: FaultServer, cache: bool) -> None:
    from perfkit.demo.ways import Endpoint, Perfkit, Setting

    fault.behave(ok("a place to keep answers"))
    endpoint = Endpoint("first", "openai", fault.base_url, "k")
    way = Perfkit(Setting((endpoint,), "m", timeout=10, prices={"m": {"input": 1.0, "output": 2.0}}), cache=cache)
    first, second = (way.ask(Call("repeated", "What is a cache?", temperature=0.0)) for _ in range(2))
    way.close()
    assert (first.cached, second.cached) == (False, cache)
    assert (second.usage.prompt_tokens == 0) is cache
    assert (second.cost or 0) + (second.saved or 0) == pytest.approx(first.cost)
    assert (second.cost == 0) is cache


def test_other_words_are_served_by_meaning_and_another_number_is_not(finished: tuple[Demo, dict[str, Any]]) -> None:
    told = [(one["served"], one["refused_by"]) for one in finished[1]["by_meaning"]]
    assert told == [(False, None), (True, None), (False, "numbers")]


def test_all_rows_are_priced_alike(finished: tuple[Demo, dict[str, Any]]) -> None:
    price = finished[1]["price"]
    for row in rows(finished):
        expected = (row["tokens_in"] * price["input"] + row["tokens_out"] * price["output"]) / 1e6
        assert row["cost"] == pytest.approx(expected)
        assert row["cost"] > 0


def test_percentiles_are_of_answered_calls(finished: tuple[Demo, dict[str, Any]]) -> None:
    today, _, without_cache = rows(finished)
    assert today["p50_ms"] >= CONNECT_MS + REPLY_MS  # half of the calls failed within a millisecond or two
    assert without_cache["p50_ms"] >= REPLY_MS
    assert finished[1]["injected_ms"] == {"connect": CONNECT_MS, "reply": REPLY_MS, "piece": 20}
    assert all(row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] for row in rows(finished))


def test_stops_for_garbage_are_told(finished: tuple[Demo, dict[str, Any]]) -> None:
    assert all(0 < row["garbage_longest_ms"] <= row["garbage_ms"] < row["seconds"] * 1000 for row in rows(finished))


def test_what_happens_inside_the_process_is_told_too(finished: tuple[Demo, dict[str, Any]]) -> None:
    spent, served, waited, item, profile, stall = finished[1]["inside"]
    assert 0.97 <= float(spent["perfkit"][1:]) <= 1.0 <= float(spent["today"][1:])
    assert served["perfkit"] == "16"
    assert all(float(one["perfkit"]) > 0 for one in (waited, item, profile))
    assert stall["perfkit"].endswith(" ms, in _stall()")


def test_web_app_ends_the_demo_and_its_dashboard_agrees(finished: tuple[Demo, dict[str, Any]]) -> None:
    web = finished[1]["web"]
    assert web["counted"] == web["dashboard"]
    assert web["counted"]["requests"] == 120
    assert web["counted"]["from_cache"] > 0  # though the user's settings keep nothing
    assert web["refused"].keys() == {"guest"}
    assert (web["wrong"], web["mixed_up"], web["without_token"]) == ([], 0, [403, 403])


def test_notes_say_what_the_figures_rest_on(finished: tuple[Demo, dict[str, Any]]) -> None:
    notes = " ".join(finished[1]["notes"])
    for said in (
        "only strings words together",
        "stand-in price",
        "injected latency",
        "cacheable=True",
        "answered calls",
        "resume=True",
    ):
        assert said in notes


def test_nothing_is_left_behind(finished: tuple[Demo, dict[str, Any]]) -> None:
    demo, _ = finished
    assert demo.processes() == []
    assert list(demo.temporary.iterdir()) == []


def test_interrupt_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    needs_module("xllamacpp")
    demo = Demo(tmp_path, "--calls", "10000")
    polled(lambda: len(demo.processes()) == 7, 40)  # the demo, three models, three gates
    for _ in range(3):  # CPython loses an interrupt that comes while a finaliser runs: people press again
        os.killpg(demo.process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            demo.process.wait(timeout=20)
            break
    code, out, err = demo.end()
    assert (code, out) == (130, "")
    assert "interrupted" in err
    assert "Traceback" not in err
    assert demo.processes() == []
    assert list(demo.temporary.iterdir()) == []


def test_error_in_the_middle_leaves_nothing_behind() -> None:
    needs_module("xllamacpp")
    from perfkit.demo.servers import Fleet

    seen: list[int | None] = []
    certificates: list[Path] = []

    def fail() -> None:
        with Fleet() as fleet:
            fleet.restart()
            gates = [one.gate for one in fleet._providers if one.gate is not None]
            seen.extend([gate.pid for gate in gates] + [one.model.pid for one in fleet._providers])
            certificates.append(Path(fleet.setting.ca_file or ""))
            assert certificates[0].exists()
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert len(seen) == 6
    assert not [pid for pid in seen if pid is None or Path(f"/proc/{pid}").exists()]
    assert not certificates[0].exists()


# --- a provider of one's own


def test_real_provider_gets_only_the_key_that_was_named(tmp_path: Path, fault: FaultServer) -> None:
    needs_module("rich")
    arguments = ("--base-url", fault.base_url, "--calls", "20", "--json")
    code, out, err = Demo(tmp_path, *arguments, "--api-key-env", "MINE", MINE="sesame", OPENAI_API_KEY="sk-user").end()
    assert code == 0, err
    seen = fault.stats()
    assert {request["headers"].get("authorization") for request in seen["recent"]} == {"Bearer sesame"}
    assert json.loads(out)["web"] is None  # its calls would cost money
    today, *with_perfkit = json.loads(out)["rows"]
    assert today["connections"] == 20
    assert all(row["connections"] <= 4 and row["answered"] == 20 for row in with_perfkit)
    assert seen["connections"] == 1 + sum(
        row["connections"] for row in (today, *with_perfkit)
    )  # 1: asked for its model
    assert all(row["tls_handshakes"] is None for row in (today, *with_perfkit))
    assert "sesame" not in out + err


def test_real_provider_gets_no_key_unless_one_is_named(tmp_path: Path, fault: FaultServer) -> None:
    needs_module("rich")
    fault.behave(unauthorized())
    code, out, err = Demo(
        tmp_path, "--base-url", fault.base_url, "--model", "m", "--calls", "2", OPENAI_API_KEY="sk-user"
    ).end()
    assert code == 3
    assert {request["headers"].get("authorization") for request in fault.stats()["recent"]} == {None}
    assert "HTTPError 401" in out
    assert "AuthenticationError" in out
    assert "no call was answered" in err


def test_table_is_plain_text_where_there_is_no_terminal(tmp_path: Path, fault: FaultServer) -> None:
    needs_module("rich")
    arguments = ("--base-url", fault.base_url, "--calls", "2")
    code, out, err = Demo(tmp_path, *arguments, COLUMNS="100", OPENAI_API_KEY="sk-user").end()
    assert code == 0
    assert {request["headers"].get("authorization") for request in fault.stats()["recent"]} == {None}
    assert "\x1b" not in out + err
    assert "calls answered" in out
    assert "inside the process" in out
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--calls", "0"], "whole number from 2"),
        (["--calls", "1e3"], "whole number from 2"),
        (["--threads", "none"], "whole number from 1"),
        (["--seed", "x"], "invalid int value"),
        (["--model", "m"], "--base-url"),
        (["--api-key-env", "K"], "--base-url"),
        (["--base-url", "ftp://x", "--model", "m"], "ftp://x"),
        (["--base-url", "http://127.0.0.1:9/v1", "--api-key-env", "NOT_SET"], "NOT_SET"),
    ],
)
def test_bad_options_exit_with_2(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    needs_module("rich")
    try:
        code: object = cli.main(["demo", *arguments])
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert said in capsys.readouterr().err


def test_provider_that_cannot_be_reached_exits_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    needs_module("rich")
    assert cli.main(["demo", "--base-url", "http://127.0.0.1:9/v1"]) == 3
    assert "127.0.0.1:9" in capsys.readouterr().err


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("rich", "trustme") else found(name))
    assert cli.main(["demo"]) == 2
    told = capsys.readouterr().err
    assert "rich and trustme" in told
    assert "pip install 'perfkit[demo]'" in told
