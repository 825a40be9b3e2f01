"""The words the reading of prompts goes by: who is meant, what he has, what he does, and how things are asked."""

from __future__ import annotations


def words_of(text: str) -> frozenset[str]:
    """Return the words of one row of a table."""
    return frozenset(text.split())


BREAK = "."  # stands for all that ends a clause
TO_SPACE = str.maketrans(
    dict.fromkeys('.,;:!?()[]{}<>"*/\\|`\n\t\r\xa0\u2026\u201c\u201d\u201e\xab\xbb\xbf\xa1', " ")
    | dict.fromkeys("\u2019\u2018\u02bc\xb4", "'")
)
TO_CLAUSES = {**TO_SPACE, **dict.fromkeys(map(ord, ".,;:!?\n\u2026"), f" {BREAK} ")}  # slow: not for every text
SPREAD = {  # short forms, as the tables want them; with and without the apostrophe
    **dict.fromkeys(("i'm", "im"), ("i", "am")),
    **dict.fromkeys(("i've", "ive"), ("i", "have")),
    **{f"{who}'{short}": (who, full) for who in ("i", "we") for short, full in (("d", "would"), ("ll", "will"))},
    "we're": ("we", "are"),
    "we've": ("we", "have"),
    **{f"{ask}{s}": (ask, "is") for ask in ("what", "where", "who", "when", "how", "why") for s in ("'s", "s")},
}
OWNERS = words_of("my our")
TELLERS = words_of("i we")
OBJECTS = words_of("me myself mine ourselves ours")
# German, French, Spanish, Italian: always "about"
FOREIGN = words_of("""
    ich mein meine meinem meinen meiner meines mich mir unser unsere unserem unseren je j'ai j'avais j'habite
    j'aimerais j'attends mon ma mes moi m'a m'ont m'appelle suis-je ai-je dois-je notre nos mi mis mío mía míos mías
    tengo estoy debo necesito quiero nuestro nuestra mio mia miei mie sono devo vorrei posso nostro nostra ho
""")
SELVES = OWNERS | TELLERS | OBJECTS | FOREIGN | {short for short, (word, _) in SPREAD.items() if word in TELLERS}

