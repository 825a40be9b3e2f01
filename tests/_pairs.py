"""Pairs of questions made to differ in one thing: a number, a unit, a date, a name, a negation, or who does what."""

from __future__ import annotations

__all__ = ["CLASSES", "SAME", "pairs"]

_TEMPLATES: dict[str, tuple[list[str], list[tuple[str, str]]]] = {
    "number": (
        [
            "How many calories are in {} eggs?",
            "convert {} to roman numerals",
            "set a timer for {} minutes",
            "What is the square root of {}?",
            "Is {} a prime number?",
            "write a list with {} items about bees",
        ],
        [("2", "3"), ("15", "50"), ("two", "twelve"), ("1,000", "10,000"), ("3.5", "35"), ("seven", "8")],
    ),
    "unit": (
        ["How far is the moon in {}?", "What is the weight of an elephant in {}?", "convert 40 {}", "price in {}"],
        [("km", "miles"), ("kilograms", "pounds"), ("celsius", "fahrenheit"), ("dollars", "euros"), ("GB", "MB"),
         ("hours", "minutes")],
    ),
    "date": (
        [
            "What happened on {}?",
            "is the library open on {}",
            "Plan a trip for {}",
            "what is the weather like in {}",
            "remind me of the meeting on {}",
        ],
        [("8 August", "9 August"), ("monday", "tuesday"), ("2024-01-15", "2024-01-16"), ("January", "July"),
         ("Christmas", "Easter"), ("1914", "1918")],
    ),
    "time": (
        ["book a table at {}", "What does the bus do at {}?", "wake me at {}", "Is the shop open at {}?"],
        [("6:30", "7:30"), ("8:15", "8:45"), ("noon", "midnight"), ("9 pm", "10 pm"), ("07:00", "19:00")],
    ),
    "name": (
        [
            "What is the capital of {}?",
            "write a birthday poem for {}",
            "who founded {} and when",
            "how tall is {}",
            "Tell me about the history of {}",
        ],
        [("France", "Italy"), ("Anna", "Peter"), ("Siemens", "Bosch"), ("Mount Elbrus", "Mount Kenya"),
         ("python", "java"), ("vienna", "lisbon")],
    ),
    "negation": (
        [
            "Which birds can{} fly?",
            "why should one{} drink milk at night",
            "Is it{} legal to park here?",
            "list countries that are{} in the union",
            "which foods does a rabbit{} eat",
        ],
        [("", " not"), ("", " never"), (" always", " never"), ("", " hardly")],
    ),
    "without": (
        ["crush ice {} a blender", "How do I cook rice {} a lid?", "can a plant live {} light", "connect {} a cable",
         "travel to spain {} a passport"],
        [("with", "without"), ("using", "without"), ("in", "without"), ("by", "without")],
    ),
    "opposite": (
        ["How do I {} the firewall?", "what happens if one wants to {} the valve", "steps to {} it", "{} it?"],
        [("enable", "disable"), ("open", "close"), ("lock", "unlock"), ("install", "uninstall"),
         ("increase", "decrease"), ("activate", "deactivate")],
    ),
    "role": (
        [
            "translate this from {} to {}",
            "why do {} dislike {}",
            "can a {} sue a {}",
            "How do I migrate from {} to {}?",
            "does the {} pay the {}",
        ],
        [("Java", "Ruby"), ("cats", "dogs"), ("tenant", "landlord"), ("buyer", "seller"), ("German", "French")],
    ),
    "question": (
        ["{} was the bridge built", "{} do whales sing", "{} is the ceremony held"],
        [("when", "why"), ("where", "when"), ("why", "where"), ("who", "when"), ("how", "why"), ("when", "how"),
         ("how many", "why")],
    ),
}  # fmt: skip
CLASSES = list(_TEMPLATES)
SAME = [
    ("How do I reset my password?", "how can I reset the password"),
    ("What is the capital of France?", "what's the capital of france?"),
    ("please tell me how to cook rice", "How do I cook rice?"),
    ("Explain recursion", "could you explain recursion to me"),
    ("my card has not arrived", "my card hasn't arrived yet"),
    ("What time does the museum open?", "when does the museum open"),
    ("how do I top up", "What is the way to top up?"),
    ("set a timer for 10 minutes", "please set a timer for ten minutes"),
    ("I lost one of my cards", "I have lost my card"),
]


def pairs(kind: str) -> list[tuple[str, str]]:
    """Return the pairs of one class; each also in other words for one of the two, where that can be done."""
    templates, values = _TEMPLATES[kind]
    if kind == "role":
        made = [(text.format(a, b), text.format(b, a)) for text in templates for a, b in values]
    else:
        made = [(text.format(a), text.format(b)) for text in templates for a, b in values]
    made = [(a, b) for a, b in made if a.casefold() != b.casefold()]
    return made + [(a, f"Hello, could you please tell me: {b[0].lower()}{b[1:]}") for a, b in made]
