"""May this answer be kept, for how long, and for whom: the rules of the cache as one table.

The smart policy keeps what is asked to be deterministic (temperature at most 0.1, AgentiCraft guide 5), keeps personal
questions apart by user or not at all, and keeps answers about "now" for minutes only (RAAF guide 3.6, made safe: the
guide strips the user from the key and so hands one user's answer to another).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit.values import ChatRequest

__all__ = ["CURRENT_TTL", "MAX_TEMPERATURE", "NOT_ASKED", "CachePolicy", "Decision", "Traits", "decide", "read_traits"]

MAX_TEMPERATURE = 0.1  # AgentiCraft guide 5: above it the caller wants variety
CURRENT_TTL = 300.0  # RAAF guide 3.6: current information, 5 minutes

# Whose answer is it? A text is split into its set of words first. Without a word of _SELVES, _PRIVATE or a digit nothing
# more is looked at; with one, each place where somebody speaks of himself is given a sense by the words around it:
#   about  asks for or tells of his own state ("where is my", "did I", "I am", "I have"): personal
#   told   tells what happened to a thing everybody has ("I lost my card"): personal unless a guide is asked for
#   guide  asks how something is done ("how do I", "can I", "I want to"): the answer is the same for everybody
#   plain  says nothing ("I was wondering", "tell me", "in my opinion")
# What is in no table is about him: a gap in the tables costs a call, never an answer shown to somebody else.
_Sense = Literal["about", "told", "guide", "plain"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BREAK = "."  # stands for all that ends a clause
_SPLIT = str.maketrans(
    dict.fromkeys(".,;:!?\n\u2026", f" {_BREAK} ")
    | dict.fromkeys('()[]{}<>"*/\\|`\t\r\xa0\u201c\u201d\u201e\u00ab\u00bb\u00bf\u00a1', " ")
    | {"\u2019": "'", "\u02bc": "'"}
)
_SPREAD = {  # short forms, as the tables want them
    **{f"i{mark}{short}": ("i", full) for mark in ("'", "") for short, full in (("m", "am"), ("ve", "have"))},
    **{f"we'{short}": ("we", full) for short, full in (("re", "are"), ("ve", "have"), ("d", "would"), ("ll", "will"))},
    **{f"i'{short}": ("i", full) for short, full in (("d", "would"), ("ll", "will"))},
    **{f"{ask}{mark}s": (ask, "is") for mark in ("'", "") for ask in ("what", "where", "who", "when", "how", "why")},
}
_OWNERS = _words("my our")
_TELLERS = _words("i we")
_OBJECTS = _words("me myself mine ourselves ours")
_FOREIGN = _words("""
    ich mein meine meinem meinen meiner meines mich mir unser unsere unserem unseren
    je j'ai j'avais j'habite j'aimerais j'attends mon ma mes moi m'a m'ont m'appelle suis-je ai-je dois-je notre nos
    yo mi mis mío mía míos mías tengo estoy debo necesito quiero nuestro nuestra he
    mio mia miei mie sono devo vorrei posso nostro nostra mi
""") - {"he"}  # German, French, Spanish, Italian: always "about"
_SELVES = _OWNERS | _TELLERS | _OBJECTS | _FOREIGN | frozenset(_SPREAD) - _words("what's whats where's who's when's")

# Health, family, identity, money: with a self word near, personal whatever is asked.
_SENSITIVE = _words("""
    pregnant pregnancy diabetes diabetic cancer hiv aids depression depressed anxiety asthma epilepsy chemo surgery
    diagnosis diagnosed symptom symptoms fever rash pain painful bleeding medication medications prescription tumor tumour
    allergic allergy therapy therapist suicidal miscarriage infection insulin antidepressants period migraine adhd autism
    wife husband son daughter girlfriend boyfriend fiancé spouse divorce divorced pregnant arrested convicted bankrupt
    bankruptcy salary ssn iban passport
""")
# What belongs to a person: "John's diagnosis".
_PRIVATE = _words("""
    diagnosis salary address password birthday phone prescription medication balance ssn medical record records account
    email e-mail income grades credit home
