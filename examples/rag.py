"""Answer from one's own documents: the search is cached, the prompt begins alike, and a budget bounds what it costs.

Run it: LLM_BASE_URL=https://api.openai.com/v1 LLM_API_KEY=sk-... python examples/rag.py "How long does shipping take?"
"""

import os
import sqlite3
import sys

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
    tokens={
        "prices": {"tiny": {"input": 0.15, "output": 0.60}},  # US dollars per million tokens
        "budgets": [{"scope": ["agent", "rag"], "limit": 0.0001, "period": "day"}],
    },
)
DOCUMENTS = (
    ("shipping", "Parcels leave within a day. Shipping takes two to four days in Europe, ten elsewhere."),
    ("returns", "Anything may be returned within 30 days. The shipping back is free."),
    ("payment", "Cards, transfer and invoice are accepted. An invoice is due within 14 days."),
)
INSTRUCTIONS = "Answer from the documents alone, in one sentence. Say so when they do not tell.\n\n"
index = sqlite3.connect(":memory:", check_same_thread=False)
index.execute("CREATE VIRTUAL TABLE documents USING fts5(title, body)")
index.executemany("INSERT INTO documents VALUES (?, ?)", DOCUMENTS)


@perfkit.cached(ttl=3600)
def search(question: str) -> list[str]:
    words = " OR ".join(f'"{word}"' for word in question.replace('"', " ").split())
    rows = index.execute("SELECT body FROM documents WHERE documents MATCH ? ORDER BY rank LIMIT 2", (words or '""',))
    return [body for (body,) in rows]


@perfkit.profile("rag")
def answer(question: str) -> perfkit.ChatResponse:
    system = INSTRUCTIONS + "\n".join(sorted(search(question)))  # the same documents make the same prefix
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    return perfkit.chat(messages, temperature=0, max_tokens=48, agent="rag")


if __name__ == "__main__":
    for asked in list(filter(str.strip, sys.argv[1:])) or ["How long does shipping take?"]:
        try:
            found = answer(asked)
            print(f"{' '.join(found.text.split())} [{found.cached or found.provider}, ${found.cost:.6f}]")
        except perfkit.BudgetExceededError as error:
            print(f"no budget left: {error}")
        except perfkit.PerfkitError as error:
            print(f"no answer: {error}")
