"""What the bot knows: articles with a full-text index, in memory; yours are in a database."""

import sqlite3
import threading

import perfkit

__all__ = ["Bot", "search"]

ARTICLES = (
    ("Late parcel", "A parcel takes two to four days. After six, ask the carrier by its number, then write to us."),
    ("Send back", "Anything may be sent back within 30 days. Print the label from your account; it is free."),
    ("Forgotten password", "Choose 'forgotten' at the login. The mail with the link comes within a minute."),
    ("Invoice", "Invoices are in your account below the order, as PDF, from the day the parcel leaves."),
)
INSTRUCTIONS = "You answer customers of a shop, friendly and short, from these articles alone:\n"

_lock = threading.Lock()  # guards _index, which threads share
_index = sqlite3.connect(":memory:", check_same_thread=False)
_index.execute("CREATE VIRTUAL TABLE articles USING fts5(title, body)")
_index.executemany("INSERT INTO articles VALUES (?, ?)", ARTICLES)


@perfkit.profile("knowledge_base_search")
def search(question: str) -> list[str]:
    """Return the articles that fit a question best, at most two."""
    words = " OR ".join(f'"{word}"' for word in question.replace('"', " ").split())
    with _lock:
        rows = _index.execute(
            "SELECT title || ': ' || body FROM articles WHERE articles MATCH ? ORDER BY rank LIMIT 2", (words or '""',)
        ).fetchall()
    return [text for (text,) in rows]


class Bot:
    """A support agent with a conversation; perfkit.agent_pool lends one to each request."""

    def __init__(self) -> None:
        self.turns: list[dict[str, str]] = []

    def messages(self, question: str) -> list[dict[str, str]]:
        """Return what is sent: instructions and articles first, since they change least, then the conversation."""
        system = INSTRUCTIONS + "\n".join(sorted(search(question)))
        return [{"role": "system", "content": system}, *self.turns, {"role": "user", "content": question}]

    def forget(self) -> None:
        """End the conversation: nothing of it waits for the next customer."""
        self.turns = []
