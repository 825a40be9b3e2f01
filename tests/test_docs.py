"""What the documents show is run, and where they point to exists."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from _parts import REPOSITORY, needs_module

import perfkit
from perfkit import cli
from perfkit._registry import load
from perfkit.config import Config
from perfkit.dashboard.panels import PANELS
from perfkit.testing import FaultServer

BESIDE = ("README.md", "CHANGELOG.md", "examples/README.md", "benchmarks/texts/README.md")
DOCUMENTS = sorted([*(REPOSITORY / name for name in BESIDE), *(REPOSITORY / "docs").rglob("*.md")])
TOLD = r"`((?:perfkit|(?:manage\.py|flask) perfkit|python|uv run|pip install|gunicorn|manage\.py) [^`]+)`"
EXTRAS = set(tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"])
RUNNER = """
import pathlib, sys
from perfkit.transport import hosts
hosts._LEAST_DRAIN = hosts._LONGEST_DRAIN = 20.0  # seconds for a stream's last bytes: connections are counted
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


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    fences = {(identify(d), kind) for d in DOCUMENTS for kind in re.findall(r"^```(\w*)$", d.read_text(), re.MULTILINE)}
    assert {kind for _, kind in fences} == {"", "python", "toml", "bash", "ini"}  # "" is what ends a block
    assert all(d.read_text().count("```") % 2 == 0 for d in DOCUMENTS)


