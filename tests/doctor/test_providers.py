"""The doctor's look at providers, over the wire."""

from __future__ import annotations

import json

import pytest

import perfkit
from perfkit.cli import main
from perfkit.doctor import providers
from perfkit.metrics import PerformanceTracker
from perfkit.routing import ProviderRouter
from perfkit.testing import FaultServer, faults


def test_each_provider_is_checked_and_the_variable_of_a_wrong_key_is_named(
    fault: FaultServer, capsys: pytest.CaptureFixture[str]
) -> None:
    perfkit.configure(
        providers={
            "good": {"kind": "openai", "base_url": fault.base_url, "api_key": "sk-good-123456"},
            "bad": {"kind": "gemini", "base_url": f"{fault.root_url}/v1beta", "api_key": "sk-bad-123456"},
            "keyless": {"kind": "groq"},
            "gone": {"kind": "vllm", "base_url": "http://127.0.0.1:9/v1"},
        }
    )
    fault.behave(faults.unauthorized(), path="/v1beta/models")
    assert main(["doctor", "--providers", "--json"]) == 1
    told = {row["check"]: row for row in json.loads(capsys.readouterr().out)["findings"]}
    assert told["provider good"]["level"] == "ok"
    assert told["provider bad"]["do"] == "put a valid key into GEMINI_API_KEY"
    assert told["provider keyless"]["do"] == "put a valid key into GROQ_API_KEY"
    assert told["provider gone"]["do"] == "check base_url and the network"
    assert "sk-" not in json.dumps(told)


def test_nobody_to_ask_is_a_warning() -> None:
    (finding,) = providers.examine(ProviderRouter(tracker=PerformanceTracker()))
    assert (finding.level, finding.found) == ("warning", "none is configured")
