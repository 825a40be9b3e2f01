"""A real llama.cpp server in a process of its own, for tests, examples and the demo.

`LlamaServer` owns that process: settings go to `python -m perfkit.testing.llm` over stdin (so that a key shows in no
process list), the port comes back over stdout once the model is loaded, everything else the server prints ends in an
unnamed temporary file. The process ends itself when its parent is gone, so that a killed test run leaves nothing.
"""

from __future__ import annotations

import http
import http.client
import importlib.util
import json
import os
import random
import selectors
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Self

from perfkit.clock import SYSTEM_CLOCK
from perfkit.errors import DeadlineExceeded, PerfkitError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["LlamaServer"]

_HOST = "127.0.0.1"
_PORTS = range(20_000, 32_768)  # below the ephemeral range: no outgoing connection takes the port of a stopped server
_START_SECONDS = 30.0
_STOP_SECONDS = 5.0
_TAIL = 8192  # bytes


class LlamaServer:
    """A llama.cpp server on 127.0.0.1; a context manager, started, stopped and killed by one thread at a time.

    It answers OpenAI chat, Responses and embeddings and Anthropic messages under `/v1`. The first `start` chooses the
    port; later ones use it again, so that a test can let a server die and come back under the same URL.

    Args:
        model: GGUF file; None means `perfkit.testing.model.model_path()`.
        slots: requests answered at the same time; others wait in the server.
        context: tokens of prompt and answer together, for each slot.
        api_key: key to ask for; None lets everybody in.
        alias: model name in answers and in `/v1/models`.
        embeddings: answer `/v1/embeddings` too; the tiny model's are the counts of the words, made unit length.
        threads: threads that compute.
    """

    def __init__(  # noqa: PLR0913 - the settings of a server, each with a default
        self,
        model: Path | None = None,
        *,
        slots: int = 4,
        context: int = 2048,
        api_key: str | None = None,
        alias: str = "tiny",
        embeddings: bool = False,
        threads: int = 1,
    ) -> None:
        self._model = model
        self._api_key = api_key
        self._alias = alias
        self._settings = {"slots": slots, "context": context, "embeddings": embeddings, "threads": threads}
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self._tail = ""

    def start(self) -> Self:
        """Start the server and return when it answers; does nothing when it is running.

        Raises:
            ModuleNotFoundError: the llama.cpp wheel is not installed.
            PerfkitError: the server ended before it answered; the message holds the end of its output.
            DeadlineExceeded: it did not answer within 30 s.
        """
        if self.pid is not None:
            return self
        if importlib.util.find_spec("xllamacpp") is None:
            message = "the test server needs the llama.cpp wheel: pip install 'perfkit[demo]'"
            raise ModuleNotFoundError(message, name="xllamacpp")
        self.kill()  # forgets a server that ended by itself
        try:
            self._spawn()
            self._port = self._await()
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """End the server and wait until it is gone; kill it when it takes over 5 s."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End the server at once, as a crash would (SIGKILL), and wait until it is gone."""
        if self._process is not None:
            with self._process:  # waits for it and closes the pipe
                self._process.kill()
            self._process = None
        if self._output is not None:
            self._tail = self.log
            self._output.close()
            self._output = None

    @property
    def root_url(self) -> str:
        """Scheme, host and port; `PerfkitError` before the first start."""
        if self._port is None:
            raise PerfkitError("the test server has no port yet; call start() or use it as a context manager")
        return f"http://{_HOST}:{self._port}"

    @property
    def base_url(self) -> str:
        """What clients want as base URL: `root_url` and `/v1`."""
        return f"{self.root_url}/v1"

    @property
    def pid(self) -> int | None:
        """Id of the server's process, None when it does not run."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    @property
    def log(self) -> str:
        """The end of what the server printed, 8 KiB at most; also after it stopped."""
        if self._output is None:
            return self._tail
        size = os.fstat(self._output.fileno()).st_size
        # pread leaves the offset alone, which the server's own descriptor shares.
        return os.pread(self._output.fileno(), _TAIL, max(0, size - _TAIL)).decode(errors="replace")

    def _spawn(self) -> None:
        settings = json.dumps(self._for_child()).encode()
        self._output = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - closed by kill()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "perfkit.testing.llm"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._output,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # Ctrl-C is for the parent, which then stops the server in its own order
        )
        assert self._process.stdin is not None
        with suppress(BrokenPipeError), self._process.stdin as stdin:  # if it is dead, _await says why
            stdin.write(settings)

    def _for_child(self) -> dict[str, Any]:
        from perfkit.testing.model import model_path

        return {
            **self._settings,
            "model": str(model_path() if self._model is None else self._model),
            "alias": self._alias,
            "api_key": self._api_key,
            "ports": random.SystemRandom().sample(_PORTS, 5) if self._port is None else [self._port],
            "parent": os.getpid(),
        }

    def _await(self) -> int:
        """Return the port once the server answers there."""
        deadline = SYSTEM_CLOCK.now() + _START_SECONDS
        port = self._announced()
        while port is not None and SYSTEM_CLOCK.now() < deadline:
            if _healthy(port):
                return port
            SYSTEM_CLOCK.sleep(0.02)
        raise DeadlineExceeded(f"the test server did not answer within {_START_SECONDS:g} s", elapsed=_START_SECONDS)

    def _announced(self) -> int | None:
        """Wait for the port the server says it has taken; None when it is silent for too long."""
        assert self._process is not None
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(_START_SECONDS):
                return None
        if line := self._process.stdout.readline():
            return int(line)
        raise PerfkitError(f"the test server ended before it answered: {self.log.strip() or 'it printed nothing'}")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        where = "no port yet" if self._port is None else self.root_url
        return f"LlamaServer({where}, {self._alias}, {'stopped' if self.pid is None else f'pid {self.pid}'})"


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection(_HOST, port, timeout=1.0)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


# --- the server's process


def _main() -> None:
    settings = json.load(sys.stdin)
    server = _serve(settings, settings["ports"])
    print(server.listening_address.rpartition(":")[2], flush=True)  # noqa: T201 - the parent waits for it
    os.dup2(2, 1)  # nobody reads the pipe from here on
    # Unlike PR_SET_PDEATHSIG, this is not about the thread that started us, and it works under any fork of the parent.
    while os.getppid() == settings["parent"]:
        SYSTEM_CLOCK.sleep(0.2)
    os._exit(0)


def _serve(settings: dict[str, Any], ports: Iterable[int]) -> Any:
    import xllamacpp

    for port in ports:
        try:
            return xllamacpp.Server(_params(settings, port))
        except RuntimeError:
            if _is_free(port):  # then the port was not the reason
                raise
    raise SystemExit(f"no free port: tried {settings['ports']}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind((_HOST, port))
        return True
    return False


def _params(settings: dict[str, Any], port: int) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = settings["model"], {settings["alias"]}
    params.hostnames, params.port = [_HOST], port
    params.n_parallel, params.n_ctx = settings["slots"], settings["slots"] * settings["context"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    params.api_keys = [] if settings["api_key"] is None else [settings["api_key"]]
    if settings["embeddings"]:
        params.embedding, params.pooling_type = True, xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        params.n_batch = params.n_ubatch = settings["context"]  # a text's mean needs all of it in one batch
    params.sampling.penalty_present = 1.0  # or a word bigram at temperature 0 goes round in circles
    params.cache_ram_mib, params.verbosity = 64, 1  # verbosity 1: errors only
    params.offline, params.endpoint_metrics = True, True
    params.fit_params = params.warmup = params.ui = False
    return params


if __name__ == "__main__":
    _main()
