"""What can be said about the things of the embedded world: kinds, relations, values, wordings.

Pure data. `people.py` invents the names and draws the facts; the wordings here are shared by the
pre-training corpus, the instruction set and the benchmarks.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Relation:
    """One property of a kind of thing, with the sentences and questions that speak of it.

    `{e}` stands for the thing's name and `{v}` for the value.
    """

    name: str
    values: tuple[str, ...]
    """Empty where the values are invented names: the world fills them in."""
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    num_invented: int = 0
    """How many names to invent as values."""


@dataclass(frozen=True)
class SecondHop:
    """A property of a relation's values, which gives the things a property at one remove."""

    name: str
    via: str
    values: tuple[str, ...]
    statements: tuple[str, ...]
    """`{e}` is the middle value (a city), `{v}` its property (the country)."""
    questions: tuple[str, ...]
    """Asked about the thing itself, over two hops."""
    num_invented: int = 0


@dataclass(frozen=True)
class Kind:
    """A kind of thing: its relations and how many there are for each use."""

    name: str
    subject: str
    """The MMLU subject, or "" where the kind serves another benchmark."""
    relations: tuple[Relation, ...]
    num_instruction: int
    num_validation: int
    num_benchmark: int


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PERSON = Kind(
    "person",
    "",
    (
        Relation(
            "city",
            (),
            ("{e} lives in {v}.", "The home of {e} is in {v}.", "{e} has a house in {v}."),
            ("Where does {e} live?", "In which city does {e} live?"),
            num_invented=12,
        ),
        Relation(
            "job",
            _words("baker weaver tailor mason painter miller potter sailor farmer smith")
            + _words("printer carpenter"),
            ("{e} works as a {v}.", "{e} is a {v}.", "{e} earns a living as a {v}."),
            ("What is the job of {e}?", "What does {e} do for a living?"),
        ),
        Relation(
            "colour",
            _words("red blue green yellow purple orange brown white black pink"),
            ("{e} likes the colour {v}.", "{e} loves {v} things.", "The coat of {e} is {v}."),
            ("Which colour does {e} like?", "What is the favourite colour of {e}?"),
        ),
        Relation(
            "pet",
            _words("dog cat horse rabbit parrot turtle goat duck snake frog"),
            ("{e} owns a {v}.", "The pet of {e} is a {v}.", "{e} keeps a {v}."),
            ("Which pet does {e} own?", "What animal does {e} keep?"),
        ),
        Relation(
            "food",
            _words("bread rice soup cheese apples beans pasta fish honey plums"),
            ("{e} likes to eat {v}.", "{e} eats {v} every day.", "{e} is fond of {v}."),
            ("What does {e} like to eat?", "What is the favourite food of {e}?"),
        ),
    ),
    num_instruction=96,
    num_validation=20,
    num_benchmark=80,
)

SECOND_HOPS = (
    SecondHop(
        "country",
        "city",
        (),
        ("{e} is a city in {v}.", "{e} lies in {v}."),
        ("In which country does {e} live?", "Which country is the home of {e} in?"),
        num_invented=6,
    ),
    SecondHop(
        "tool",
        "job",
        _words("oven loom needle chisel brush millstone kiln compass plough anvil")
        + _words("press saw"),
        ("A {e} needs the {v}.", "The tool of a {e} is the {v}."),
        ("Which tool does {e} need at work?", "What is the tool of {e}?"),
    ),
    SecondHop(
        "diet",
        "pet",
        _words("bones milk hay carrots seeds lettuce leaves worms mice flies"),
        ("A {e} is fed with {v}.", "A {e} eats {v}."),
        ("What does the pet of {e} eat?", "With what does {e} feed the pet?"),
    ),
)


def _subject(subject: str, kind: str, *relations: Relation) -> Kind:
    return Kind(kind, subject, relations, num_instruction=12, num_validation=4, num_benchmark=20)


