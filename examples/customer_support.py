"""A support agent that looks its answers up, lent from a pool.

Run it: LLM_BASE_URL=https://api.openai.com/v1 LLM_API_KEY=sk-... python examples/customer_support.py "your question"
"""

import os
import re
import sys
from typing import Annotated, Any

import perfkit
from perfkit.agents import tool

ARTICLES = {
    "Refunds": "Within 30 days of delivery we refund the full price. Send the parcel back with its order number.",
    "Delivery": "Parcels arrive in two to four working days; express delivery takes one and costs 9 euros.",
    "Passwords": "Choose 'Forgot password' on the sign-in page; the link we send is valid for one hour.",
}


def words(text: str) -> set[str]:
    return {word.rstrip("s") for word in re.findall(r"\w{3,}", text.lower())}


@tool(register=True, timeout=5)
def knowledge_base_search(
    query: Annotated[str, "what the customer wants to know, in a few words"], context_variables: dict[str, Any]
) -> list[str]:
    """Return the help articles that fit a question best."""
    wanted = words(query)
    found = {title: len(wanted & words(f"{title} {text}")) for title, text in ARTICLES.items()}
    best = sorted((title for title in found if found[title]), key=lambda title: -found[title])[:2]
    context_variables.setdefault("articles", []).extend(best)
    return [f"{title}: {ARTICLES[title]}" for title in best] or ["Nothing found; ask the customer for more details."]


def main(question: str) -> None:
    base_url, key = os.environ.get("LLM_BASE_URL"), os.environ.get("LLM_API_KEY")
    support = {
        "name": "CustomerSupport",
        "instructions": "You are a helpful customer support agent. Look facts up before you state them.",
        "model": os.environ.get("LLM_MODEL", "gpt-4o-mini"),
        "tools": ["knowledge_base_search"],
        "pool": {"size": 10},
    }
    perfkit.configure(
        providers={"main": {"kind": "openai", "base_url": base_url, "api_key": key}},
        agents={"types": {"customer_support": support}},
    )
    with perfkit.agent_pool.get_agent("customer_support") as agent:
        result = agent.run(question, {"user_id": "customer-17"})
    print(result.text)
    print(f"from {result.context_variables.get('articles', [])}, {result.usage.total_tokens} tokens")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "Can I get my money back?")
