from __future__ import annotations

import concurrent.futures
import http.client
import importlib
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from _daemons import free_port
from _parts import needs_module

from perfkit.errors import PerfkitError
from perfkit.testing import llm as module
from perfkit.testing.llm import LlamaServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Ask = Callable[..., tuple[int, Any]]

QUESTION = [{"role": "user", "content": "What is a cache?"}]
TOO_LONG = [{"role": "user", "content": "cache " * 3000}]
SECRET = "sk-only-for-those-who-know"
# Starts a server, forks a child that stops it (which must change nothing), says how things stand and waits.
PARENT = f"""
import os, sys, urllib.request
sys.path[:] = {sys.path!r}
from perfkit.testing.llm import LlamaServer
server = LlamaServer().start()
if os.fork() == 0:
    server.stop()
    os._exit(0)
os.wait()
status = urllib.request.urlopen(server.root_url + "/health", timeout=5).status
print(server.pid, server.root_url, status, "xllamacpp" in sys.modules, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module", autouse=True)
def wheel() -> None:
    needs_module("xllamacpp")


@pytest.fixture(scope="module")
def locked() -> Iterator[LlamaServer]:
    with LlamaServer(api_key=SECRET) as server:
        yield server


def chat(ask: Ask, server: LlamaServer, **body: Any) -> tuple[str, str, dict[str, Any]]:
    status, answer = ask(f"{server.base_url}/chat/completions", {"model": "tiny", "messages": QUESTION, **body})
    assert status == 200, answer
    choice = answer["choices"][0]
    return choice["message"]["content"], choice["finish_reason"], answer["usage"]


def events(stream: str) -> list[Any]:
    return [json.loads(data) for data in re.findall(r"^data: (\{.*)$", stream, re.MULTILINE)]


def answers(server_url: str) -> bool:
    host, _, port = server_url.removeprefix("http://").partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def gone_within(seconds: float, server_url: str) -> bool:
    deadline = time.monotonic() + seconds
    while answers(server_url) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not answers(server_url)


def sdk(name: str) -> Any:
    needs_module(name)
    return importlib.import_module(name)


def process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# --- what it answers


def test_chat_answers_and_counts(llm: LlamaServer, ask: Ask) -> None:
    text, finish, usage = chat(ask, llm, max_tokens=16, ignore_eos=True)
    assert len(text.split()) > 8
    assert finish == "length"
    assert usage["completion_tokens"] == 16
    assert usage["prompt_tokens"] > usage["prompt_tokens_details"]["cached_tokens"]


def test_answers_end_by_themselves(llm: LlamaServer, ask: Ask) -> None:
    assert "stop" in {chat(ask, llm, max_tokens=1000, seed=seed)[1] for seed in range(3)}


def test_repeated_prompt_is_reported_as_cached(llm: LlamaServer, ask: Ask) -> None:
    for _ in range(2):
        usage = chat(ask, llm, messages=[{"role": "user", "content": "Say it again. " * 20}], max_tokens=1)[2]
    assert usage["prompt_tokens_details"]["cached_tokens"] > usage["prompt_tokens"] / 2


def test_seed_decides_the_text_also_when_requests_share_batches(llm: LlamaServer, ask: Ask) -> None:
    alone = chat(ask, llm, max_tokens=40, seed=7)[0]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = set(pool.map(lambda _: chat(ask, llm, max_tokens=40, seed=7)[0], range(40)))
    assert together == {alone}
    assert chat(ask, llm, max_tokens=40, seed=8)[0] != alone


def test_text_at_temperature_zero_does_not_go_round_in_circles(llm: LlamaServer, ask: Ask) -> None:
    words = chat(ask, llm, max_tokens=60, temperature=0, ignore_eos=True)[0].split()
    assert len(set(words)) > len(words) / 2


def test_chat_streams_with_usage_and_done(llm: LlamaServer, ask: Ask) -> None:
    body = {"model": "tiny", "messages": QUESTION, "max_tokens": 8, "ignore_eos": True, "stream": True}
    _, stream = ask(f"{llm.base_url}/chat/completions", {**body, "stream_options": {"include_usage": True}})
    *chunks, last = events(stream)
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks).strip()
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 8
    assert stream.rstrip().endswith("data: [DONE]")


def test_responses_answer_and_count(llm: LlamaServer, ask: Ask) -> None:
    status, answer = ask(f"{llm.base_url}/responses", {"model": "tiny", "input": "Why?", "max_output_tokens": 8})
    assert status == 200
    assert answer["output"][0]["content"][0]["text"]
    assert answer["usage"]["input_tokens"] > 0
    assert answer["usage"]["output_tokens"] > 0


def test_messages_answer_and_count(llm: LlamaServer, ask: Ask) -> None:
    status, answer = ask(f"{llm.base_url}/messages", {"model": "tiny", "messages": QUESTION, "max_tokens": 8})
    assert status == 200
    assert answer["content"][0]["text"]
    usage = answer["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] > 10
    assert usage["output_tokens"] > 0


def test_messages_stream_with_usage(llm: LlamaServer, ask: Ask) -> None:
    body = {"model": "tiny", "messages": QUESTION, "max_tokens": 8, "stream": True}
    stream = events(ask(f"{llm.base_url}/messages", body)[1])
    assert stream[0]["message"]["usage"]["input_tokens"] > 0
    assert "".join(event["delta"]["text"] for event in stream if event["type"] == "content_block_delta")
    assert stream[-2]["usage"]["output_tokens"] > 0
    assert stream[-1]["type"] == "message_stop"


def test_embeddings_are_near_for_texts_that_share_words(ask: Ask) -> None:
    texts = ["the cache is full", "the cache is slow", "deploy often, watch numbers", "cache " * 1000]
    with LlamaServer(embeddings=True, alias="words") as server:
        status, answer = ask(f"{server.base_url}/embeddings", {"model": "words", "input": texts})
        assert chat(ask, server, max_tokens=4)[0]
    assert status == 200
    full, slow, deploy, _ = (item["embedding"] for item in answer["data"])
    assert sum(a * b for a, b in zip(full, slow, strict=True)) > 0.5
    assert sum(a * b for a, b in zip(full, deploy, strict=True)) < 0.2
    assert answer["model"] == "words"


def test_schema_is_obeyed(llm: LlamaServer, ask: Ask) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": schema}}
    assert json.loads(chat(ask, llm, response_format=wanted)[0])["ok"] in {True, False}


def test_openai_client_reads_it(locked: LlamaServer) -> None:
    openai = sdk("openai")
    with openai.OpenAI(base_url=locked.base_url, api_key=SECRET, max_retries=0) as client:
        answer = client.chat.completions.create(model="tiny", messages=QUESTION, max_tokens=8)
        assert answer.choices[0].message.content
        assert answer.usage.completion_tokens > 0
        response = client.responses.create(model="tiny", input="Why?", max_output_tokens=8)
        assert response.output_text
        assert response.usage.total_tokens > 0
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model="tiny", messages=TOO_LONG)


def test_anthropic_client_reads_it(locked: LlamaServer) -> None:
    anthropic = sdk("anthropic")
    with anthropic.Anthropic(base_url=locked.root_url, api_key=SECRET, max_retries=0) as client:
        answer = client.messages.create(model="tiny", messages=QUESTION, max_tokens=8)
        assert answer.content[0].text
        assert answer.usage.output_tokens > 0
        with client.messages.stream(model="tiny", messages=QUESTION, max_tokens=8) as stream:
            assert "".join(stream.text_stream)
        with pytest.raises(anthropic.BadRequestError):
            client.messages.create(model="tiny", messages=TOO_LONG, max_tokens=8)


# --- what it refuses


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer sk-wrong"}, {"x-api-key": "sk-wrong"}])
def test_request_without_the_key_is_refused(headers: dict[str, str], locked: LlamaServer, ask: Ask) -> None:
    status, answer = ask(f"{locked.base_url}/chat/completions", {"messages": QUESTION, "max_tokens": 1}, **headers)
    assert status == 401
    assert answer["error"]["type"] == "authentication_error"


def test_key_shows_nowhere(locked: LlamaServer) -> None:
    process = Path(f"/proc/{locked.pid}")
    seen = repr(locked) + locked.log
    if process.exists():  # Linux
        seen += (process / "cmdline").read_text() + (process / "environ").read_text()
        assert "perfkit.testing.llm" in seen
    assert SECRET not in seen


@pytest.mark.parametrize("path", ["chat/completions", "messages"])
def test_prompt_longer_than_a_slot_is_refused(path: str, llm: LlamaServer, ask: Ask) -> None:
    status, answer = ask(f"{llm.base_url}/{path}", {"model": "tiny", "messages": TOO_LONG, "max_tokens": 8})
    assert status == 400
    assert answer["error"]["type"] == "exceed_context_size_error"
    assert answer["error"]["n_ctx"] == 2048


def test_context_is_for_each_slot(ask: Ask) -> None:
    with LlamaServer(slots=2, context=512) as server:
        _, slots = ask(f"{server.root_url}/slots")
    assert [slot["n_ctx"] for slot in slots] == [512, 512]


# --- its life


def test_stop_leaves_no_process_and_no_port() -> None:
    server = LlamaServer().start()
    url, pid = server.root_url, server.pid
    assert pid is not None
    assert answers(url)
    server.stop()
    assert not process_exists(pid)
    assert not answers(url)
    assert server.pid is None
    server.stop()  # again: nothing to do


def test_stop_kills_a_server_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STOP_SECONDS", 0.05)
    server = LlamaServer().start()
    assert server.pid is not None
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)  # cannot act on SIGTERM
    server.stop()
    assert not process_exists(pid)


def test_killed_server_comes_back_at_the_same_url(ask: Ask) -> None:
    with LlamaServer() as server:
        url = server.base_url
        client = http.client.HTTPConnection(url.split("/")[2])
        client.request("GET", "/health")
        assert client.getresponse().read()
        server.kill()
        assert not answers(server.root_url)
        assert server.start().base_url == url
        assert chat(ask, server, max_tokens=1)
        client.close()


def test_start_replaces_a_server_that_crashed(ask: Ask) -> None:
    with LlamaServer() as server:
        pid = server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert "stopped" in repr(server)
        server.start()
        assert chat(ask, server, max_tokens=1)


def test_start_of_a_running_server_does_nothing(llm: LlamaServer) -> None:
    before = llm.pid
    assert llm.start() is llm
    assert llm.pid == before


def test_server_ends_when_its_parent_is_killed_but_not_for_a_forked_child(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    ) as parent:
        assert parent.stdout is not None
        _, url, health, imported = parent.stdout.readline().split()
        assert health == "200"
        assert imported == "False"
        parent.kill()
    assert gone_within(10, url)


def test_interrupt_from_the_terminal_does_not_reach_it(llm: LlamaServer) -> None:
    assert llm.pid is not None
    assert os.getpgid(llm.pid) != os.getpgid(0)


def test_ports_are_below_the_ephemeral_range_and_differ(llm: LlamaServer, locked: LlamaServer) -> None:
    ports = [int(server.root_url.rpartition(":")[2]) for server in (llm, locked)]
    assert len({*ports}) == 2
    assert max(ports) < 32_768


def test_taken_port_is_passed_over(monkeypatch: pytest.MonkeyPatch, llm: LlamaServer) -> None:
    taken = int(llm.root_url.rpartition(":")[2])
    free = free_port()
    monkeypatch.setattr("random.SystemRandom.sample", lambda *_: [taken, free])
    with LlamaServer() as server:
        assert server.root_url == f"http://127.0.0.1:{free}"


def test_url_taken_by_another_while_it_was_down_is_an_error() -> None:
    server = LlamaServer().start()
    server.stop()
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", int(server.root_url.rpartition(":")[2])))
        squatter.listen()
        with pytest.raises(PerfkitError, match="no free port"):
            server.start()
    assert server.pid is None


def test_model_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    server = LlamaServer(tmp_path / "no.gguf")
    with pytest.raises(PerfkitError, match=r"ended before it answered: (?s:.*)no\.gguf"):
        server.start()
    assert server.log.count("failed to load model, ") == 1  # other ports would not have helped
    assert server.pid is None


def test_url_before_the_first_start_says_what_to_do() -> None:
    server = LlamaServer()
    assert "no port yet" in repr(server)
    with pytest.raises(PerfkitError, match=r"call start\(\)"):
        _ = server.base_url


def test_missing_wheel_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'perfkit\[demo\]'") as caught:
        LlamaServer().start()
    assert caught.value.name == "xllamacpp"


def test_it_runs_alone_and_says_how_it_is_asked() -> None:
    with subprocess.Popen([sys.executable, "-m", "perfkit.testing"], stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        word, address, key = command.stdout.readline().split()
        assert (word, key) == ("export", "OPENAI_API_KEY=none")
        body = json.dumps({"model": "gpt-4o-mini", "messages": QUESTION, "max_tokens": 4}).encode()
        url = address.removeprefix("OPENAI_BASE_URL=") + "/chat/completions"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as reply:
            assert json.load(reply)["usage"]["completion_tokens"] <= 4
        command.terminate()  # not Ctrl-C: what runs in a shell's background ignores it
