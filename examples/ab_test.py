"""Let two models answer, each user always the same one, and see whether they differ.

Run it: LLM_BASE_URL=https://api.openai.com/v1 LLM_API_KEY=sk-... LLM_MODEL_A=gpt-4o LLM_MODEL_B=gpt-4o-mini \
    python examples/ab_test.py
The candidate may be elsewhere: LLM_BASE_URL_B.
"""

import os

import perfkit

here = os.environ.get("LLM_BASE_URL", "http://127.0.0.1:8080/v1")
addresses = {"present": here, "candidate": os.environ.get("LLM_BASE_URL_B", here)}
models = {"present": os.environ.get("LLM_MODEL_A", "tiny"), "candidate": os.environ.get("LLM_MODEL_B", "tiny-2")}
key = os.environ.get("LLM_API_KEY", "not-needed")
perfkit.configure(
    providers={  # what the application calls "writer" is another model at each
        arm: {"kind": "openai", "base_url": addresses[arm], "api_key": key, "models": {"writer": models[arm]}}
        for arm in models
    },
    tokens={  # US dollars per million tokens, of models that are no vendor's
        "prices": {"tiny": {"input": 0.15, "output": 0.60}, "tiny-2": {"input": 0.015, "output": 0.06}}
    },
)


def score(_: perfkit.ChatRequest, answer: perfkit.ChatResponse) -> float:
    """Stand for what your users or your checks say of an answer, 0 to 1."""
    return 1.0 if answer.finish_reason == "stop" else 0.5


def main(users: int = 40) -> None:
    test = perfkit.router.ab("writer", {"present": "present", "candidate": "candidate"}, shares=[3, 1])
    for user in range(users):
        messages = [{"role": "user", "content": f"Write a line about queue {user}."}]
        try:
            test.execute(perfkit.ChatRequest(messages, "writer", max_tokens=24, user=str(user)), score=score)
        except perfkit.PerfkitError as error:  # it counts against that arm
            print(f"user {user}: {error}")
    for arm, row in test.results().items():
        print(
            f"{arm}: {row['sample_size']} calls of {models[arm]}, {row['error_rate'] or 0:.0%} failed, "
            f"{row['avg_response_time'] or 0:.3f} s, ${1000 * (row['avg_cost'] or 0):.4f} a thousand, "
            f"score {row['avg_quality_score'] or 0:.2f}"
        )
    print("response time:", test.compare()["candidate"])
    print("cost:", test.compare("cost")["candidate"])
    print("quality:", test.compare("quality_score")["candidate"])


if __name__ == "__main__":
    main()
