"""The official clients of OpenAI and Anthropic on perfkit's connections: one line each, the rest of the code stays.

Run it: LLM_BASE_URL=https://api.openai.com/v1 LLM_API_KEY=sk-... \
    ANTHROPIC_BASE_URL=https://api.anthropic.com ANTHROPIC_API_KEY=sk-ant-... python examples/sdks.py
"""

import os

from anthropic import Anthropic
from openai import OpenAI

import perfkit
import perfkit.integrations.anthropic
import perfkit.integrations.openai

BASE_URL = os.environ.get("LLM_BASE_URL", "http://127.0.0.1:8080/v1")
MODEL = os.environ.get("LLM_MODEL", "tiny")
QUESTION = "What is a queue?"

openai = OpenAI(
    base_url=BASE_URL,
    api_key=os.environ.get("LLM_API_KEY", "not-needed"),
    http_client=perfkit.integrations.openai.http_client(deadline=60),  # seconds for a whole call, retries included
)
anthropic = Anthropic(
    base_url=os.environ.get("ANTHROPIC_BASE_URL", BASE_URL.removesuffix("/v1")),
    api_key=os.environ.get("ANTHROPIC_API_KEY", "not-needed"),
    http_client=perfkit.integrations.anthropic.http_client(deadline=60),
)


def main() -> None:
    said = openai.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": QUESTION}], max_tokens=24, temperature=0
    )
    print("openai:", " ".join((said.choices[0].message.content or "").split()))
    stream = openai.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": QUESTION}], max_tokens=24, stream=True
    )
    print("openai, streamed:", sum(1 for chunk in stream if chunk.choices), "pieces")
    message = anthropic.messages.create(model=MODEL, messages=[{"role": "user", "content": QUESTION}], max_tokens=24)
    print("anthropic:", " ".join(getattr(message.content[0], "text", "").split()))
    for host, row in perfkit.connections.stats().items():
        print(f"{host}: {row['created']} connections for {row['created'] + row['reused']} requests")


if __name__ == "__main__":
    main()
