"""A script: three questions, one of them asked twice. Run it: python examples/script.py."""

import perfkit
from perfkit.testing import LlamaServer


@perfkit.profile("explain")
def explain(term: str) -> perfkit.ChatResponse:
    return perfkit.chat(f"Explain {term}.", model="tiny", temperature=0, max_tokens=24)


def main() -> None:
    with LlamaServer() as server:  # or any provider: {"openai": {}} takes OPENAI_API_KEY from the environment
        perfkit.configure(
            providers={"local": {"kind": "openai", "base_url": server.base_url, "api_key": "not-needed"}},
            tokens={"prices": {"tiny": {"input": 0.15, "output": 0.60}}},  # US dollars per million tokens
            metrics={"statsd": "127.0.0.1:8125"},  # sent over UDP; nobody need listen
        )
        for term in ("a queue", "a cache", "a queue"):
            answer = explain(term)
            source = f"cache ({answer.cached})" if answer.cached else answer.provider
            print(f"{term}: {answer.text.strip()[:60]!r} from {source}, ${answer.cost:.6f}")
        with perfkit.stream("Explain a worker.", model="tiny", max_tokens=24) as stream:
            print("stream:", "".join(stream).strip()[:60])

    p95 = perfkit.tracker.get_stats("operation_duration")["p95"]
    print(f"p95 of explain: {1000 * p95:.1f} ms; cache hit rate: {perfkit.cache.hit_rate:.0f} %")
    print(perfkit.tracker.get_performance_summary())


if __name__ == "__main__":
    main()
