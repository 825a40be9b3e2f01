"""Whose answer is it: tell prompts about the one who asks from those whose answer is the same for everybody.

Kept apart from the policy because it is mostly data. It errs on the safe side: what it does not know is personal.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Literal

__all__ = ["TO_SPACE", "is_personal", "words_of"]

# Whose answer is it? A text is split into its set of words first. Only if one of _SELVES is among them, each place
# where somebody speaks of himself is given a sense by the words around it:
#   about  asks for or tells of his own state ("where is my", "did I", "I am", "I have"): personal
#   done   tells what he did ("I bought a lamp"): personal unless a guide is asked for
#   told   tells what happened to a thing everybody has ("I lost my card"): personal if its state is asked for
#   guide  asks how something is done ("how do I", "can I", "I want to"): the answer is the same for everybody
#   plain  says nothing ("I was wondering", "tell me", "in my opinion")
# What is in no table is about him: a gap in the tables costs a call, never an answer shown to somebody else.
_Sense = Literal["about", "done", "told", "guide", "plain"]


def words_of(text: str) -> frozenset[str]:
    """Return the words of one row of a table."""
    return frozenset(text.split())


_BREAK = "."  # stands for all that ends a clause
TO_SPACE = str.maketrans(
    dict.fromkeys('.,;:!?()[]{}<>"*/\\|`\n\t\r\xa0\u2026\u201c\u201d\u201e\xab\xbb\xbf\xa1', " ")
    | dict.fromkeys("\u2019\u2018\u02bc\xb4", "'")
)
_TO_CLAUSES = {**TO_SPACE, **dict.fromkeys(map(ord, ".,;:!?\n\u2026"), f" {_BREAK} ")}  # slow: not for every text
_SPREAD = {  # short forms, as the tables want them; with and without the apostrophe
    **dict.fromkeys(("i'm", "im"), ("i", "am")),
    **dict.fromkeys(("i've", "ive"), ("i", "have")),
    **{f"{who}'{short}": (who, full) for who in ("i", "we") for short, full in (("d", "would"), ("ll", "will"))},
    "we're": ("we", "are"),
    "we've": ("we", "have"),
    **{f"{ask}{s}": (ask, "is") for ask in ("what", "where", "who", "when", "how", "why") for s in ("'s", "s")},
}
_OWNERS = words_of("my our")
_TELLERS = words_of("i we")
_OBJECTS = words_of("me myself mine ourselves ours")
# German, French, Spanish, Italian: always "about"
_FOREIGN = words_of("""
    ich mein meine meinem meinen meiner meines mich mir unser unsere unserem unseren je j'ai j'avais j'habite
    j'aimerais j'attends mon ma mes moi m'a m'ont m'appelle suis-je ai-je dois-je notre nos mi mis mío mía míos mías
    tengo estoy debo necesito quiero nuestro nuestra mio mia miei mie sono devo vorrei posso nostro nostra ho
""")
_SELVES = _OWNERS | _TELLERS | _OBJECTS | _FOREIGN | {short for short, (word, _) in _SPREAD.items() if word in _TELLERS}

# Health, family, identity, money: with a self word near, personal whatever is asked.
_SENSITIVE = words_of("""
    pregnant pregnancy diabetes diabetic cancer hiv aids depression depressed anxiety asthma epilepsy chemo surgery
    diagnosis diagnosed symptom symptoms fever rash pain painful bleeding medication medications prescription tumor
    tumour allergic allergy therapy therapist suicidal miscarriage infection insulin antidepressants period migraine
    adhd autism wife husband son daughter girlfriend boyfriend fiancé spouse divorce divorced arrested convicted
    bankrupt bankruptcy heroin cocaine overdose abortion suicide abused raped dementia salary ssn iban passport
""")
# What belongs to a person: "John's diagnosis".
_PRIVATE = words_of("""
    diagnosis salary address password birthday phone prescription medication balance ssn medical record records account
    email e-mail income grades credit home
""")
# Things everybody has: telling of one is no secret by itself, and how to use it is the same for all.
_THINGS = words_of("""
    card cards account accounts pin passcode password phone app top-up topup top-ups mastercard atm payment payments
    transfer transfers transaction transactions identity money cash funds name address details currency withdrawal
    deposit purchase cheque check refund code browser computer laptop pc car oil tire tires engine battery key router
    wifi printer windows mac iphone android reset bank wallet identification verification id statement exchange luggage
    playlist alarm timer settings email e-mail country fridge eggs milk turkey kitchen garden fee fees charge shirt
    sink bike bicycle top american express apple google watch paypal contactless permission consent gas 401k limit
    drive mobile handset cellphone speaker purchases voice device cat dog
