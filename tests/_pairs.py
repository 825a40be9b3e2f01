"""Pairs of questions made to differ in one thing: a number, a unit, a date, a name, a negation, or who does what."""

from __future__ import annotations

from pathlib import Path

__all__ = ["CLASSES", "SAME", "pairs", "unseen"]

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
_MIXED = """
Who won the 1998 world cup?|Who won the 2002 world cup?
Recipe for four people|Recipe for six people
Explain article 5 of the treaty|Explain article 15 of the treaty
bus 42 timetable|bus 24 timetable
convert 30 psi to bar|convert 30 bar to psi
How hot is 20 degrees Celsius in Fahrenheit?|How hot is 20 degrees Fahrenheit in Celsius?
a 10 mg dose of ibuprofen|a 10 g dose of ibuprofen
Is a 5 km walk long?|Is a 5 mile walk long?
events on 3 May|events on 13 May
sunrise on 21 June in Oslo|sunrise on 21 December in Oslo
Is the bank open on Sunday?|Is the bank open on Saturday?
horoscope for next week|horoscope for last week
how did the market do in Q1|how did the market do in Q3
meeting at 10:15 tomorrow|meeting at 10:45 tomorrow
train leaving at 5 am|train leaving at 5 pm
Who is the mayor of Hamburg?|Who is the mayor of Bremen?
population of Kansas|population of Arkansas
tell me about Marie Curie|tell me about Pierre Curie
how do I install numpy|how do I install scipy
Is Tesla profitable?|Is Ford profitable?
stock symbol of Siemens|stock symbol of SAP
flights from Rome|flights to Rome
Write to Clara that I am late|Write to Emil that I am late
which mushrooms are edible|which mushrooms are not edible
Is it safe to microwave eggs?|Is it unsafe to microwave eggs?
people who smoke|people who don't smoke
cake with flour|cake without flour
how to turn on dark mode|how to turn off dark mode
how to log in|how to log out
increase the font size|reduce the font size
why do prices rise|why do prices fall
largest planet|smallest planet
oldest university in Europe|newest university in Europe
why was the king hated|why was the king loved
Did France invade Prussia?|Did Prussia invade France?
can a wolf kill a bear|can a bear kill a wolf
Mary sued John, what happened|John sued Mary, what happened
refund from the buyer to the seller|refund from the seller to the buyer
convert pdf to word|convert word to pdf
translate English to Dutch|translate Dutch to English
Is cotton stronger than silk?|Is silk stronger than cotton?
who invented the radio|when was the radio invented
where did Bach live|when did Bach live
how many moons does Mars have|which moons does Mars have
why did Rome fall|when did Rome fall
symptoms of too much vitamin A|symptoms of too much vitamin D
symptoms of too little iron|symptoms of too much iron
side effects of aspirin|side effects of paracetamol
Python 2 print syntax|Python 3 print syntax
can cats eat grapes|can dogs eat grapes
is the shop open before noon|is the shop open after noon
left turn on red|right turn on red
pros of nuclear power|cons of nuclear power
boil eggs hard|boil eggs soft
first president of Brazil|last president of Brazil
minimum wage in Spain|maximum wage in Spain
file a claim as a tenant|file a claim as a landlord
sort ascending in SQL|sort descending in SQL
send money to a friend abroad|receive money from a friend abroad
should I always back up|should I never back up
what does the CEO earn|what does the CFO earn
is 0.5 bigger than 0.25|is 0.25 bigger than 0.5
rent a car in Nice|rent a bike in Nice
add a user to the group|remove a user from the group
allow cookies in Firefox|block cookies in Firefox
"""  # written when the guards were done, to see what they miss: 3 of 65, since mended
CLASSES = [*_TEMPLATES, "mixed"]
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
    ("I can not log in to my account", "I can't log into my account"),
]


def pairs(kind: str) -> list[tuple[str, str]]:
    """Return the pairs of one class; each also in other words for one of the two, where that can be done."""
    if kind == "mixed":
        return [(one, two) for one, two in (row.split("|") for row in _MIXED.strip().splitlines())]
    templates, values = _TEMPLATES[kind]
    if kind == "role":
        made = [(text.format(a, b), text.format(b, a)) for text in templates for a, b in values]
    else:
        made = [(text.format(a), text.format(b)) for text in templates for a, b in values]
    made = [(a, b) for a, b in made if a.casefold() != b.casefold()]
    return made + [(a, f"Hello, could you please tell me: {b[0].lower()}{b[1:]}") for a, b in made]


def unseen(name: str) -> list[list[str]]:
    """Return pairs written by somebody who had not seen the guards: "differing" (kind, one, two) or "same"."""
    text = (Path(__file__).parent / "data" / f"pairs_{name}.txt").read_text("utf-8")
    return [line.split("|") for line in text.splitlines()]
