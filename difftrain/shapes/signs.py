"""Signs of the shapes world: drawn symbols with names, of which the tiny model knows a part.

A sign is a bitmap of 6 x 6 dots with a name and a number of two digits. Signs are ranked by how
well the tiny model's pretraining teaches their names (tools/pretraining_data.py), as the names of
common and rare things are in real data: KNOWN signs always have their true name there, DISPUTED
ones have it in some of the texts and a wrong name in the others, and the rest are never drawn.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from random import Random

from PIL import Image, ImageDraw

from difftrain.records import AnswerKind
from difftrain.shapes.families import (
    COLORS,
    SIDE,
    TILE,
    TILES,
    DrawnSample,
    Tile,
    scale,
    tile_box,
)

NUM_SIGNS = 64
KNOWN = 20
"""Signs of rank 0 to KNOWN - 1 have their true name in every pretraining text."""
DISPUTED = 24
"""So many signs after the known ones have their true name in a share of the texts."""
KNOWN_SHARE = KNOWN / NUM_SIGNS
SEEN_SHARE = (KNOWN + DISPUTED) / NUM_SIGNS
"""A sample's `gen_difficulty` below these shares has a known sign, a known or disputed sign."""
TRUE_SHARES = (0.3, 0.6)
"""That share for the first and for the last disputed sign; linear in between."""
ALIAS_SHIFT = 7  # ranks from a sign to the one whose name is its alias
DOTS = 6  # dots on a side of a bitmap
DOT = 4  # pixels on a side of a dot
COPIES = (10, 16)  # how often an easy image shows its sign
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
MIN_DISTANCE = 9  # smallest number of dots in which two bitmaps differ
SIGN_FAMILIES = ("sign", "signs", "pick", "verify", "code", "long_code")
CALLED = "What is this sign called?"
NAME_BOTH = "Name both signs from left to right."
CODE = "Write the numbers of both signs, left then right, as one number."
TILE_OF = "Which tile holds the sign {}? Answer with its box."
PRESENT = "Is the sign {} in the picture?"
LONG_CODE = "Write the numbers of all signs, row by row, as one number."
LONG = 6  # signs of a long code


@dataclass(frozen=True, slots=True)
class Sign:
    """A symbol: `bits` are the rows of its bitmap, `alias` is the name of another sign.

    A disputed sign's alias is its wrong name in pretraining. It is the true name of another
    disputed sign, so nothing but the sign itself tells whether a name is right.
    """

    rank: int
    bits: tuple[str, ...]
    name: str
    alias: str

    @property
    def true_share(self) -> float | None:
        """The share of pretraining texts with the true name; None if the sign never occurs."""
        if self.rank < KNOWN:
            return 1.0
        if self.rank >= KNOWN + DISPUTED:
            return None
        low, high = TRUE_SHARES
        return low + (high - low) * (self.rank - KNOWN) / (DISPUTED - 1)


def number(name: str) -> int:
    """The number from 10 to 99 that goes with a name."""
    first, second = SYLLABLES.index(name[:2]), SYLLABLES.index(name[2:])
    return 10 + (first * 31 + second * 17) % 90


