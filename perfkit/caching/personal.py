"""Whose answer is it: tell prompts about the one who asks from those whose answer is the same for everybody.

Kept apart from the policy because it is mostly data. It errs on the safe side: what it does not know is personal.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Literal

from perfkit.caching import vocabulary as v
from perfkit.caching.leaning import lean
from perfkit.caching.vocabulary import words_of

__all__ = ["is_personal"]

# Whose answer is it? A text is split into its set of words first. Only if one of SELVES is among them, each place
# where somebody speaks of himself is given a sense by the words around it:
#   about  asks for or tells of his own state ("where is my", "did I", "I am", "I have"): personal
#   done   tells what he did ("I bought a lamp"): personal unless a guide is asked for
#   told   tells what happened to a thing everybody has ("I lost my card"): personal if its state is asked for
#   guide  asks how something is done ("how do I", "can I", "I want to"): the answer is the same for everybody
#   plain  says nothing ("I was wondering", "tell me", "in my opinion")
# What is in no table is about him: a gap in the tables costs a call, never an answer shown to somebody else.
_Sense = Literal["about", "done", "told", "guide", "plain"]


# Patterns, each run only where its word or sign occurs.
_MAIL = re.compile(r"[\w+-]@[\w-]+\.\w")
_DIGITS = "0123456789"  # counting each costs less than one search for all
_FEW = 6  # digits that every number of a person has at least, but for those of a house and of an order
_LONG = re.compile(r"\d(?:[ ().+/a-z-]{0,3}\d){5}")  # in each of the next five
_PHONE = re.compile(
    r"(?<![\w.])(?:\+\d{1,3}[ ./-]?(?:\(?\d{1,4}\)?[ ./-]?){2,5}\d{2}"  # +49 170 1234 5678
    r"|\(\d{3}\) ?\d{3}[ -]?\d{4}|\d{3}([ .-])\d{3}\1\d{4}"  # (555) 123-4567, 555-123-4567
    r"|0\d{2,4}[ /-]\d{3,4}[ -]?\d{3,5}|0\d(?:[ .]\d\d){4}|0\d{3,4}[ /-]?\d{5,8})(?![\w-])"  # 0151 23456789
)
_CALLED = words_of("call phone telephone mobile cell text ring whatsapp sms tel fax")
_BARE_PHONE = re.compile(r"(?<![\w.-])\d{7,12}(?![\w-])")  # only beside one of these words
_SSN = re.compile(r"(?<![\d-])\d{3}[- ]\d{2}[- ]\d{4}(?![\d-])")
_CARD = re.compile(r"(?<![\w-])[2-6](?:[ -]?\d){12,18}(?![\w-])")  # of those, the ones with a Luhn sum
_IBAN = re.compile(r"\b[a-z]{2}\d{2}(?: ?[a-z0-9]{4}){2,7}(?: ?[a-z0-9]{1,3})?\b")  # of those, with a sum modulo 97
_STREETS = words_of("street st avenue ave road rd lane ln drive boulevard blvd rue calle via")
_STREET = re.compile(
    r"\b\d{1,5}[a-z]? (?:[\w']+ ){1,3}(?:street|st|avenue|ave|road|rd|lane|ln|drive|boulevard|blvd)\b"
    r"(?= *(?:[,.;?!\n]|$|in\b))|\b\d{1,4},? (?:rue|avenue|boulevard) (?:de|du|des|d')|\b(?:calle|via) \w+,? \d"
)
_STRASSEN = ("straße ", "strasse ", "str. ", "gasse ", "allee ")
_STRASSE = re.compile(rf"(?:{'|'.join(map(re.escape, _STRASSEN))})\d")
_CASES = words_of("""
    order case claim invoice ticket booking reservation tracking customer account policy member patient employee
    reference shipment parcel application contract