""")
# Things everybody has: telling of one is no secret by itself, and how to use it is the same for all.
_THINGS = _words("""
    card cards account accounts pin passcode password phone app top-up topup top-ups visa mastercard atm payment payments
    transfer transfers transaction transactions identity money cash funds name address details currency withdrawal
    deposit purchase cheque check refund code browser computer laptop pc car oil tire tires engine battery key
    router wifi printer windows mac iphone android reset bank wallet identification verification id statement exchange
    luggage playlist alarm timer settings email e-mail country fridge kitchen garden fee fees charge
    shirt sink bike bicycle
""")
# Owned by a question, not by a person.
_NOBODYS = _words("""
    opinion question questions code function list array string table query script program class dataframe file essay poem
    view mind point head cat dog name_list data dictionary dict loop regex test tests project repository repo text
    sentence paragraph dataset model variable homework recipe favourite favorite triangle triangles circle equation number
    numbers bug error problem idea issue
""")
_DOING = _words("am are was were have had been has")
_STATE = _words("am are was were did have had has didn't haven't wasn't")  # "am I", "did I", "have I"
_MAY = _words("""
    can could may should would will must shall might can't cannot couldn't won't shouldn't
""")
_LEAVE = _words("able allowed required supposed obliged permitted need")  # "am I allowed to"
_OWN_STATE = _words("""
    owe have own spend earn make get still qualify weigh live work stand know look currently usually
""")  # "do I owe"
_ASKED = _words("""
    is are was were has did me know tell isn't hasn't wasn't aren't whether didn't haven't am about
""")  # "what is my", "tell me my"
_LOOKED_UP = _words("see check get have view track show find list read summarise summarize display receive pull fetch cancel")
_TO_ME = _words("tell give help show let teach send for explain remind guide walk advise make to with assist")
_TRIVIAL = _words("""
    want need would like wonder wondered think thought love hate guess believe hope mean understand prefer know see please
    use heard read wish suppose assume say agree disagree ask don't keep try do get
""")  # "I wonder"
_TRIVIAL_AFTER = _NOBODYS | _words("""
    curious wondering learning trying looking writing building using new interested reading sure studying thinking told
    hoping asking confused reviewing preparing creating making designing implementing doubts heard playing
""")  # "I am curious", "I have a list"
_WISHES = _words("want need would wish")  # "I want to change my name"
_EVENTS = _words("""
    lost forgot forgotten ordered paid bought made received transferred sent used noticed topped tried entered typed found
    got changed withdrew deposited activated exchanged wanted needed thought went see can't cannot couldn't can could
    should will won't must charged locked stolen declined reported verified added set installed moved broke dropped left
    put gave took attempted completed did didn't requested purchased linked travel pay paying transferring waiting
    expecting having missing unable getting trying able
""")  # "I lost", "I was charged"
_HABITS = _words("just only also already still really recently currently accidentally never always usually actually don't")
_IF = _words("if when before after once until unless where how what which while whether whenever that why")
_HOW = _words("how where what")
_GUIDES = frozenset({("how", "to"), ("how", "do"), ("how", "can"), ("what", "if"), ("what", "happens"), ("possible", "to"),
    ("a", "way"), ("what", "to"), ("how", "would"), ("how", "should"), ("what", "should"), ("what", "are"), ("any", "way")})
_REACH = 4  # words from "my" to what is mine: "my two new cards"
_KIN = _words("""
    mother father mom mum dad parents parent child children kid kids baby brother sister boss manager doctor lawyer landlord
    partner friend neighbour neighbor employer social medical
