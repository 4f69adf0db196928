"""Drawn names, such as Vitkon: a stem and an ending; and the stems that are kept for the test.

A stem is consonant, vowel, two consonants (`vitk`), an ending is vowel, consonant (`on`). A quarter
of the stems (`HELD_OUT`) begins the names of the cities of `test_unseen` and occurs in no other
name. Letters, pairs of letters and syllables are common to both: what is new in an unseen city is
its names, not their alphabet.

A byte-pair tokenizer that learned its pieces from the other words spells a name in letters and
pairs of letters, seen or unseen: names avoid `_PARTS_OF_WORDS`. No letter occurs twice in a name,
so each piece says which piece comes next. That makes copying learnable in few steps, and nothing
makes it guessable.
"""

from __future__ import annotations

import random
from functools import cache
from itertools import product, zip_longest

ONSETS = "bdfgjklmnprstvz"
VOWELS = "aiou"
CODAS = "lmnrstbd"
REFERENCE_LETTERS = "ACEQUWXY"  # no name begins with one of them

# What a tokenizer may have learned from ordinary words as one piece: pairs and syllables.
_FRAGMENTS = (
    "do fi gu jo la lo no ri so za "
    "ld ll lp mb nd ng nk ns nt rd rm rv sk ss st tr ts "
    "ban bad bar bus did din fas fin fir for fus gam gar gum jok kin lat lik lin liv los lun mak "
    "man mar min mis mod mon mor mov mus nam nin non not num piz ran rat rin ris rit riv run sam "
    "sat sin siv som sor sum sun tab tal tim tor tur "
    "bum damn kum natz pis"  # and what nobody is called
)
_PARTS_OF_WORDS = frozenset(_FRAGMENTS.split())


def _make_syllables() -> list[str]:
    """Returns the syllables consonant, vowel, consonant that are part of no ordinary word."""
    return [
        onset + vowel + coda
        for onset, vowel, coda in product(ONSETS, VOWELS, CODAS)
        if onset != coda and not {onset + vowel, onset + vowel + coda} & _PARTS_OF_WORDS
    ]


def _make_stems() -> tuple[list[str], list[str]]:
    """Returns the stems of training names and those held out, drawn once and for all."""
    stems = [
        syllable + onset
        for syllable, onset in product(SYLLABLES, ONSETS)
        if onset not in syllable and not {syllable[-1] + onset, syllable + onset} & _PARTS_OF_WORDS
    ]
    random.Random("stems").shuffle(stems)
    return stems[len(stems) // 4 :], stems[: len(stems) // 4]


SYLLABLES = _make_syllables()
SEEN, HELD_OUT = _make_stems()


@cache
def make_names(*, unseen: bool) -> tuple[str, ...]:
    """Returns all names of the held-out stems, or of all others, in an order drawn once.

    Neighbours differ in their stems: each stem has its first ending before one has its second.
    """
    rng = random.Random("names")
    columns = []
    for stem in HELD_OUT if unseen else SEEN:
        endings = [s[1:] for s in SYLLABLES if s[0] == stem[3] and not set(s[1:]) & set(stem)]
        rng.shuffle(endings)
        columns.append([f"{stem}{ending}".capitalize() for ending in endings])
    return tuple(name for row in zip_longest(*columns) for name in row if name)


def draw_reference(rng: random.Random, length: int) -> str:
    """Returns the reference of a booking: different capital letters, such as `QX`."""
    return "".join(rng.sample(REFERENCE_LETTERS, length))