# Health, family, identity, money: with a self word near, personal whatever is asked.
SENSITIVE = words_of("""
    pregnant pregnancy diabetes diabetic cancer hiv aids depression depressed anxiety asthma epilepsy chemo surgery
    diagnosis diagnosed symptom symptoms fever rash pain painful bleeding medication medications prescription tumor
    tumour allergic allergy therapy therapist suicidal miscarriage infection insulin antidepressants period migraine
    adhd autism wife husband son daughter girlfriend boyfriend fiancé spouse divorce divorced arrested convicted
    bankrupt bankruptcy heroin cocaine overdose abortion suicide abused raped dementia ibuprofen aspirin pills salary
    kilos dieting ssn iban passport menopause menopausal ivf bipolar ptsd eczema psoriasis lupus stroke gout dialysis
    chemotherapy alcoholic addicted gambling casino custody evicted redundant probation asylum gay lesbian bisexual
    transgender jewish muslim catholic seizure seizures insomnia anorexia bulimia ibs
""")
# What belongs to a person: "John's diagnosis".
PRIVATE = words_of("""
    weight diagnosis salary address password birthday phone prescription medication balance ssn medical record records
    account email e-mail income grades credit home
""")
# Things everybody has: telling of one is no secret by itself, and how to use it is the same for all.
THINGS = words_of("""
    card cards account accounts pin passcode password phone app top-up topup top-ups mastercard atm payment payments
    transfer transfers transaction transactions identity money cash funds name address details currency withdrawal
    deposit purchase cheque check refund code browser computer laptop pc car oil tire tires engine battery key router
    wifi printer windows mac iphone android reset bank wallet identification verification id statement exchange luggage
    playlist alarm timer settings email e-mail country fridge eggs milk turkey kitchen garden fee fees charge shirt
    sink bike bicycle top american express apple google watch paypal contactless permission consent gas 401k limit
    beneficiary recipient acount debit funding refunds topup deposits withdrawals options pass-code
    drive mobile handset cellphone speaker purchases voice device cat dog
""")
# Owned by a question, not by a person.
NOBODYS = words_of("""
    opinion view mind question code function list array string table query script program class dataframe essay poem
    response answer authorization way dictionary dict loop regex repository repo text sentence paragraph dataset
    variable equation
""")
DOING = words_of("""
    havn't havent couldnt wasnt am are was were have had been has haven't hadn't wasn't weren't can't cannot couldn't
    get
""")
STATE = words_of("am are was were did have had has didn't haven't wasn't come")  # "am I", "did I", "have I"
MAY = words_of("can could may should would will must shall might can't cannot couldn't won't shouldn't")
LEAVE = words_of("able allowed required supposed obliged permitted need")  # "am I allowed to"
COOKS = words_of("cook boil bake fry grill roast steam soak knead marinate")  # "how long do I boil an egg"
OWN_STATE = words_of("owe have own spend earn pay make qualify weigh live work stand know look sit")  # "do I owe"
# "what is my", "tell me my"
ASKED = words_of("""
    is are was were has did me know tell remember isn't hasn't wasn't aren't didn't haven't am this that these those it
""")
LOOKED_UP = words_of("""
    know see check get view track locate show find list read summarise summarize display receive pull fetch cancel
""")
TO_ME = words_of("""
    take get buy find bring wake put
    tell tells telling give gave help show let lets letting allow allows allowing teach send sent for explain guide
    walk advise make assist instruct flip
""")
# "I wonder"
TRIVIAL = words_of("""
    want need would like wonder wondered think thought love hate guess believe hope mean understand prefer know see
    please choose call pick missed miss intend forget enjoyed enjoy use heard read wish suppose assume say agree
    disagree ask keep try do wanna gotta seem must might may understood appreciate thank apologize
""")
# "I am curious", "I have a list"
TRIVIAL_AFTER = NOBODYS | words_of("""
    questions file data test project model homework recipe triangle triangles circle number numbers bug error problem
    idea curious wondering learning trying looking writing building using new interested reading sure studying thinking
    told sorry uncertain happy angry worried concerned upset disappointed inquiring afraid hoping asking confused
    dissatisfied unhappy frustrated perplexed unsure unaware clue mood glad foggiest impression famished hungry saying
    outta leaving bored
    decide reviewing preparing creating making designing implementing doubts heard playing exception warning
""")
WISHES = words_of("want need would wish")  # "I want to change my name"
# "I lost", "I was charged"
EVENTS = words_of("""
    lost forgot forgotten made received transferred sent used noticed topped tried entered typed found got
    changed withdrew deposited activated exchanged wanted needed thought went see can could should will won't
    must charged locked stolen declined reported verified added set installed moved broke dropped left put gave
    took attempted completed did didn't requested linked paying transferring waiting expecting having missing
    unable getting trying able not seeing experiencing stuck no checked double asked saw recognize recognise
    remember realize realise wasn't goofed recieved withdrawn realised misplaced performed removed looked
    refilled punched suspect draw demagnetized cut require reviewed noticing didnt out short run going holiday
    vacation abroad buying checking shopping standing helping overcharged rejected denied transfered returned
    realized pulled experienced contacted placed cashed selected discovered attempting purchasing chargged
    wanting needing given supposed find figure log make use do access open add install get transfer withdraw
""")
HABITS = words_of("""
    previously genuinely urgently desperately definitely normally immediately simply even just only also already
    still really recently currently accidentally never always usually actually don't dont
""")
IF = words_of("if when before after once until unless while whenever")
HOW = words_of("how where what")
HOW_TO = {("how", word) for word in words_of("to do long can would should")}
GUIDES = (
    HOW_TO
    | {("what", word) for word in words_of("if happens to should")}
    | {("possible", "to"), ("a", "way"), ("any", "way"), ("it", "mean")}
)
REACH = 4  # words from "my" to what is mine: "my two new cards"
KIN = words_of("""
    mother father mom mum dad parents parent child children kid kids baby brother sister boss manager doctor lawyer
    landlord partner friend neighbour neighbor employer social medical
""")
DOES = words_of("do does did has have")
WHEN = words_of("when why")
COMES = words_of("get receive have expect be see")  # "when can I expect"
AMOUNT = words_of("much many often long")
LEARNT = words_of("tell know check see me")
ASKS_WHICH = words_of("what when where who which")
# with these, what is told is asked about
ASKS_STATE = words_of("status pending balance yet left apr hold latest find locate last")
ASKING = words_of("when where what who how which check tell know see look find help explain can could please")
TELLING = words_of("my i the there a an our we it hi hello some after still")  # a statement begins so
WHY = words_of("why reason")
NO_REASON = words_of("some no good")  # "for some reason it failed"
NEARBY = words_of("nearest closest")  # "where is the nearest ATM"
WHY_REACH = 9  # words from "why" to what does not work
FAILS = words_of("""
    can't cannot couldn't won't doesn't don't didn't isn't wasn't not cant unable failing fails fail failed trouble
    wont doesnt isnt stopped wouldn't hasn't haven't hasnt havent
""")
WORKS = words_of("""
    work works working worked function functioning use using used make do top verify link activate add access
    withdraw exchange through open able get possible pay send show shows showing shown showed update
    updated updating
""")
POINTING = words_of("is that this did happen happened it so")
DUTY = words_of("need must should necessary required important")
STUCK = words_of("pending fail failed fails failing reverted returned wrong")
CHARGED = words_of("charge charged charges charging fee fees")
WHAT_FOR = words_of("for when to on because doing making using withdrawing abroad")  # "charged for a withdrawal"
CANNOT = words_of("can't cannot couldn't cant not unable don't didn't")
LOOKS = words_of("looks look seems seem feels")
FAMILY = words_of("daughter son children child kids kid friend friends parents partner employer")
# An everyday mention of these, beside a product everybody can have, is no secret: "an account for my daughter".
EVERYDAY = words_of("daughter son salary")
PRODUCTS = words_of("account accounts acount card cards currency transfer app gbp")
DONE_TO_ME = words_of("charged charging charge cost costs notify notified contacted")
ASKS_WHAT = words_of("what which is are who how anything")
PAST = words_of("me was were")  # "why was my essay marked down"
TIMES = words_of("time day days shift shifts room seat gate platform terminal")  # "what time do I start"
DONE_TO_ALL = words_of("charged able allowed asked required notified fined billed refunded")  # "will I be charged"
THE = words_of("the this that those these")
LINKS = words_of("""
    and but so when if that because since as while time times way moment day app one only amount same item to at on in
    then now still
""") | {BREAK, ""}
NOT = words_of("not isn't wasn't isnt aren't")
MONEY = words_of("exchange rate fee fees charge charges atm refund refunds transaction payment statement extra abroad")
COMMANDS = words_of("""
    update delete change book cancel close freeze block renew reorder order move remove deactivate unlink pause restore
    extend upgrade downgrade return track
""")  # "delete my ..."
OPENINGS = frozenset(("", BREAK, "please"))
TOLD_IS = words_of("name password passcode pin code address email e-mail id")  # "my name is Anna"
FOR_HIM = words_of("have has any ask mail anything there did who")  # "anything for me?"
DEEDS = words_of("ordered bought paid purchased spent booked requested")  # "I bought a lamp"
ONTO = words_of("to on onto")  # "add milk to my list"
PUTS = words_of("add put")
HAVE_TO_BE = ["have", "to", "be"]
SHORT = 5  # words: fewer are no statement
SUITED = words_of("possible take way ok working available good easy")  # "is it possible for me"
BECOME = words_of("be get")
HARMLESS_FATE = words_of("be get know need have lose incur still")  # "will I be charged"
AGAINST = words_of("against under")  # "a fine against my car"
SO_THAT = HOW | words_of("that so way ways")
DIRECT = words_of("want need like")  # "I want my money"
AUX = words_of("is are was will does do did can has")
LEARN_WHAT = words_of("if whether about where when why")  # after "tell me", before "my"
OF, IS = words_of("of on for in"), words_of("is are was were")  # "what is the date of my"
PLACED = words_of("when where")
ADVISED = HOW - {"what"} | {"should", "must"}  # "where can I see my"