""")
_DOES = _words("do does did has have")
_WHEN = _words("when why")
_COMES = _words("get receive have expect be see")  # "when can I expect"
_AMOUNT = _words("much many often long")

# Patterns, each run only where its word or sign occurs.
_MAIL = re.compile(r"[\w+-]@[\w-]+\.\w")
_DIGITS = re.compile(r"\d{2}")
_PHONE = re.compile(
    r"(?<![\w.])(?:\+\d{1,3}[ ./-]?(?:\(?\d{1,4}\)?[ ./-]?){2,5}\d{2}"  # +49 170 1234 5678
    r"|\(\d{3}\) ?\d{3}[ -]?\d{4}|\d{3}([ .-])\d{3}\1\d{4}"  # (555) 123-4567, 555-123-4567
    r"|0\d{2,4}[ /-]\d{3,4}[ -]?\d{3,5}|0\d(?:[ .]\d\d){4}|0\d{3,4}[ /-]?\d{5,8})(?![\w-])"  # 0151 23456789
)
_CALLED = _words("call phone telephone mobile cell whatsapp sms tel fax")
_BARE_PHONE = re.compile(r"(?<![\w.-])\d{7,12}(?![\w-])")  # only beside one of these words
_SSN = re.compile(r"(?<![\d-])\d{3}[- ]\d{2}[- ]\d{4}(?![\d-])")
_CARD = re.compile(r"(?<![\w-])[2-6](?:[ -]?\d){12,18}(?![\w-])")  # of those, the ones with a Luhn sum
_IBAN = re.compile(r"\b[a-z]{2}\d{2}(?: ?[a-z0-9]{4}){2,7}(?: ?[a-z0-9]{1,3})?\b")  # of those, with a sum modulo 97
_STREET = re.compile(
    r"\b\d{1,5}[a-z]? (?:[\w']+ ){1,3}(?:street|st|avenue|ave|road|rd|lane|ln|drive|boulevard|blvd)\b(?= *(?:[,.;?!\n]|$|in\b))"
    r"|\w{3}(?:straße|strasse|str\.|gasse|allee) \d|\b\d{1,4},? (?:rue|avenue|boulevard) (?:de|du|des|d')|\b(?:calle|via) \w+,? \d"
)
_CASE = re.compile(
    r"\b(?:order|case|claim|invoice|ticket|booking|reservation|tracking|customer|account|policy|member|patient|employee|"
    r"reference|shipment|parcel|application|contract)(?: (?:no|nr|number|id|code|ref))?\.? *[:#]? *(?=[a-z-]{0,5}\d)[a-z0-9-]{4,}"
)
_RECORDS = _words("""
    purchases transactions orders messages emails e-mails appointments invoices payments bookings results inbox calendar
    charges transfers deliveries
""")
_RECORD = re.compile(
    r"\b(?:last|recent|unread|upcoming|past|pending|previous)(?: \w+)? (?:purchases|transactions|orders|messages|e-?mails|"
    r"appointments|invoices|payments|bookings|charges|transfers|deliveries)\b|\bthe (?:lab|test|blood|biopsy|scan|x-ray)s? results\b"
)

# What is true for minutes only.
_CURRENT = _words("today today's tonight currently latest yesterday yesterday's tomorrow tomorrow's nowadays weather")
_TIMED = _words("now current this recent stock time score date traffic")  # only in these phrases:
_CURRENT_PHRASE = re.compile(
    r"\bright now\b|\bnow[?.!]*$|\b(?:is|are|it|open|happening|doing) now\b|\bmost recent\b|\brecent (?:news|events|changes|developments)\b"
    r"|\bthis (?:week|month|year|morning|evening|season)\b|\bstock (?:price|market)|\bwhat time is it\b|\btime is it (?:in|now)\b"
    r"|\bwhat(?:'s| is) the (?:time|date)(?: in\b| now\b| today\b| *[?.!]*$)|\bthe score\b.{0,20}\bgame\b|\btraffic (?:on|in|to)\b"
    r"|\bcurrent (?:\w+ )?(?:weather|temperature|price|rate|news|president|chancellor|minister|ceo|pope|king|status|events?|time|"
    r"date|year|month|version|champions?|population|record|value|situation|score|state of|head of|market|exchange|leader|holder)"
)
_CALL = re.compile(r"\w\(\)")  # now() is code


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How a call uses the cache; `cache="always"` is `CachePolicy()`, "never" is `CachePolicy(exact=False)`.

    Args:
        exact: keep the answer and serve it to the same question again.
        scope: whose the answer is: "user" or "public"; None means the user's if one is given, else public.
        ttl: seconds; None means the cache's own.
        smart: decide by the rules of this module whether to keep it at all.
        cacheable: under the smart rules, keep answers whatever the temperature.
    """

    exact: bool = True
    scope: Literal["user", "public"] | None = None
    ttl: float | None = None
    smart: bool = False
    cacheable: bool | None = None

    @classmethod
    def of(cls, cache: CachePolicy | str) -> CachePolicy:
        """Return the policy called "smart", "always" or "never", or the policy itself.

        Raises:
            ValueError: there is no such policy.
        """
        if isinstance(cache, CachePolicy):
            return cache
        if not isinstance(cache, str) or cache not in _NAMED:
            raise ValueError(f"cache must be {', '.join(map(repr, _NAMED))} or a CachePolicy, not {cache!r}")
        return _NAMED[cache]


