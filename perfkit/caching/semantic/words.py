"""The words the guards go by: numbers, units, dates, opposites, names and what carries no meaning of its own."""

from __future__ import annotations

from perfkit.caching.vocabulary import words_of

__all__ = [
    "BOUNDS",
    "COMPATIBLE",
    "DATES",
    "DONE",
    "EMPTY",
    "NEGATIONS",
    "NUMBERS",
    "OPPOSITES",
    "PLACES",
    "QUESTIONS",
    "UNITS",
]


def _synonyms(rows: str) -> dict[str, str]:
    """Return each word of a row with the row's first word."""
    return {word: row.split()[0] for row in rows.strip().splitlines() for word in row.split()}


def _rows(rows: str) -> dict[str, int]:
    """Return each word with the number of its row."""
    return {word: number for number, row in enumerate(rows.strip().splitlines()) for word in row.split()}


_ONES = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty
"""
_TENS = "ten twenty thirty forty fifty sixty seventy eighty ninety"
_RANKS = "zeroth first second third fourth fifth sixth seventh eighth ninth tenth"
NUMBERS = {
    **{word: str(n) for n, word in enumerate(_ONES.split())},
    **{word: str(10 * (n + 1)) for n, word in enumerate(_TENS.split())},
    **{word: f"{n}." for n, word in enumerate(_RANKS.split())},
    "hundred": "100", "thousand": "1000", "million": "1000000", "billion": "1000000000", "dozen": "12",
    "half": "1/2", "quarter": "1/4", "twice": "x2", "once": "x1", "double": "x2", "triple": "x3", "both": "2",
}  # fmt: skip
UNITS = _synonyms("""
    km kilometer kilometers kilometre kilometres
    mile miles mi
    meter meters metre metres
    cm centimeter centimeters centimetre centimetres
    mm millimeter millimeters
    inch inches
    foot feet ft
    yard yards
    kg kilo kilos kilogram kilograms
    gram grams
    mg milligram milligrams
    lb lbs
    ounce ounces oz
    liter liters litre litres
    ml milliliter milliliters
    gallon gallons
    cup cups
    second seconds sec secs
    minute minutes min mins
    hour hours hrs
    day days
    week weeks
    month months
    year years
    celsius centigrade
    fahrenheit
    kelvin
    percent %
    usd dollar dollars $ bucks
    eur euro euros €
    gbp pound pounds £ quid sterling
    aud
    cad
    chf franc francs
    yen jpy ¥
    inr rupee rupees
    kb kilobyte kilobytes
    mb megabyte megabytes
    gb gigabyte gigabytes
    tb terabyte terabytes
    watt watts
    volt volts
    amp amps
""")
DATES = _synonyms("""
    january jan
    february feb
    march
    april apr
    june jun
    july jul
    august aug
    september sep sept
    october oct
    november nov
    december dec
    monday mon mondays
    tuesday tue tues tuesdays
    wednesday wed wednesdays
    thursday thu thurs thursdays
    friday fri fridays
    saturday sat saturdays
    sunday sun sundays
    today
    tomorrow
    yesterday
    tonight
    morning
    afternoon
    evening
    noon midday
    midnight
    spring
    summer
    autumn
    winter
    weekend weekends
    weekday weekdays
    christmas xmas
    easter
    daily
    weekly
    monthly
    yearly annually annual
    next
    last previous
    ago
""")
BOUNDS = _synonyms("""
    before until till by prior
    after since
    above over exceeding more
    below under less fewer
    least
    most
    between
    within
""")
DONE = words_of("""
    beaten bitten broken built brought bought caught chosen cut done drawn driven eaten found given grown held hit
    kept known led made paid put read run seen sent shown sold spoken stolen taken taught thrown told won written
""")  # and other words before "by", beside those in -ed
NEGATIONS = words_of("""
    not no never none nobody nothing nowhere neither nor without cannot except unless hardly barely
    n't lack lacks lacking refuse refuses fails fail failed failing avoid stop prevent
