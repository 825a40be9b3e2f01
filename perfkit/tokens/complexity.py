"""How complex a question is, and what kind of task: one classifier for routing, model selection and the optimizer.

The numbers and terms are RecoAgent's, as data that may be edited in place: fewer than 10 words without a technical term
and with less than 1,000 characters of context is simple; more than 50 words, such a term, or more than 5,000 characters
is complex; all else is medium. The kinds of task are ours.
"""

from __future__ import annotations

import re
from typing import Any, Literal

__all__ = ["RULES", "TASKS", "Level", "classify", "classify_task"]

Level = Literal["simple", "medium", "complex"]

RULES: dict[str, Any] = {
    "simple_words": 10,
    "complex_words": 50,
    "technical_terms": ["analyze", "compare", "explain", "evaluate"],
    "small_context": 1000,
    "large_context": 5000,
}
# Task to the beginnings of words that tell it; the first with most hits counts.
TASKS: dict[str, list[str]] = {
    "code": ["code", "function", "python", "javascript", "bug", "regex", "sql", "compile", "refactor", "traceback"],
    "math": ["calculate", "equation", "integral", "solve", "probability", "prove", "sum of", "how many"],
    "translation": ["translate", "translation", "in french", "in german", "in spanish", "auf deutsch"],
    "summary": ["summar", "tl;dr", "shorten", "key points", "abstract"],
    "extraction": ["extract", "list all", "json", "parse", "table of"],
    "writing": ["write a", "poem", "story", "haiku", "email", "essay", "draft"],
}


def classify(text: str, context_size: int = 0) -> tuple[Level, str]:
    """Return how complex a question is, and why.

    Args:
        text: what is asked.
        context_size: characters that come along with it.
    """
    words, lowered = len(text.split()), text.lower()
    term = next((term for term in RULES["technical_terms"] if term in lowered), None)
    if term is not None:
        return "complex", f"it says {term!r}"
    if words > RULES["complex_words"]:
        return "complex", f"{words} words"
    if context_size > RULES["large_context"]:
        return "complex", f"{context_size} characters of context"
    if words < RULES["simple_words"] and context_size < RULES["small_context"]:
        return "simple", f"{words} words"
    return "medium", f"{words} words, {context_size} characters of context"


def classify_task(text: str) -> str:
    """Return the kind of task a question is, "chat" for none of those known."""
    lowered = text.lower()
    best, most = "chat", 0
    for task, words in TASKS.items():
        hits = [word for word in words if word in lowered]  # mostly none, and no pattern is needed to see that
        number = sum(re.search(rf"\b{re.escape(word)}", lowered) is not None for word in hits)
        if number > most:
            best, most = task, number
    return best