_NAMED = {"smart": CachePolicy(smart=True), "always": CachePolicy(), "never": CachePolicy(exact=False)}


@dataclass(frozen=True, slots=True)
class Traits:
    """What the text of a request tells about its answer."""

    personal: bool
    current: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict: keep or not, how long (seconds), whose, and why in words."""

    keep: bool
    reason: str
    ttl: float | None = None
    user: str | None = None


NOT_ASKED = Decision(keep=False, reason="policy never")


def read_traits(request: ChatRequest) -> Traits:
    """Read the users' messages of a request for personal data and references to the present."""
    texts = [text for message in request.messages if message["role"] == "user" for text in _texts(message["content"])]
    read = [_traits_of(text.lower()) for text in texts]
    return Traits(any(t.personal for t in read), any(t.current for t in read))


def _texts(content: object) -> list[str]:
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list | tuple) else []
    return [str(part.get("text", "")) for part in parts if isinstance(part, Mapping)]


def _traits_of(text: str) -> Traits:
    words = text.translate(_SPLIT).split()
    kinds = set(words)
    personal = (
        (not kinds.isdisjoint(_SELVES) and _speaks_of_himself(words, kinds))
        or (not kinds.isdisjoint(_PRIVATE) and _tells_of_somebody(words))
        or (not kinds.isdisjoint(_RECORDS) and _RECORD.search(text) is not None)
        or ("@" in text and _MAIL.search(text) is not None)
        or (_DIGITS.search(text) is not None and _has_number(text, kinds))
    )
    return Traits(personal, _is_current(text, kinds))


def _is_current(text: str, kinds: set[str]) -> bool:
    if not kinds.isdisjoint(_CURRENT):
        return _CALL.search(text) is None
    return not kinds.isdisjoint(_TIMED) and _CURRENT_PHRASE.search(text) is not None


