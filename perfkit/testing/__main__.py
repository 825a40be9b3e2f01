"""`python -m perfkit.testing` runs the model of two megabytes until Ctrl-C: somebody to ask without a key."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress

from perfkit.testing import LlamaServer


def main() -> None:
    """Start the server, print what makes it the provider "openai", and wait; it answers to any model's name."""
    with suppress(KeyboardInterrupt), LlamaServer() as server:
        print(f"export OPENAI_BASE_URL={server.base_url} OPENAI_API_KEY=none", flush=True)  # noqa: T201 - the result
        threading.Event().wait()


if __name__ == "__main__":
    try:
        main()
    except ModuleNotFoundError as error:
        sys.exit(f"perfkit: {error}")