""")
_CASE = re.compile(
    rf"\b(?:{'|'.join(_CASES)})(?: (?:no|nr|number|id|code|ref))?\.? *[:#]? *(?=[a-z-]{{0,5}}\d)[a-z0-9-]{{4,}}"
)
# These words only in these phrases; each pattern begins with letters, which makes a search fast.
_OF_LATE = re.compile(
    r"(?:last|recent|unread|upcoming|past|pending|previous)(?: \w+)? (?:purchases|transactions|orders|messages|"
    r"e-?mails|appointments|invoices|payments|bookings|charges|transfers|deliveries)\b"
).search
_HAS_COME = re.compile(r"(?:has|have) (?!you\b|they\b|there\b|humans\b)").match
_RECORDS = {
    **dict.fromkeys(
        words_of("""
            purchases transactions orders messages emails e-mails appointments invoices payments bookings charges
            transfers deliveries
        """),
        _OF_LATE,
    ),
    "balance": re.compile(r"balance (?:in|on|of) (?:the )?(?:savings|checking|joint|account)").search,
    "under": re.compile(r"(?:reserved|booked|booking|reservation|registered|filed) under\b").search,
    "us": re.compile(
        r"(?:refund|refunded|owes?|paid|billed|charged) us\b|(?:about|to(?<!\wto)) us\b(?! dollar| bank)"
    ).search,
    "yet": re.compile(r"(?:has|have|did|is|was|were|are|will) the\b.*\byet\b").match,
    "has": _HAS_COME,
    "have": _HAS_COME,
    "mail": re.compile(r"any(?<!\wany) (?:new |unread )?mail\b").search,
    "did": re.compile(r"what did the \w+ (?:say|charge|find|write|want|decide)\b").search,
    "results": re.compile(r"the (?:lab|test|blood|biopsy|scan|x-ray)s? results\b").search,
}


# Scripts of which no word is known, at the beginning: their texts are kept from others.
_SCRIPTS = re.compile(r"\W*[\u0370-\u1fff\u3040-\u9fff\uac00-\ud7af]{2}").match
_SURE = -4.0  # what leans so far away from one person is asked by many, though it says "my"
# Whose assistant this is, and jokes for somebody: the same for all.
_OF_YOU = re.compile(
    r"\b(?:am i (?:your|in charge of you|the one you)|are you (?:one of )?my|hit me with"
    r"|(?:work|working|employed) (?:for|by) (?:someone other than )?me"
    r"|(?:jokes?|funny|story|poem) (?:with|to tell|for|to) me)\b"
)
_YOU = words_of("you your joke jokes funny story poem hit")


def is_personal(written: str, text: str, words: list[str], kinds: set[str]) -> bool:
    """Tell whether the answer to a text, as written and in lower case, with its words, belongs to one person."""
    return (
        (leaning := lean(written, words)) > 0
        or (not text.isascii() and _SCRIPTS(text) is not None)
        or (not kinds.isdisjoint(v.SELVES) and _speaks_of_himself(text, kinds, leaning))
        or (not kinds.isdisjoint(v.PRIVATE) and _tells_of_somebody(words))
        or any(_RECORDS[word](text) is not None for word in _RECORDS.keys() & kinds)
        or ("@" in text and _MAIL.search(text) is not None)
        or ((digits := sum(map(text.count, _DIGITS))) > 0 and _has_number(text, kinds, digits))
    )


def _has_number(text: str, kinds: set[str], digits: int) -> bool:
    """Tell whether there is a number of somebody: phone, card, bank account, house, order."""
    return (
        (not kinds.isdisjoint(_CASES) and _CASE.search(text) is not None)
        or (not kinds.isdisjoint(_STREETS) and _STREET.search(text) is not None)
        or (any(name in text for name in _STRASSEN) and _STRASSE.search(text) is not None)
        or (digits >= _FEW and _LONG.search(text) is not None and _has_long_number(text, kinds))
    )


def _has_long_number(text: str, kinds: set[str]) -> bool:
    return (
        _PHONE.search(text) is not None
        or _SSN.search(text) is not None
        or (not kinds.isdisjoint(_CALLED) and _BARE_PHONE.search(text) is not None)
        or any(_luhn(found) for found in _CARD.findall(text))
        or any(_mod_97(found) for found in _IBAN.findall(text))
    )


def _luhn(number: str) -> bool:
    digits = [int(digit) for digit in reversed(number) if digit.isdigit()]
    return (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10 == 0


def _mod_97(iban: str) -> bool:
    packed = iban.replace(" ", "")
    return int("".join(str(int(sign, 36)) for sign in packed[4:] + packed[:4])) % 97 == 1


def _tells_of_somebody(words: list[str]) -> bool:
    return any(word.endswith("'s") and word not in v.SPREAD and after in v.PRIVATE for word, after in pairwise(words))


def _speaks_of_himself(text: str, kinds: set[str], leaning: float) -> bool:
    """Tell whether the answer is about the one who asks, or what he tells is not for others."""
    if not kinds.isdisjoint(v.SENSITIVE) and (kinds.isdisjoint(v.PRODUCTS) or not kinds & v.SENSITIVE <= v.EVERYDAY):
        return True
    if leaning <= _SURE:
        return False
    if not kinds.isdisjoint(_YOU):
        text = _OF_YOU.sub(" ", text)
    words = text.translate(v.TO_CLAUSES).split()
    spread = [part for word in words for part in v.SPREAD.get(word, (word,))]
    spoken = ["", *(word for word in spread if word not in v.HABITS)]  # a place has a word before it
    senses = {_sense(spoken, at) for at, word in enumerate(spoken) if word in v.SELVES}
    if "about" in senses or senses.isdisjoint(("told", "done")):
        return "about" in senses
    if "guide" in senses or not v.GUIDES.isdisjoint(pairwise(spoken)):
        return False
    return _asks_for_state(spoken, kinds) or ("done" in senses and kinds.isdisjoint(v.MONEY))


def _asks_for_state(spoken: list[str], kinds: set[str]) -> bool:
    """Tell whether somebody who told what happened wants to know how it stands, and not only how such things go."""
    if kinds.isdisjoint(v.NEARBY) and any(word in v.PLACED and after in v.AUX for word, after in pairwise(spoken)):
        return True
    whys = [at for at, word in enumerate(spoken) if word in v.WHY and spoken[at - 1] not in v.NO_REASON]
    if whys:
        return not all(_goes_wrong_for_all(spoken, at) for at in whys)
    return not kinds.isdisjoint(v.ASKS_STATE) and not _only_tells(spoken)


def _goes_wrong_for_all(spoken: list[str], at: int) -> bool:
    """Tell whether "why ..." asks why a thing does not work or has a fee: the reasons are the same for everybody."""
    told = _clause(spoken, at + 1, v.WHY_REACH)
    told = spoken[:at] if v.POINTING.issuperset(told) else told  # "..., why is that?"
    if not v.DUTY.isdisjoint(told) or (told[0] in v.CANNOT and v.LOOKED_UP.isdisjoint(told)):
        return True
    if not v.CHARGED.isdisjoint(told):
        return any(word in v.CHARGED and not v.WHAT_FOR.isdisjoint(told[n + 1 :]) for n, word in enumerate(told))
    return not v.STUCK.isdisjoint(told) or not (v.FAILS.isdisjoint(told) or v.WORKS.isdisjoint(told))


def _only_tells(spoken: list[str]) -> bool:
    return len(spoken) > v.SHORT and spoken[1] in v.TELLING and v.ASKING.isdisjoint(spoken)


def _clause(words: list[str], at: int, length: int) -> list[str]:
    """Return up to `length` words of the clause from `at` on."""
    found = words[at : at + length]
    return found[: found.index(v.BREAK)] if v.BREAK in found else found


def _sense(words: list[str], at: int) -> _Sense:
    """Return what the self word at this place says; the senses are explained above the tables."""
    word, before = words[at], words[at - 1]
    if word in v.OWNERS:
        return _sense_of_owner(words, at)
    if word == "me":
        return _sense_of_me(words, at)
    if word == "mine" and before in v.NOT:
        return "told"
    if word not in v.TELLERS:
        return "about"
    if before in v.MAY or before == "do":
        return _sense_of_asking(words, at)
    return _sense_of_telling(words, at)


def _sense_of_me(words: list[str], at: int) -> _Sense:
    """Read "... me": told to him or about him."""
    lead = words[max(0, at - v.REACH - 1) : at]
    if lead[-1] == "remind" and words[at + 1 : at + 2] == ["to"]:
        return "plain"
    if lead[-1] in v.DONE_TO_ME:
        return "told"
    if lead[-1] not in v.TO_ME | {"to"} or not v.FOR_HIM.isdisjoint(lead) or _is_for_him(words, lead):
        return "about"
    return "done" if lead[-1] == "to" and "explain" not in lead else "plain"


def _is_for_him(words: list[str], lead: list[str]) -> bool:
    """Tell whether "what is on for me", "the limit you gave me" asks for what is his."""
    if lead[-1] == "for":
        return words[1] in v.ASKS_WHAT and lead[-2] not in v.SUITED
    return lead[-2:-1] == ["you"] and not v.THE.isdisjoint(lead) and v.PRODUCTS.isdisjoint(lead)


def _sense_of_owner(words: list[str], at: int) -> _Sense:
    """Read "my ..."."""
    owned, lead = _clause(words, at + 1, v.REACH), ["", *words[max(0, at - v.REACH - 2) : at]]
    if not owned or any(word.endswith("'s") for word in owned) or _says(owned):
        return "about"
    if _asks_for(lead) and (owned[0] not in v.NOBODYS or lead[-1] in v.LOOKED_UP | v.PAST or lead[-2] in v.ASKS_WHICH):
        return "told" if _is_common_trouble(words, at, lead, owned) else "about"
    if not (v.KIN | v.FAMILY).isdisjoint(owned):
        return "about" if v.FAMILY.isdisjoint(owned) or v.PRODUCTS.isdisjoint(words) else "told"
    if not v.NOBODYS.isdisjoint(owned):
        return "about" if lead[-1] in v.ONTO and words[1] in v.PUTS else "plain"
    return "about" if v.THINGS.isdisjoint(owned) else "told"


def _is_common_trouble(words: list[str], at: int, lead: list[str], owned: list[str]) -> bool:
    """Tell whether "why is my card not working", "I can't find my card", "looks like my top-up failed" is all."""
    if v.THINGS.isdisjoint(owned):
        return False
    if lead[-1] in v.LOOKED_UP | v.DIRECT:
        return not v.CANNOT.isdisjoint(lead) if lead[-1] in v.LOOKED_UP else lead[-2] in v.LOOKS
    if lead[-1] in v.OF and not v.CHARGED.isdisjoint(lead):
        return True
    whys = [place for place in range(max(0, at - v.REACH), at) if words[place] in v.WHY]
    return bool(whys) and _goes_wrong_for_all(words, whys[-1])


def _asks_for(lead: list[str]) -> bool:
    """Tell whether the words before "my" ask for a state: "where is", "can I see", "when will", "delete"."""
    if lead[-1] in v.ASKED | v.DIRECT | v.AGAINST or (lead[-1] in v.COMMANDS | v.PUTS and lead[-2] in v.OPENINGS):
        return True
    if lead[-1] == "on" and lead[-2] in v.IS:
        return True
    if lead[-1] in v.OF and "the" in lead:
        return not v.IS.isdisjoint(lead)
    if lead[-1] in v.LEARN_WHAT:
        return not v.LEARNT.isdisjoint(lead)
    if lead[-1] in v.LOOKED_UP:
        return v.ADVISED.isdisjoint(lead)
    return lead[-1] in v.DOES and not v.WHEN.isdisjoint(lead)


def _says(owned: list[str]) -> bool:
    """Tell whether a name or secret is given away: "my password is ..."."""
    return owned[0] in v.TOLD_IS and owned[1:2] == ["is"] and v.EVENTS.isdisjoint(owned[2:3])


def _sense_of_asking(words: list[str], at: int) -> _Sense:
    """Read "can I ...", "do we ..."."""
    lead, after = words[max(0, at - v.REACH) : at], [*_clause(words, at + 1, 2), "", ""]
    if lead[-1] == "do" and after[0] in v.OWN_STATE and after[1] != "to" and lead[-2:-1] != ["how"]:
        return "about"
    if (
        ("when" in lead and after[0] in v.COMES)
        or after[1] == "paid"
        or words[at + 1 : at + 4] == v.HAVE_TO_BE
        or (lead[-1] == "do" and not v.TIMES.isdisjoint(lead[-2:]))
    ):
        return "about"
    if lead[-1] == "could" and after[0] == "be" and after[1] not in v.DONE_TO_ALL:
        return "about"
    if lead[-1] == "will" and (
        after[0] not in v.HARMLESS_FATE or (after[0] in v.BECOME and after[1] not in v.DONE_TO_ALL)
    ):
        return "about"
    if not v.AMOUNT.isdisjoint(lead) and lead[-1] == "do" and after[0] not in v.LEAVE | v.COOKS and after[1] != "to":
        return "about"
    return "told" if "why" in lead and words[at - 1 : at + 1] != ["do", "we"] else "guide"


def _sense_of_telling(words: list[str], at: int) -> _Sense:
    """Read "I ...", "am I ..."."""
    before, after = words[at - 1], [*_clause(words, at + 1, 4), "", "", ""]
    if before in v.STATE and at > 1 and words[at - 2] in v.WHY and _goes_wrong_for_all(words, at - 2):
        return "told"
    if before in v.STATE:
        return "guide" if after[0] in v.LEAVE and before != "did" else "about"
    if after[:2] == ["have", "to"]:
        return "guide"
    if after[0] in v.WISHES:
        return "guide" if "to" in after[1:3] and v.LOOKED_UP.isdisjoint(after) else "plain"
    if "paid" in after[1:3] or (after[0] in v.DOING and before != "if"):
        return _sense_of_being(before, after)
    return _sense_of_doing(words, at, after[0])


def _sense_of_being(before: str, after: list[str]) -> _Sense:
    """Read "I am ...", "we have ..."."""
    if "paid" in after[1:3] or not after[1]:
        return "plain" if after[0] == "am" and before not in v.ASKS_WHICH else "about"
    if not v.TRIVIAL_AFTER.isdisjoint(after[1:]):
        return "plain"
    if not v.DEEDS.isdisjoint(after[1:3]):
        return "done"
    return "about" if v.EVENTS.isdisjoint(after[1:3]) and v.THINGS.isdisjoint(after[1:]) else "told"


def _sense_of_doing(words: list[str], at: int, verb: str) -> _Sense:
    """Read "I lost ...", "if we sell ...", "the loan I took"."""
    before = words[at - 1]
    if (
        not v.THE.isdisjoint(words[max(0, at - 3) : at - 1])
        and before not in v.LINKS
        and (before not in v.THINGS or words[1] in v.IS)
    ):
        return "about"
    if verb in v.DEEDS:
        return "done"
    if verb in v.EVENTS:
        return "guide" if before in v.SO_THAT and verb in v.MAY else "told"
    return "plain" if before in v.IF or verb in v.TRIVIAL or not verb else "about"