""")
# Owned by a question, not by a person.
_NOBODYS = words_of("""
    opinion view mind question code function list array string table query script program class dataframe essay poem
    response answer authorization way dictionary dict loop regex repository repo text sentence paragraph dataset
    variable equation
""")
_DOING = words_of("am are was were have had been has haven't hadn't wasn't weren't can't cannot couldn't get")
_STATE = words_of("am are was were did have had has didn't haven't wasn't come")  # "am I", "did I", "have I"
_MAY = words_of("can could may should would will must shall might can't cannot couldn't won't shouldn't")
_LEAVE = words_of("able allowed required supposed obliged permitted need")  # "am I allowed to"
_OWN_STATE = words_of("owe have own spend earn pay make qualify weigh live work stand know look sit")  # "do I owe"
# "what is my", "tell me my"
_ASKED = words_of("""
    is are was were has did me know tell remember isn't hasn't wasn't aren't didn't haven't am this that these those it
""")
_LOOKED_UP = words_of("""
    know see check get view track locate show find list read summarise summarize display receive pull fetch cancel
""")
_TO_ME = words_of("""
    take get buy find bring wake put
    tell tells telling give gave help show let lets letting allow allows allowing teach send sent for explain guide
    walk advise make assist
""")
# "I wonder"
_TRIVIAL = words_of("""
    want need would like wonder wondered think thought love hate guess believe hope mean understand prefer know see
    please choose call pick missed miss intend forget enjoyed enjoy use heard read wish suppose assume say agree
    disagree ask keep try do wanna gotta seem must might may understood appreciate thank apologize
""")
# "I am curious", "I have a list"
_TRIVIAL_AFTER = _NOBODYS | words_of("""
    questions file data test project model homework recipe triangle triangles circle number numbers bug error problem
    idea curious wondering learning trying looking writing building using new interested reading sure studying thinking
    told sorry uncertain happy angry worried concerned upset disappointed inquiring afraid hoping asking confused
    reviewing preparing creating making designing implementing doubts heard playing exception warning
""")
_WISHES = words_of("want need would wish")  # "I want to change my name"
# "I lost", "I was charged"
_EVENTS = words_of("""
    lost forgot forgotten made received transferred sent used noticed topped tried entered typed found got changed
    withdrew deposited activated exchanged wanted needed thought went see can could should will won't must charged
    locked stolen declined reported verified added set installed moved broke dropped left put gave took attempted
    completed did didn't requested linked paying transferring waiting expecting having missing unable getting trying
    able not seeing experiencing stuck no checked double asked saw recognize recognise remember realize realise wasn't
    given supposed find figure log make use do access open add install see get transfer withdraw
""")
_HABITS = words_of("""
    just only also already still really recently currently accidentally never always usually actually don't
""")
_IF = words_of("if when before after once until unless while whenever")
_HOW = words_of("how where what")
_HOW_TO = {("how", word) for word in words_of("to do long can would should")}
_GUIDES = (
    _HOW_TO
    | {("what", word) for word in words_of("if happens to should")}
    | {("possible", "to"), ("a", "way"), ("any", "way")}
)
_REACH = 4  # words from "my" to what is mine: "my two new cards"
_KIN = words_of("""
    mother father mom mum dad parents parent child children kid kids baby brother sister boss manager doctor lawyer
    landlord partner friend neighbour neighbor employer social medical
""")
_DOES = words_of("do does did has have")
_WHEN = words_of("when why")
_COMES = words_of("get receive have expect be see")  # "when can I expect"
_AMOUNT = words_of("much many often long")
_LEARNT = words_of("tell know check see me")
_ASKS_WHICH = words_of("what when where who which")
# with these, what is told is asked about
_ASKS_STATE = words_of("why status pending balance yet left apr hold reason latest find locate last")
_COMMANDS = words_of("update delete change book cancel close freeze block renew reorder order move")  # "delete my ..."
_OPENINGS = frozenset(("", _BREAK, "please"))
_TOLD_IS = words_of("name password passcode pin code address email e-mail id")  # "my name is Anna"
_FOR_HIM = words_of("have has any ask mail anything there did who")  # "anything for me?"
_DEEDS = words_of("ordered bought paid purchased spent booked requested")  # "I bought a lamp"
_HARMLESS_FATE = words_of("be need have lose incur still")  # "will I be charged"
_DIRECT = words_of("want need like")  # "I want my money"
_AUX = words_of("is are was will does do did can has")
_LEARN_WHAT = words_of("if whether about where when why")  # after "tell me", before "my"
_OF, _IS = words_of("of on for in"), words_of("is are was were")  # "what is the date of my"
_PLACED = words_of("when where")
_ADVISED = _HOW - {"what"} | {"should", "must"}  # "where can I see my"

# Patterns, each run only where its word or sign occurs.
_MAIL = re.compile(r"[\w+-]@[\w-]+\.\w")
_DIGITS = "0123456789"  # looking for each costs less than one search for all
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
_STRASSE = re.compile(r"(?:straße|strasse|str\.|gasse|allee) \d")
_CASES = words_of("""
    order case claim invoice ticket booking reservation tracking customer account policy member patient employee
    reference shipment parcel application contract
