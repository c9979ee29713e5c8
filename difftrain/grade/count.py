r"""Grades a count: one whole number, exactly. Two numbers are no answer, nor is a hedge.

What may stand before the number is a list of plain words (`The answer is 7`); after it comes the
name of what was counted (`7 red circles`), unless a word there makes another number of it.
"""

import re
from fractions import Fraction
from itertools import pairwise

from difftrain.config.grade import GradeConfig
from difftrain.grade.text import normalize_number
from difftrain.records import Verdict

MAX_CHARS = 200
"""Characters beyond which an answer is not read."""

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_SPELT = {
    word: Fraction(value)
    for value, word in enumerate(
        _WORD.findall(
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
            "fifteen sixteen seventeen eighteen nineteen twenty"
        )
    )
} | {
    word: Fraction(10 * value)
    for value, word in enumerate(_WORD.findall("thirty forty fifty sixty seventy eighty ninety"), 3)
}
_DIGITS = re.compile(r"[0-9]+")
_CLAIM = re.compile(
    r"(?<![\w.,/^])[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?![\w%/^]|[.,][0-9])"
    rf"|(?<![\w'’])(?:{'|'.join(_SPELT)})(?![\w'’])",
    re.IGNORECASE,
)
"""A number in digits, or in one word."""
_OTHERS = re.compile(r"[^\w\s.,:;!?'’\"()\[\]{}*_`$\\=\-+]|[+\-]")
"""Signs that are no decoration: comparisons, ranges, a plus or minus that is not the number's."""
_WRAPPER = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|boxed)(?![a-zA-Z])")
_NAME = re.compile(r"\b[a-z]\s*(?:=|is\b)", re.IGNORECASE)
_COUNTED = re.compile(
    r"\b(?:number|count|total|amount) of (?P<what>.*?)(?P<end>\b(?:is|are|equals)\b|[:=])",
    re.IGNORECASE | re.DOTALL,
)
_BREAK = re.compile(r"[.,;:!(\[=\n]")
_MOST_WORDS = 10
_IS = {"is", "are", "was", "were", "equals"}
_PLAIN = _IS | set(
    _WORD.findall(
        "so the final correct right answer total count number amount of there there's that "
        "this these in a an it it's we i you my our see saw can counted counting found find "
        "have has had contains shows exactly precisely all altogether overall together "
        "picture image photo figure diagram scene shown visible present here which therefore "
        "thus hence result value only just and s answer's i've"
    )
)
"""Words that leave the number beside them what it is."""
_CHANGES = set(
    _WORD.findall(
        "not no none never neither nor or cannot without hardly barely scarcely than least "
        "most more less fewer over under above below about around approximately approx "
        "roughly nearly almost between maybe perhaps possibly probably either if unless "
        "except but otherwise instead rather wrong incorrect false untrue mistaken impossible "
        "too many few several some another others other half halves third thirds quarter "
        "quarters fourths fifths sixths sevenths eighths ninths tenths hundredths thousandths "
        "hundred hundreds thousand thousands million millions billion billions trillion "
        "trillions quadrillion lakh lakhs crore crores dozen dozens score gross pair pairs "
        "couple couples percent per minus plus times multiplied divided added subtracted "
        "doubled tripled twice thrice double triple squared cubed factorial power root mod "
        "modulo point short off missing up down guess could might may would should k m b g bn "
        "mn x e pi infinity"
    )
)
"""Words that make another number, or no claim, of the number before them."""


def _words(text: str) -> list[str]:
    return [word.lower().replace("’", "'") for word in _WORD.findall(text)]


def _value(claim: str) -> Fraction:
    word = claim.lower()
    return _SPELT[word] if word in _SPELT else Fraction(claim.replace(",", ""))


def _leads(text: str) -> bool:
    """Whether only plain words stand here, and what was counted (`the number of dots is`)."""
    what = [word for found in _COUNTED.finditer(text) for word in _words(found["what"])]
    if len(what) > _MOST_WORDS or not _names(what):
        return False
    rest = _NAME.sub(" ", _COUNTED.sub(" ", text))
    return all(word in _PLAIN for word in _words(rest))


def _names(words: list[str]) -> bool:
    """Whether these words can name what was counted."""
    if any(word in _CHANGES or word.endswith("n't") for word in words):
        return False
    said = next((place for place, word in enumerate(words) if word in _IS), len(words))
    return len(words) <= _MOST_WORDS and all(word in _PLAIN for word in words[said:])


def _plainly(text: str, claims: list[re.Match[str]]) -> bool:
    """Whether the words around the claims leave them the one answer."""
    if not _leads(text[: claims[0].start()]):
        return False
    named = [_words(text[claims[-1].end() :])]
    for one, two in pairwise(claims):
        gap = text[one.end() : two.start()]
        if not (mark := _BREAK.search(gap)) or not _leads(gap[mark.end() :]):
            return False
        named.append(_words(gap[: mark.start()]))
    # `7 cats, 7 dogs` are two counts.
    return all(map(_names, named)) and len({tuple(each) for each in named if each}) <= 1


def parse(said: str) -> Fraction | None:
    """The one number that is said, in digits or as a word to twenty or a ten; None otherwise.

    Plain words may stand around it ("There are 7 shapes.", "7 (seven)"), but none that make it
    another claim: "not 7", "all but 7", "7 or 8", "7+", "7 pairs" are no answer.
    """
    text = _WRAPPER.sub(" ", normalize_number(said))
    if len(text) > MAX_CHARS:
        return None
    claims = list(_CLAIM.finditer(text))
    whole = sum(len(_DIGITS.findall(found.group())) for found in claims)
    if not claims or whole != len(_DIGITS.findall(text)):
        # Digits outside the numbers (7/2, H2O, 7,8) leave open which number is meant.
        return None
    values = {_value(found.group()) for found in claims}
    if len(values) > 1 or _OTHERS.search(_CLAIM.sub(" ", text)) or not _plainly(text, claims):
        return None
    return values.pop()


def grade(
    said: str, gold: str, options: tuple[str, ...] = (), rules: GradeConfig | None = None
) -> Verdict:
    """Right if the one number said equals the gold."""
    number = parse(said)
    if number is None:
        return Verdict.unparsable
    return Verdict.correct if number == parse(gold) else Verdict.incorrect


def gold_problem(gold: str, options: tuple[str, ...] = ()) -> str | None:
    """Why this gold cannot be graded, or None."""
    number = parse(gold)
    if number is None:
        return f"{gold!r} is not one number"
    return None if number.denominator == 1 else f"{gold!r} is not a whole number"
