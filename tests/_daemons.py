"""The daemons metrics are sent to, started for real on loopback, and asked for what they stored."""

from __future__ import annotations

import ast
import json
import os
import random
import re
import signal
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from _parts import needs_program, needs_statsd_daemon
from _servers import polled

__all__ = ["Collectd", "Daemon", "NodeStatsd", "Prometheus", "free_port"]


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return a port of loopback that nobody has, below those that connections are given."""
    while True:
        port = random.randrange(20_000, 32_768)
        with socket.socket(socket.AF_INET, kind) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Daemon:
    """A process that is started, may be stopped and go on, and is killed at the end.

    Args:
        directory: where it may write.
        command: what to run.
    """

    def __init__(self, directory: Path, command: Sequence[str]) -> None:
        self.directory = directory
        self._command = command
        self.start()

    def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(self._command, cwd=self.directory, stdout=log, stderr=log)
        try:
            polled(self._is_up, 30)
        except AssertionError:
            self.kill()
            raise

    def _is_up(self) -> bool:
        raise NotImplementedError

    def kill(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait(10)

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()


NODE = """{{
  port: {udp}, address: "127.0.0.1", mgmt_address: "127.0.0.1", mgmt_port: {tcp},
  flushInterval: {flush}, backends: ["./backends/console"], percentThreshold: [50, 95, 99], deleteIdleStats: false,
  servers: [{{server: "./servers/udp", address: "127.0.0.1", port: {udp}}}],
}}"""


class NodeStatsd(Daemon):
    """The npm statsd daemon, asked over its management port; unless told it never flushes, and so keeps every value."""

    def __init__(self, directory: Path, flush: int = 3_600_000) -> None:
        node, package = needs_statsd_daemon()
        self.port, self._management = free_port(socket.SOCK_DGRAM), free_port()
        config = directory / "statsd.js"
        config.write_text(NODE.format(udp=self.port, tcp=self._management, flush=flush))
        super().__init__(directory, [node, str(package / "stats.js"), str(config)])

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _is_up(self) -> bool:
        return "up" in self._ask("health")

    def _ask(self, command: str) -> str:
        try:
            with socket.create_connection(("127.0.0.1", self._management), timeout=5) as connection:
                connection.sendall(command.encode() + b"\n")
                reply = b""
                while not reply.endswith((b"END\n\n", b"health: up\n")):
                    reply += connection.recv(65536)
                return reply.decode()
        except OSError:
            return ""

    def read(self, what: str) -> dict[str, Any]:
        """Return the daemon's "counters", "timers" or "gauges"."""
        text = self._ask(what).removesuffix("END\n\n")
        found = ast.literal_eval(re.sub(r"(?m)^(\W*)(\w[\w.]*):", r"\1'\2':", text))
        assert isinstance(found, dict)
        return found

    def flushed(self, timer: str) -> dict[str, float]:
        """Return what the daemon made of a timer when it flushed: count, sum, upper_99 and so on."""
        log = (self.directory / "log").read_text()
        found = re.search(rf"'{re.escape(timer)}': \{{([^}}]*count_ps[^}}]*)\}}", log)
        return {name: float(value) for name, value in re.findall(r"(\w+): ([\d.]+)", found[1])} if found else {}


COLLECTD = """
Hostname "here"
FQDNLookup false
Interval 1
BaseDir "{directory}"
PIDFile "{directory}/pid"
TypesDB "/usr/share/collectd/types.db"
LoadPlugin csv
LoadPlugin statsd
<Plugin csv>
  DataDir "{directory}/csv"
  StoreRates false
</Plugin>
<Plugin statsd>
  Host "127.0.0.1"
  Port "{port}"
  TimerPercentile 50
  TimerPercentile 99
  TimerSum true
  TimerCount true
</Plugin>
"""


class Collectd(Daemon):
    """collectd with its statsd plugin, which writes what it has stored into files each second."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port(socket.SOCK_DGRAM)
        name = "collectd.conf"  # it takes no path with a space
        (directory / name).write_text(COLLECTD.format(directory=directory, port=self.port))
        super().__init__(directory, [needs_program("collectd"), "-f", "-C", name])

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _is_up(self) -> bool:
        return f":{self.port:04X} " in Path("/proc/net/udp").read_text()

    def values(self, metric: str) -> list[float]:
        """Return what it has stored of a metric each second, such as "derive-perfkit.cache_hit"."""
        rows = [
            line.split(",")[1]
            for path in sorted((self.directory / "csv/here/statsd").glob(f"{metric}-20*"))
            for line in path.read_text().splitlines()[1:]
        ]
        return [float(row) for row in rows]


PROMETHEUS = """
global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}
rule_files: [{directory}/rules.yml]
scrape_configs:
  - job_name: app
    static_configs: [{{targets: ["127.0.0.1:{target}"]}}]
"""


class Prometheus(Daemon):
    """Prometheus, which scrapes one application each half second and evaluates one file of rules."""

    def __init__(self, directory: Path, target: int, rules: str = "") -> None:
        program = needs_program("prometheus")
        self.port = free_port()
        (directory / "rules.yml").write_text(rules)
        config = directory / "prometheus.yml"
        config.write_text(PROMETHEUS.format(directory=directory, target=target))
        super().__init__(
            directory,
            [
                program,
                f"--config.file={config}",
                f"--storage.tsdb.path={directory}/tsdb",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
        )

    def _is_up(self) -> bool:
        try:
            return self._get("/-/ready").startswith("Prometheus Server is Ready")
        except OSError:
            return False

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as reply:
            text: str = reply.read().decode()
            return text

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return labels and value of each series of an instant query."""
        found = json.loads(self._get(f"/api/v1/query?query={urllib.parse.quote(expression)}"))
        return [(row["metric"], float(row["value"][1])) for row in found["data"]["result"]]

    def value(self, expression: str) -> float | None:
        """Return the value of a query that finds one series, None while there is none."""
        rows = self.query(expression)
        assert len(rows) <= 1, rows
        return rows[0][1] if rows else None

    def alerts(self) -> dict[tuple[str, str], str]:
        """Return the state of each alert that is not inactive, by rule and provider."""
        found = json.loads(self._get("/api/v1/alerts"))["data"]["alerts"]
        return {(row["labels"]["alertname"], row["labels"].get("provider", "")): row["state"] for row in found}


def promtool(*arguments: str, stdin: str = "") -> tuple[int, str]:
    """Run promtool; return its exit code and what it printed."""
    program = needs_program("promtool")
    done = subprocess.run(
        [program, *arguments], input=stdin, capture_output=True, text=True, timeout=30, check=False, env={**os.environ}
    )
    return done.returncode, done.stdout + done.stderr