def indented(document: Path) -> list[str]:
    """Return the lines of blocks that are indented instead of fenced."""
    plain = re.sub(r"^```\w*\n.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [line for block in re.findall(r"(?<=\n\n)(?:    .+\n)+", plain) for line in block.splitlines()]


def commands() -> list[list[str]]:
    """Return the commands of the documents, in blocks and in the middle of sentences, as the shell would split them."""
    shown = "\n".join(text for d in DOCUMENTS for _, text in blocks(d, "bash")).replace("\\\n", " ").splitlines()
    shown += [command for d in DOCUMENTS for line in indented(d) for command in line.split(" && ")]
    told = re.findall(TOLD, "".join(d.read_text() for d in DOCUMENTS))
    found = [shlex.split(line, comments=True) for line in [*shown, *told] if line.strip()]
    return [[Path(name).name.replace("python3", "python"), *more] for name, *more in found]


def run_perfkit(arguments: list[str], _: pytest.Config) -> None:
    assert cli.main(arguments) == 0, arguments


def run_python(arguments: list[str], config: pytest.Config) -> None:
    """See that there is the module, script or command that Python is asked for, and that it takes the arguments."""
    what, *more = arguments[2:] if arguments[0] == "-X" else arguments
    if what == "-c":
        compile(more[0], "document", "exec")
    elif what == "-m":
        run_module(more[0], more[1:], config)
    elif Path(what).name == "manage.py":
        assert what == "manage.py" or (REPOSITORY / what).is_file(), what
        run_manage(more, config)
    else:
        assert (REPOSITORY / what).exists(), what
        assert all((REPOSITORY / f"benchmarks/{name}.py").is_file() for name in more), more


def run_module(name: str, arguments: list[str], config: pytest.Config) -> None:
    if name == "pytest":
        assert config._parser.parse_known_and_unknown_args(arguments)[1] == []
        assert all((REPOSITORY / part).exists() for part in arguments if "/" in part), arguments
    elif name == "coverage":
        line = importlib.import_module("coverage.cmdline")
        assert line.COMMANDS[arguments[0]].parse_args_ok(arguments[1:])[0], arguments
    else:
        assert importlib.util.find_spec(name) is not None, name
        assert arguments == ([".venv"] if name == "venv" else []), arguments


def run_manage(arguments: list[str], config: pytest.Config) -> None:
    needs_module("django")
    import _shop  # noqa: F401 - sets Django up
    from django.core.management import ManagementUtility

    name, *more = arguments
    ManagementUtility(["manage.py"]).fetch_command(name).create_parser("manage.py", name).parse_args(more)
    if name == "perfkit" and more:  # alone it is spoken of, not run
        run_perfkit(more, config)


def run_flask(arguments: list[str], config: pytest.Config) -> None:
    assert arguments[0] == "perfkit"
    run_perfkit(arguments[1:], config)


def run_uv(arguments: list[str], config: pytest.Config) -> None:
    assert arguments[:2] == ["run", "--extra"]
    assert arguments[2] in EXTRAS
    PROGRAMS[arguments[3]](arguments[4:], config)


def run_pip(arguments: list[str], _: pytest.Config) -> None:
    assert arguments[0] == "install"
    assert arguments[1:-1] in ([], ["-e"]), arguments
    [names] = re.findall(r"^(?:perfkit|\.)\[([\w,-]+)\]$", arguments[-1])
    assert EXTRAS.issuperset(names.split(",")), arguments


def run_gunicorn(arguments: list[str], _: pytest.Config) -> None:
    needs_module("gunicorn")
    importlib.import_module("gunicorn.config").Config().parser().parse_args(arguments)


def run_export(arguments: list[str], _: pytest.Config) -> None:
    assert re.fullmatch(r"\w+=\S+", arguments[0]), arguments


PROGRAMS: dict[str, Callable[[list[str], pytest.Config], None]] = {
    "perfkit": run_perfkit,
    "python": run_python,
    "manage.py": run_manage,
    "flask": run_flask,
    "uv": run_uv,
    "pip": run_pip,
    "gunicorn": run_gunicorn,
    "export": run_export,
}


def test_commands_are_taken_as_they_are_written(monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config) -> None:
    """None is run: each is looked up, and its arguments are parsed by whoever would get them."""
    monkeypatch.setattr(cli, "load", lambda target: (lambda _: 0) if target.endswith(":run") else load(target))
    for name, *arguments in commands():
        PROGRAMS[name](arguments, pytestconfig)
    seen = Counter(name for name, *_ in commands())
    assert {name for name in PROGRAMS if seen[name]} == set(PROGRAMS)
    assert min(seen["perfkit"], seen["python"]) > 20


def test_commands_of_perfkit_do_what_is_said(
    fault: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that need no other machine and no model; with two requests instead of thirty."""
    monkeypatch.chdir(tmp_path)
    provider = {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}
    perfkit.configure(
        providers={"openai": provider, "main": provider}, client={"default_model": "m"}, metrics={"store": "shared"}
    )
    perfkit.tracker.increment("asked")
    perfkit.tracker.flush()
    for name in ("short.txt", "long.txt", "uwsgi.ini"):
        Path(name).write_text("[uwsgi]\nenable-threads = true\n")
    assert cli.main(["bench", "--provider", "openai", "--requests", "2", "--output", "last.json"]) == 0
    elsewhere = {"demo", "--bundled", "api.openai.com", "HOST", "NAME"}
    told = {tuple(command[1:]) for command in commands() if command[0] == "perfkit"}
    for arguments in sorted(one for one in told if not elsewhere.intersection(one)):
        here = [fault.base_url if part == "http://127.0.0.1:8080/v1" else part for part in arguments]
        few = ["--requests", "2"] if arguments[0] == "bench" else []
        assert cli.main([*here, *few]) in (0, 1), arguments  # 1: slower than last time, or this machine has a problem
        said = capsys.readouterr()
        assert said.out, arguments
        assert "perfkit: " not in said.err, arguments
    assert {path.name for path in tmp_path.iterdir()} >= {"report.html", "today.json"}


def test_the_options_for_uwsgi_are_its_own() -> None:
    needs_module("pyuwsgi")
    known = subprocess.run(
        [str(Path(sys.executable).with_name("pyuwsgi")), "--help"],
        capture_output=True, text=True, timeout=60, check=False,
    ).stdout  # fmt: skip
    options = [
        line.split(" = ")[0] for d in DOCUMENTS for _, text in blocks(d, "ini") for line in text.splitlines()[1:]
    ]
    assert len(options) == 5
    assert [name for name in options if f"--{name} " not in known] == []


def anchors(document: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=identify)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        path, _, anchor = target.partition("#")
        if target.startswith("http:"):
            pytest.fail(f"{target} is not encrypted")
        if "://" in target:
            continue
        there = document.parent / path if path else document
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def test_every_guide_is_found_from_the_readme() -> None:
    seen, ahead = set[Path](), [REPOSITORY / "README.md"]
    while ahead:
        document = ahead.pop().resolve()
        if document in seen:
            continue
        seen.add(document)
        linked = re.findall(r"\]\(([^)#\s]+\.md)[^)]*\)", document.read_text())
        ahead += [document.parent / target for target in linked]
    assert [identify(document) for document in DOCUMENTS if document not in seen] == []


def test_every_panel_and_example_is_told_of() -> None:
    told = (REPOSITORY / "docs/dashboard.md").read_text()
    assert [name for name in PANELS if f"`{name}`" not in told and f"panels/{name}.json" not in told] == []
    linked = set(re.findall(r"\(examples/(\w+)", "".join(document.read_text() for document in DOCUMENTS)))
    linked |= set(re.findall(r"\(\.\./examples/(\w+)", "".join(document.read_text() for document in DOCUMENTS)))
    assert {path.stem for path in (REPOSITORY / "examples").glob("[a-z]*")} - linked == set()


def test_the_readme_quotes_of_promises_what_the_benchmark_measured() -> None:
    kept = json.loads((REPOSITORY / "benchmarks/results/promises.json").read_text())["result"]["promises"]
    [pooling] = [one for one in kept if one["promise"] == "pooling: response time" and "800 ms" in one["condition"]]
    quoted = (
        f"pooling alone makes a model of 0.8 s {pooling['measured']:.0f} % faster, not {pooling['promised']:.0f} %."
    )
    assert quoted in (REPOSITORY / "README.md").read_text()


def test_the_readme_quotes_how_far_the_benchmark_is_from_the_servers_count() -> None:
    kept = json.loads((REPOSITORY / "benchmarks/results/agreement.json").read_text())["result"]
    counted = [one for one in kept if "second" not in one["figure"] and "ms" not in one["figure"]]
    assert [one for one in counted if one["difference"]] == []
    assert max(abs(one["difference"]) for one in kept) < 1
    assert "tokens a second and times within 1 %" in (REPOSITORY / "README.md").read_text()