def _has_number(text: str, kinds: set[str]) -> bool:
    """Tell whether there is a number of somebody: phone, card, bank account, house, order."""
    return (
        any(pattern.search(text) for pattern in (_PHONE, _SSN, _STREET, _CASE))
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


def _speaks_of_himself(words: list[str], kinds: set[str]) -> bool:
    """Tell whether the answer is about the one who asks, or what he tells is not for others."""
    if not kinds.isdisjoint(_SENSITIVE):
        return True
    spread = [part for word in words for part in _SPREAD.get(word, (word,))]
    spoken = ["", *(word for word in spread if word not in _HABITS)]  # a place has a word before it
    senses = {_sense(spoken, at) for at, word in enumerate(spoken) if word in _SELVES}
    if "about" in senses or "told" not in senses:
        return "about" in senses
    return "guide" not in senses and _GUIDES.isdisjoint(pairwise(spoken))


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
        return "plain" if before in _TO_ME else "about"
    if word not in _TELLERS:
        return "about"
    if before in _MAY or before == "do":
        return _sense_of_asking(words, at)
    return _sense_of_telling(words, at)


def _sense_of_owner(words: list[str], at: int) -> _Sense:
    """Read "my ..."."""
    owned, lead = _clause(words, at + 1, _REACH), words[max(0, at - _REACH) : at]
    if not _KIN.isdisjoint(owned) or any(word.endswith("'s") for word in owned):
        return "about"
    if _NOBODYS.isdisjoint(owned) and (_THINGS.isdisjoint(owned) or _asks_for(lead)):
        return "about"
    return "told" if _NOBODYS.isdisjoint(owned) else "plain"


def _asks_for(lead: list[str]) -> bool:
    """Tell whether the words before "my" ask for a state: "where is", "can I see", "when will"."""
    if lead[-1] in _ASKED:
        return True
    if lead[-1] in _LOOKED_UP:
        return _HOW.isdisjoint(lead)
    return lead[-1] in _DOES and not _WHEN.isdisjoint(lead)


def _sense_of_asking(words: list[str], at: int) -> _Sense:
    """Read "can I ...", "do we ..."."""
    lead, after = words[max(0, at - _REACH) : at], [*_clause(words, at + 1, 2), "", ""]
    if lead[-1] == "do" and after[0] in _OWN_STATE and after[1] != "to" and lead[-2:-1] != ["how"]:
        return "about"
    if "when" in lead and after[0] in _COMES:
        return "about"
    if not _AMOUNT.isdisjoint(lead) and lead[-1] == "do" and after[0] not in _LEAVE and after[1] != "to":
        return "about"
    return "told" if "why" in lead else "guide"


def _sense_of_telling(words: list[str], at: int) -> _Sense:
    """Read "I ...", "am I ..."."""
    before, after = words[at - 1], [*_clause(words, at + 1, 4), "", "", ""]
    if before in _STATE:
        return "guide" if after[0] in _LEAVE and before != "did" else "about"
    if after[0] in _WISHES:
        return "guide" if "to" in after[1:3] and _LOOKED_UP.isdisjoint(after) else "plain"
    if after[0] in _DOING:
        return _sense_of_being(after)
    if after[0] in _EVENTS:
        return "guide" if before in _HOW and after[0] in _MAY else "told"
    return "plain" if before in _IF or after[0] in _TRIVIAL else "about"


def _sense_of_being(after: list[str]) -> _Sense:
    """Read "I am ...", "we have ..."."""
    if not _TRIVIAL_AFTER.isdisjoint(after[1:]):
        return "plain"
    return "about" if _EVENTS.isdisjoint(after[1:3]) and _THINGS.isdisjoint(after[1:]) else "told"


# Why the smart policy keeps nothing: the first rule that applies is the reason.
_REFUSALS: tuple[tuple[str, Callable[[ChatRequest, Traits, CachePolicy], bool]], ...] = (
    ("temperature not given", lambda request, _, policy: not policy.cacheable and request.temperature is None),
    (
        f"temperature above {MAX_TEMPERATURE}",
        lambda request, _, policy: not policy.cacheable and (request.temperature or 0) > MAX_TEMPERATURE,
    ),
    ("tools may have effects", lambda request, _, __: bool(request.tools)),
    ("personal data and no user given", lambda request, traits, _: traits.personal and request.user is None),
)


def decide(request: ChatRequest, traits: Traits, policy: CachePolicy) -> Decision:
    """Return what to do with the answer of `request`."""
    if not policy.exact:
        return NOT_ASKED
    if policy.scope == "user" and request.user is None:
        return Decision(keep=False, reason="policy wants a user and none is given")
    user = None if policy.scope == "public" else request.user
    if not policy.smart:
        return Decision(keep=True, reason="policy always", ttl=policy.ttl, user=user)
    for reason, applies in _REFUSALS:
        if applies(request, traits, policy):
            return Decision(keep=False, reason=reason)
    return _kept(traits, policy.ttl, request.user if traits.personal else user)


def _kept(traits: Traits, ttl: float | None, user: str | None) -> Decision:
    if traits.current:
        return Decision(keep=True, reason="current information", ttl=min(ttl or CURRENT_TTL, CURRENT_TTL), user=user)
    return Decision(keep=True, reason="public" if user is None else "for this user", ttl=ttl, user=user)
