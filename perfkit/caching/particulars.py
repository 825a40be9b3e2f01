"""Questions about one's own things that name no owner: "has the courier left the parcel?", "cancel Thursday's haircut".

Nobody says "I" or "my" in them, but only one person's courier can be meant. They are told by what they ask: what has
happened to a thing of everyday life that is called "the", what is left, what is on, or that something be done with it.
As elsewhere, what is taken for personal without being so costs a call.
"""

from __future__ import annotations

import re

from perfkit.caching.vocabulary import words_of

__all__ = ["asks_for_particulars"]

_THINGS = words_of("""
    courier parcel parcels package shipment delivery voicemail voicemails meeting appointment appointments interview
    booking lease tenancy instalment installment loan locker membership gym plumber electrician technician mechanic
    landlord landlady nurse vet dentist doctor clinic school teacher nanny babysitter cleaner tenant agent seller buyer
    insurance insurer boiler heating alarm garage cottage flat apartment kids baby letter letters receipt invoice
    sofa roof fence wifi to-do workshop contractor builder builders architect lawyer accountant employer recruiter
    haircut rehearsal practice party wedding funeral homework essay thesis form documents paperwork keys shoes laptop
    dishwasher oven sprinkler thermostat blinds neighbour neighbours neighbor neighbors flatmate roommate trip report
    children car van bike contracts subscriptions bills calendar agenda library application claim complaint appeal
    invitation reimbursement expenses minutes childminder therapist trainer tutor caterer photographer removal movers
""")
_PERSONS = words_of("mum mom mommy dad daddy grandma grandpa granny nana")
_WAITING = words_of("left unread upcoming outstanding overdue remaining unpaid any")
_EVENTS = words_of("meeting interview lunch dinner appointment call")
_DAYS = words_of("monday tuesday wednesday thursday friday saturday sunday tomorrow yesterday pm am")
_OTHERS = words_of("they he she anyone anybody someone somebody")
_LAST = words_of("bill order orders invoice payment purchase appointment visit delivery receipt statement call letter")
_SECRETS = words_of("pin password passcode combination passphrase login")
_DEEDS = words_of("""
    accept accepted reply replied answer answered pay paid transfer transferred call called text texted email emailed
    confirm confirmed rsvp sign signed approve approved respond responded graded picked arrive arrived apologise book
    booked cancel cancelled canceled forget forgotten mention mentioned
""")


def _owned(words: frozenset[str]) -> frozenset[str]:
    """Return words with those that stand before what is owned: "the kids' room", "Thursday's haircut"."""
    return words | {word + end for word in words for end in ("'s", "'")}


_THE = rf"the (?:[\w'-]+ ){{0,2}}?(?:{'|'.join(sorted(_THINGS))})(?:'s|')?\b"
_PLEASE = r"(?:(?:hi|hello|hey|ok|and|so|please|just)[,:]? )*(?:(?:can|could|will|would) you )?(?:please )?"
_PAST = r"(?:did|has|have|had|was|were)(?:n't)?"
_DO = "cancel|move|postpone|reschedule|renew|forward|send|read|mark|confirm|put|shift|show|list|check|find"
_STATE = "still|on|off|open|locked|armed|paid|ready|done|due|back|here|coming|running|yet"
_OF_THINGS = (
    rf"(?:what |who |whom |how |why |which \w+ |how \w+ )?{_PAST} {_THE}",  # "did the insurance pay"
    rf"where(?:'s| is| are| was| were| did| has) .{{0,20}}?{_THE}",
    rf"(?:which|what) \w+ (?:is|are|was|were|did|does) {_THE}",
    rf"how much (?:is|was|did|does) .{{0,12}}?{_THE}",
    rf"when(?:'s| is| are| does| do| did| will) {_THE}",
    rf"(?:is|are) {_THE} (?:\w+ )*?(?:{_STATE})\b",
    rf"who(?:'s| is| has| \w+ed)\b.{{0,20}}?{_THE}",
    rf"what(?:'s| is| was)? (?:on|in|left on|wrong with|the (?:[\w-]+ )+?(?:on|of|at|for|from)) .{{0,20}}?{_THE}",
    rf"(?:{_DO}) .{{0,25}}?{_THE}",
)
_WAITS = "appointments?|messages?|reply|replies|mail|calls?|parcels?|invoices?|bills|leave|holidays?|vacation|meetings"


def _any(words: frozenset[str]) -> str:
    return "(?:" + "|".join(sorted(words)) + ")"


# Words of which one must be there, and what to look for then.
_ASKED = (
    (_owned(_THINGS), re.compile(rf"{_PLEASE}(?:{'|'.join(_OF_THINGS)})").match),
    (
        _owned(_PERSONS),
        re.compile(
            rf"(?<!\ba )(?<!\bthe )(?<!home )(?<!your )(?<!like )\b{_any(_PERSONS)}\b(?! and| jeans| jokes?)"
        ).search,
    ),
    (
        _WAITING,
        re.compile(
            r"how (?:much|many) .{0,30}(?:is|are|do we have) left\b(?! (?:in the w|on earth|over))"
            rf"|{_PLEASE}(?:any|unread|upcoming|outstanding|overdue|remaining|unpaid) (?:\w+ )?(?:{_WAITS})\b"
        ).match,
    ),
    (
        _owned(_EVENTS),
        re.compile(
            rf"the (?:\w+ )?{_any(_EVENTS)} (?:with|to) (?!an?\b|the\b|go\b|be\b)\w|day's {_any(_EVENTS)}\b"
        ).search,
    ),
    (
        frozenset(("us",)),
        re.compile(
            r"(?:for|with|costs?|gave|give|sent|send|told|tell|paid) us\b(?! (?:dollar|citizen|resid|card|bank|cust))"
        ).search,
    ),
    (_owned(_DAYS), re.compile(rf"{_PLEASE}(?:{_DO}) .{{0,30}}\b{_any(_DAYS)}\b").match),
    (_OTHERS, re.compile(rf"{_PLEASE}{_PAST} {_any(_OTHERS)} ").match),
    (
        _LAST,
        re.compile(
            rf"the (?:last|latest) {_any(_LAST)}\b|the {_any(_LAST)} (?:from|of|on) (?:last|yester|{_any(_DAYS)})"
        ).search,
    ),
    (
        _SECRETS,
        re.compile(rf"{_PLEASE}what(?:'s| is| was) the {_any(_SECRETS)} (?:of|for|to|on|at) (?:the|our)\b").match,
    ),
    (_DEEDS, re.compile(rf"{_PLEASE}(?:did|has|have) [\w-]+(?:'s \w+)?(?: already)? {_any(_DEEDS)}\b").match),
    (
        words_of("tell remind ask inform let"),
        re.compile(
            rf"{_PLEASE}(?:tell|remind|ask|inform|let) (?!(?:me|us|my|our|an?|the|some\w*)\b)[\w-]+"
            r"(?:'s \w+)? .*(?:that|know|to|about)\b"
        ).match,
    ),
    (
        frozenset(("did",)),
        re.compile(r"what did [\w-]+(?:'s \w+)? (?:say|order|want|promise|reply|ask for|suggest|send)\b").match,
    ),
    (frozenset(("turn", "go")), re.compile(r"whose turn\b|how did (?:the|\w+'s) .{0,40}\bgo\b").search),
)


def asks_for_particulars(text: str, kinds: set[str]) -> bool:
    """Tell whether a text in lower case, with this set of words, asks for what is somebody's own without saying so."""
    return any(not kinds.isdisjoint(words) and look(text) is not None for words, look in _ASKED)