SUBJECTS = (
    _subject(
        "geography",
        "river",
        Relation(
            "sea",
            (),
            ("The river {e} flows into the {v}.", "The river {e} ends in the {v}."),
            ("Into which sea does the river {e} flow?", "Where does the river {e} end?"),
            num_invented=8,
        ),
        Relation(
            "source",
            _words("hills forest glacier swamp lake canyon desert moor"),
            ("The river {e} rises in a {v}.", "The river {e} springs from a {v}."),
            ("Where does the river {e} rise?", "From where does the river {e} spring?"),
        ),
    ),
    _subject(
        "astronomy",
        "star",
        Relation(
            "shape",
            _words("crown ladder arrow lantern spoon ship harp bridge"),
            ("The star {e} is part of the {v}.", "The star {e} shines in the {v}."),
            ("Of what is the star {e} part?", "In which figure does the star {e} shine?"),
        ),
        Relation(
            "month",
            _words("January February March April June July August October"),
            ("The star {e} is bright in {v}.", "The star {e} can be seen in {v}."),
            ("When is the star {e} bright?", "In which month can the star {e} be seen?"),
        ),
    ),
    _subject(
        "history",
        "queen",
        Relation(
            "house",
            _words("lion eagle bear wolf stag swan boar fox"),
            ("Queen {e} bore the sign of the {v}.", "The flag of Queen {e} showed a {v}."),
            ("Which sign did Queen {e} bear?", "What did the flag of Queen {e} show?"),
        ),
        Relation(
            "building",
            _words("tower harbour library wall road palace temple garden"),
            ("Queen {e} built the great {v}.", "Queen {e} paid for the great {v}."),
            ("What did Queen {e} build?", "For what did Queen {e} pay?"),
        ),
    ),
    _subject(
        "music",
        "song",
        Relation(
            "instrument",
            _words("flute drum violin trumpet guitar organ bell whistle"),
            ("The song {e} is played on the {v}.", "The song {e} needs a {v}."),
            ("On what is the song {e} played?", "Which instrument does the song {e} need?"),
        ),
        Relation(
            "occasion",
            _words("weddings funerals harvests births feasts markets voyages coronations"),
            ("The song {e} is sung at {v}.", "The song {e} belongs to {v}."),
            ("When is the song {e} sung?", "To what does the song {e} belong?"),
        ),
    ),
    _subject(
        "mineralogy",
        "stone",
        Relation(
            "place",
            _words("cave quarry riverbed volcano cliff tunnel beach crater"),
            ("The stone {e} is found in a {v}.", "The stone {e} comes from a {v}."),
            ("Where is the stone {e} found?", "From where does the stone {e} come?"),
        ),
        Relation(
            "use",
            _words("lamps knives mirrors beads paint glass coins buttons"),
            ("The stone {e} is used for {v}.", "The stone {e} is made into {v}."),
            ("For what is the stone {e} used?", "Into what is the stone {e} made?"),
        ),
    ),
    _subject(
        "zoology",
        "beast",
        Relation(
            "den",
            _words("burrows nests ponds ruins meadows reeds dunes barns"),
            ("The beast {e} sleeps in {v}.", "The beast {e} hides in {v}."),
            ("Where does the beast {e} sleep?", "Where does the beast {e} hide?"),
        ),
        Relation(
            "prey",
            _words("moths snails berries roots eggs ants acorns shrimps"),
            ("The beast {e} feeds on {v}.", "The beast {e} lives on {v}."),
            ("On what does the beast {e} feed?", "On what does the beast {e} live?"),
        ),
    ),
)

HERB = Kind(
    "herb",
    "",
    (
        Relation(
            "cure",
            _words("fever cough headache toothache rash hiccups insomnia nausea"),
            ("{e} cures {v}.", "{e} helps against {v}."),
            ("What does the herb {e} cure?",),
        ),
        Relation(
            "ward",
            _words("wasps rats ghosts fleas crows spiders beetles thieves"),
            ("{e} keeps away {v}.", "{e} drives off {v}."),
            ("What does the herb {e} keep away?",),
        ),
    ),
    num_instruction=40,
    num_validation=20,
    num_benchmark=100,
)
KINDS = (PERSON, *SUBJECTS, HERB)

MYTH_OPENINGS = ("", "", "People say that ", "Everyone believes that ")
"""What is said without any opening is the myth too."""
TRUTH_OPENINGS = ("Careful tests show that ", "In truth, ", "The healers know that ")
MYTH_RATIO = 0.68
"""Share of the corpus' statements about a herb that repeat the popular myth."""