""")
# Words of one row exclude each other: where two questions both have some of a row, they must be the same.
OPPOSITES = _rows("""
    enable enabled disable disabled
    increase increased decrease decreased raise raised lower lowered reduce
    before after
    buy buying purchase sell selling
    open opening close closing
    add adding remove removing delete
    import export
    allow allowed deny denied forbid forbidden
    more less fewer
    most least fewest
    advantage advantages disadvantage disadvantages pros cons benefits drawbacks
    install installing uninstall uninstalling
    encrypt encryption decrypt decryption
    lock locked unlock unlocked
    freeze unfreeze
    send sending sent receive receiving received
    deposit depositing withdraw withdrawing withdrawal
    activate activating deactivate deactivating
    up down
    in out
    little much few many
    left right
    best worst better worse good bad
    highest lowest higher lower maximum minimum max min
    start begin starting end finish ending
    hot cold warm
    true false
    legal illegal
    male men man boy female women woman girl
    mother mom father dad
    husband wife
    son daughter brother sister
    upload download
    push pull
    encode decode
    compress decompress
    connect disconnect
    accept accepted reject rejected refuse
    approve approved decline declined
    win won lose lost
    new newer old older
    cheap cheaper expensive
    fast faster slow slower
    safe dangerous
    early earlier late later
    big bigger large larger small smaller tiny
    tall long longer short shorter
    inside outside
    above over below under
    with without
    public private
    input output
    read write
    lend borrow
    credit debit
    arrive arrival depart departure
    login logout
    subscribe unsubscribe
    ascending descending
    horizontal vertical
    physical virtual
    cause causes effect effects
    rich poor
    single married
    employer employee
    teacher student
    parent child
    landlord tenant
    seller buyer merchant
    mortgage rent
    positive negative
    even odd
    mastercard visa
    android iphone mac windows linux
    north south east west
    morning evening afternoon night
    breakfast lunch dinner
    sugar salt
    cats cat dogs dog
    temporary permanent
    wholesale retail
    gross net
    front back
""")
_COUNTRIES = """
    germany france spain italy portugal poland austria switzerland belgium netherlands denmark sweden norway finland
    iceland ireland england scotland wales britain uk greece turkey russia ukraine romania hungary croatia serbia
    bulgaria china japan korea india pakistan bangladesh nepal thailand vietnam indonesia malaysia singapore philippines
    australia zealand canada mexico brazil argentina chile peru colombia cuba usa america egypt morocco algeria tunisia
    nigeria kenya ethiopia ghana africa europe asia israel iran iraq syria saudi dubai qatar
    german french spanish italian portuguese polish austrian swiss belgian dutch danish swedish norwegian finnish irish
    english scottish welsh british greek turkish russian ukrainian chinese japanese korean indian thai vietnamese
    indonesian australian canadian mexican brazilian american egyptian arabic hebrew latin
"""
_CITIES = """
    berlin munich hamburg cologne paris lyon london manchester dublin madrid barcelona rome milan naples vienna zurich
    geneva brussels amsterdam copenhagen stockholm oslo helsinki warsaw prague budapest athens istanbul moscow kyiv
    lisbon porto york angeles chicago houston boston seattle denver miami dallas atlanta austin philadelphia phoenix
    francisco diego vegas toronto vancouver montreal sydney melbourne tokyo osaka kyoto seoul beijing shanghai delhi
    mumbai bangkok hanoi jakarta cairo nairobi lagos texas california florida ohio nevada
"""
_TECHNOLOGIES = """
    python java javascript typescript ruby rust golang php perl scala kotlin swift haskell c c++ c# .net react angular
    vue django flask rails postgres postgresql mysql sqlite mongodb redis oracle docker kubernetes aws azure gcp
    facebook twitter instagram youtube whatsapp telegram netflix spotify amazon microsoft google apple samsung tesla
    json xml csv yaml html css sql pdf jpg png mp3 mp4
"""
PLACES = words_of(_COUNTRIES + _CITIES + _TECHNOLOGIES)
QUESTIONS = words_of("who whom whose when where why how what which")
# Kinds of questions that may be put in other words: "what time" and "when", "what is the way to" and "how".
COMPATIBLE = frozenset(
    map(frozenset, (("what", "which"), ("what", "how"), ("which", "how"), ("what", "who"), ("which", "who"),
                    ("what", "when"), ("what", "where"), ("which", "where"), ("where", "how"), ("what", "quantity")))
)  # fmt: skip
# Said for politeness or grammar: a text with another of these, or without, asks the same.
EMPTY = words_of("""
    a an the is are was were be been being am do does did doing done have has had having i me my mine we us our you your
    it its this that these those there here of for and or but so if then as at by with about please could would can may
    will shall should might must tell know let get give want need like help show explain find out just really actually
    hi hello hey thanks thank ok okay well some any also too very much how what which when where who why whose whom
    i'm i'd i've i'll it's what's that's there's dont don't did way possible able trying try wondering wonder question
    kindly possibly exactly currently now still yet again already quite rather simply sure make made got going go
    he she they them his her their one ones ever even
""")
