"""Summarise many texts, some at a time, and see how far it is.

Run it: LLM_BASE_URL=https://api.openai.com/v1 LLM_API_KEY=sk-... python examples/batch.py notes/*.txt
"""

import os
import sys
from pathlib import Path

import perfkit

perfkit.configure(
    providers={
        "main": {
            "kind": "openai",
            "base_url": os.environ.get("LLM_BASE_URL", "http://127.0.0.1:8080/v1"),
            "api_key": os.environ.get("LLM_API_KEY", "not-needed"),
        }
    },
    client={"default_model": os.environ.get("LLM_MODEL", "tiny")},
)


def question(text: str) -> dict[str, object]:
    return {"messages": f"Summarise in one sentence:\n\n{text}", "temperature": 0, "max_tokens": 64, "agent": "batch"}


def show(done: int, total: int) -> None:
    print(f"\r{done} of {total}", end="" if done < total else "\n", file=sys.stderr, flush=True)


def main(paths: list[str]) -> int:
    questions = [question(Path(path).read_text()) for path in paths]
    answers = perfkit.batch(
        questions, max_concurrent=8, on_error="return", progress=lambda done: show(done, len(questions))
    )
    failed = 0
    for path, answer in zip(paths, answers, strict=True):
        if isinstance(answer, Exception):  # the others have their answers all the same
            failed += 1
            print(f"{path}: failed: {answer}")
        else:
            print(f"{path}: {' '.join(answer.text.split())}")
    stats = perfkit.tracker.get_stats("agent_response_time")
    print(f"{len(answers) - failed} summaries, p95 {stats.get('p95', 0):.2f} s", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) if sys.argv[1:] else __doc__)