""")
_CASE = re.compile(
    rf"\b(?:{'|'.join(_CASES)})(?: (?:no|nr|number|id|code|ref))?\.? *[:#]? *(?=[a-z-]{{0,5}}\d)[a-z0-9-]{{4,}}"
)
_RECORDS = words_of("""
    purchases transactions orders messages emails e-mails appointments invoices payments bookings results inbox calendar
    charges transfers deliveries
""")
_RECORD = re.compile(
    r"\b(?:last|recent|unread|upcoming|past|pending|previous)(?: \w+)? (?:purchases|transactions|orders|messages|"
    r"e-?mails|appointments|invoices|payments|bookings|charges|transfers|deliveries)\b"
    r"|\bthe (?:lab|test|blood|biopsy|scan|x-ray)s? results\b"
)


def is_personal(text: str, words: list[str], kinds: set[str]) -> bool:
    """Tell whether the answer to a text in lower case, with its words, belongs to one person."""
    return (
        (not kinds.isdisjoint(_SELVES) and _speaks_of_himself(text, kinds))
        or (not kinds.isdisjoint(_PRIVATE) and _tells_of_somebody(words))
        or (not kinds.isdisjoint(_RECORDS) and _RECORD.search(text) is not None)
        or ("@" in text and _MAIL.search(text) is not None)
        or (any(digit in text for digit in _DIGITS) and _has_number(text, kinds))
    )


def _has_number(text: str, kinds: set[str]) -> bool:
    """Tell whether there is a number of somebody: phone, card, bank account, house, order."""
    return (
        (not kinds.isdisjoint(_CASES) and _CASE.search(text) is not None)
        or (not kinds.isdisjoint(_STREETS) and _STREET.search(text) is not None)
        or _STRASSE.search(text) is not None
        or (_LONG.search(text) is not None and _has_long_number(text, kinds))
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
    return any(word.endswith("'s") and word not in _SPREAD and after in _PRIVATE for word, after in pairwise(words))


def _speaks_of_himself(text: str, kinds: set[str]) -> bool:
    """Tell whether the answer is about the one who asks, or what he tells is not for others."""
    if not kinds.isdisjoint(_SENSITIVE):
        return True
    words = text.translate(_TO_CLAUSES).split()
    spread = [part for word in words for part in _SPREAD.get(word, (word,))]
    spoken = ["", *(word for word in spread if word not in _HABITS)]  # a place has a word before it
    senses = {_sense(spoken, at) for at, word in enumerate(spoken) if word in _SELVES}
    if "about" in senses or senses.isdisjoint(("told", "done")):
        return "about" in senses
    if "guide" in senses or not _GUIDES.isdisjoint(pairwise(spoken)):
        return False
    asked = any(word in _PLACED and after in _AUX for word, after in pairwise(spoken))
    return asked or "done" in senses or not kinds.isdisjoint(_ASKS_STATE)


def _clause(words: list[str], at: int, length: int) -> list[str]:
    """Return up to `length` words of the clause from `at` on."""
    found = words[at : at + length]
    return found[: found.index(_BREAK)] if _BREAK in found else found


def _sense(words: list[str], at: int) -> _Sense:
    """Return what the self word at this place says; the senses are explained above the tables."""
    word, before = words[at], words[at - 1]
    if word in _OWNERS:
        return _sense_of_owner(words, at)
    if word == "me":
        return _sense_of_me(words, at)
    if word not in _TELLERS:
        return "about"
    if before in _MAY or before == "do":
        return _sense_of_asking(words, at)
    return _sense_of_telling(words, at)


def _sense_of_me(words: list[str], at: int) -> _Sense:
    """Read "... me": told to him or about him."""
    lead = words[max(0, at - _REACH - 1) : at]
    if lead[-1] == "remind" and words[at + 1 : at + 2] == ["to"]:
        return "plain"
    if lead[-1] not in _TO_ME | {"to"} or not _FOR_HIM.isdisjoint(lead):
        return "about"
    return "done" if lead[-1] == "to" and "explain" not in lead else "plain"


def _sense_of_owner(words: list[str], at: int) -> _Sense:
    """Read "my ..."."""
    owned, lead = _clause(words, at + 1, _REACH), ["", *words[max(0, at - _REACH - 2) : at]]
    if not owned or not _KIN.isdisjoint(owned) or any(word.endswith("'s") for word in owned) or _says(owned):
        return "about"
    if _asks_for(lead) and (owned[0] not in _NOBODYS or lead[-1] in _LOOKED_UP | {"me"} or lead[-2] in _ASKS_WHICH):
        return "about"
    if not _NOBODYS.isdisjoint(owned):
        return "plain"
    return "about" if _THINGS.isdisjoint(owned) else "told"


def _asks_for(lead: list[str]) -> bool:
    """Tell whether the words before "my" ask for a state: "where is", "can I see", "when will", "delete"."""
    if lead[-1] in _ASKED | _DIRECT or (lead[-1] in _COMMANDS and lead[-2] in _OPENINGS):
        return True
    if lead[-1] in _OF and "the" in lead:
        return not _IS.isdisjoint(lead)
    if lead[-1] in _LEARN_WHAT:
        return not _LEARNT.isdisjoint(lead)
    if lead[-1] in _LOOKED_UP:
        return _ADVISED.isdisjoint(lead)
    return lead[-1] in _DOES and not _WHEN.isdisjoint(lead)


def _says(owned: list[str]) -> bool:
    """Tell whether a name or secret is given away: "my password is ..."."""
    return owned[0] in _TOLD_IS and owned[1:2] == ["is"] and _EVENTS.isdisjoint(owned[2:3])


def _sense_of_asking(words: list[str], at: int) -> _Sense:
    """Read "can I ...", "do we ..."."""
    lead, after = words[max(0, at - _REACH) : at], [*_clause(words, at + 1, 2), "", ""]
    if lead[-1] == "do" and after[0] in _OWN_STATE and after[1] != "to" and lead[-2:-1] != ["how"]:
        return "about"
    if ("when" in lead and after[0] in _COMES) or after[1] == "paid":
        return "about"
    if lead[-1] == "will" and after[0] not in _HARMLESS_FATE and after[1] != "charged":
        return "about"
    if not _AMOUNT.isdisjoint(lead) and lead[-1] == "do" and after[0] not in _LEAVE and after[1] != "to":
        return "about"
    return "told" if "why" in lead and words[at - 1 : at + 1] != ["do", "we"] else "guide"


def _sense_of_telling(words: list[str], at: int) -> _Sense:
    """Read "I ...", "am I ..."."""
    before, after = words[at - 1], [*_clause(words, at + 1, 4), "", "", ""]
    if before in _STATE:
        return "guide" if after[0] in _LEAVE and before != "did" else "about"
    if after[:2] == ["have", "to"]:
        return "guide"
    if after[0] in _WISHES:
        return "guide" if "to" in after[1:3] and _LOOKED_UP.isdisjoint(after) else "plain"
    if "paid" in after[1:3] or (after[0] in _DOING and before != "if"):
        return _sense_of_being(before, after)
    return _sense_of_doing(before, after[0])


def _sense_of_being(before: str, after: list[str]) -> _Sense:
    """Read "I am ...", "we have ..."."""
    if "paid" in after[1:3] or not after[1]:
        return "plain" if after[0] == "am" and before not in _ASKS_WHICH else "about"
    if not _TRIVIAL_AFTER.isdisjoint(after[1:]):
        return "plain"
    if not _DEEDS.isdisjoint(after[1:3]):
        return "done"
    return "about" if _EVENTS.isdisjoint(after[1:3]) and _THINGS.isdisjoint(after[1:]) else "told"


def _sense_of_doing(before: str, verb: str) -> _Sense:
    """Read "I lost ...", "if we sell ..."."""
    if verb in _DEEDS:
        return "done"
    if verb in _EVENTS:
        return "guide" if before in _HOW and verb in _MAY else "told"
    return "plain" if before in _IF or verb in _TRIVIAL or not verb else "about"