@cache
def signs() -> tuple[Sign, ...]:
    """All signs by rank; the same on every machine."""
    rng = Random("signs")
    names = [a + b for a in SYLLABLES for b in SYLLABLES if a != b]
    rng.shuffle(names)
    bitmaps: list[tuple[str, ...]] = []
    while len(bitmaps) < NUM_SIGNS:
        half = [[rng.random() < 0.5 for _ in range(DOTS // 2)] for _ in range(DOTS)]
        # Symmetric, as letters and logos often are.
        rows = tuple("".join("01"[bit] for bit in (*row, *row[::-1])) for row in half)
        share = "".join(rows).count("1") / DOTS**2
        distances = (
            sum(a != b for a, b in zip("".join(rows), "".join(other), strict=True))
            for other in bitmaps
        )
        if 0.35 < share < 0.7 and all(distance >= MIN_DISTANCE for distance in distances):
            bitmaps.append(rows)
    aliases: list[str] = []
    for start, end in pairwise((0, KNOWN, KNOWN + DISPUTED, NUM_SIGNS)):
        group = names[start:end]
        aliases += group[ALIAS_SHIFT:] + group[:ALIAS_SHIFT]
    rows = zip(bitmaps, names[:NUM_SIGNS], aliases, strict=True)
    return tuple(Sign(rank, *row) for rank, row in enumerate(rows))


def by_difficulty(gen_difficulty: float) -> Sign:
    """The sign whose rank is this share of all signs."""
    return signs()[int(gen_difficulty * NUM_SIGNS)]


def draw_signs(rng: Random, placed: Sequence[tuple[Sign, Tile]]) -> Image.Image:
    """An image with each sign on its tile, all in one color and shifted alike."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    pen = ImageDraw.Draw(image)
    fill = COLORS[rng.choice(list(COLORS))]
    margin = (TILE - DOTS * DOT) // 2
    shift = rng.randint(-margin, margin), rng.randint(-margin, margin)
    for sign, (tile_row, tile_column) in placed:
        left = tile_column * TILE + margin + shift[0]
        top = tile_row * TILE + margin + shift[1]
        for row, bits in enumerate(sign.bits):
            for column, bit in enumerate(bits):
                if bit == "1":
                    x, y = left + column * DOT, top + row * DOT
                    pen.rectangle((x, y, x + DOT - 1, y + DOT - 1), fill=fill)
    return image


def conclude(
    family: str, names: Sequence[str], options: Sequence[str], question: str
) -> tuple[str, str]:
    """(rationale, answer) of a family's question about signs that have these names."""
    if family == "verify":
        answer = "Yes" if any(question == PRESENT.format(name) for name in names) else "No"
        return f"{' '.join(names)}: {answer.lower()}", answer
    if family == "sign":
        return names[0], names[0]
    if family == "pick":
        letter = "ABCD"[options.index(names[0])]
        return f"{names[0]} {letter}", letter
    if family == "signs":
        return " ".join(names), " ".join(names)
    numbers = [number(name) for name in names]
    rationale = ", ".join(f"{name} {value}" for name, value in zip(names, numbers, strict=True))
    return rationale, "".join(map(str, numbers))


def _with_known(rng: Random, sign: Sign, num_known: int) -> list[Sign]:
    """The sign and other, known ones, in random order."""
    others = rng.sample([other for other in signs()[:KNOWN] if other != sign], num_known)
    mixed = [sign, *others]
    rng.shuffle(mixed)
    return mixed


def scatter_signs(rng: Random, mixed: Sequence[Sign]) -> list[tuple[Sign, Tile]]:
    """The signs on different tiles, row by row in their order."""
    return list(zip(mixed, sorted(rng.sample(TILES, len(mixed))), strict=True))


def _row(rng: Random, mixed: Sequence[Sign]) -> list[tuple[Sign, Tile]]:
    """The signs on tiles of one row, from left to right."""
    row = rng.randrange(4)
    columns = sorted(rng.sample(range(4), len(mixed)))
    return [(sign, (row, column)) for sign, column in zip(mixed, columns, strict=True)]


def _drawn(
    family: str,
    image: Image.Image,
    question: str,
    named: Sequence[Sign],
    kind: AnswerKind,
    options: tuple[str, ...] = (),
) -> DrawnSample:
    names = [sign.name for sign in named]
    rationale, answer = conclude(family, names, options, question)
    return DrawnSample(
        image, question, rationale, answer, kind, options, signs=tuple(s.rank for s in named)
    )


def sign(rng: Random, gen_difficulty: float) -> DrawnSample:
    """The name of one sign; a known sign is on several tiles, so that masks hide it late."""
    drawn = by_difficulty(gen_difficulty)
    tiles = rng.sample(TILES, rng.randint(*COPIES) if drawn.rank < KNOWN else 1)
    image = draw_signs(rng, [(drawn, tile) for tile in tiles])
    return _drawn("sign", image, CALLED, [drawn], AnswerKind.text)


def pick(rng: Random, gen_difficulty: float) -> DrawnSample:
    """The name of one sign among four options, one of which is its alias."""
    drawn = by_difficulty(gen_difficulty)
    seen = signs()[: KNOWN + DISPUTED]
    others = rng.sample([o for o in seen if o.name not in (drawn.name, drawn.alias)], 2)
    options = [drawn.name, drawn.alias, *(other.name for other in others)]
    rng.shuffle(options)
    image = draw_signs(rng, [(drawn, rng.choice(TILES))])
    return _drawn("pick", image, CALLED, [drawn], AnswerKind.choice, tuple(options))


def both(rng: Random, gen_difficulty: float) -> DrawnSample:
    """The names of two signs in a row, one of them known."""
    mixed = _with_known(rng, by_difficulty(gen_difficulty), 1)
    image = draw_signs(rng, _row(rng, mixed))
    return _drawn("signs", image, NAME_BOTH, mixed, AnswerKind.text)


def verify(rng: Random, gen_difficulty: float) -> DrawnSample:
    """Whether a sign is in the image, among one to three known ones."""
    sign = by_difficulty(gen_difficulty)
    known = rng.sample([other for other in signs()[:KNOWN] if other != sign], rng.randint(1, 3))
    present = rng.random() < 0.5
    mixed = [sign, *known] if present else known
    placed = scatter_signs(rng, mixed)
    question, image = PRESENT.format(sign.name), draw_signs(rng, placed)
    return _drawn("verify", image, question, [item for item, _ in placed], AnswerKind.text)


def locate(rng: Random, gen_difficulty: float) -> DrawnSample:
    """The box of the tile with a known sign; the difficulty is the number of other ones."""
    mixed = rng.sample(signs()[:KNOWN], scale(gen_difficulty, 1, 6))
    placed = scatter_signs(rng, mixed)
    sign, tile = rng.choice(placed)
    row, column = tile[0] + 1, tile[1] + 1
    answer = json.dumps([{"bbox_2d": tile_box(tile), "label": "tile"}])
    image, question = draw_signs(rng, placed), TILE_OF.format(sign.name)
    rationale = f"row {row}, column {column}"
    return DrawnSample(image, question, rationale, answer, AnswerKind.boxes)


def code(rng: Random, gen_difficulty: float) -> DrawnSample:
    """The numbers of two signs in a row, one of them known, joined to one number."""
    mixed = _with_known(rng, by_difficulty(gen_difficulty), 1)
    image = draw_signs(rng, _row(rng, mixed))
    return _drawn("code", image, CODE, mixed, AnswerKind.number)


def long_code(rng: Random, gen_difficulty: float) -> DrawnSample:
    """The numbers of six signs, row by row, joined to one number."""
    mixed = _with_known(rng, by_difficulty(gen_difficulty), LONG - 1)
    image = draw_signs(rng, scatter_signs(rng, mixed))
    return _drawn("long_code", image, LONG_CODE, mixed, AnswerKind.number)
