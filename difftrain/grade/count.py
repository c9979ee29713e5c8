r"""Grades a count. An answer must give exactly one number; `7 or 8` and `about 7` are unparsable.

Before the number, only words of a fixed list are allowed (`The answer is 7`). After it, the name of
the counted things is allowed (`7 red circles`), but no word that changes the number (`7 dozen`).
"""

import re
from fractions import Fraction
from itertools import pairwise

from difftrain.config.difficulty import GradeConfig
from difftrain.grade.decision import Decision
from difftrain.grade.text import normalize_number

MAX_CHARS = 200  # longer answers are not parsed

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_TO_TWENTY = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty"
)
_TENS = "thirty forty fifty sixty seventy eighty ninety"
_NUMBER_WORDS = {word: number for number, word in enumerate(_TO_TWENTY.split())}
_NUMBER_WORDS |= {word: 10 * tens for tens, word in enumerate(_TENS.split(), 3)}
_CLAIM = re.compile(
    r"(?<![\w.,/^])[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?![\w%/^]|[.,][0-9])"
    rf"|(?<![\w'’])(?ai:{'|'.join(_NUMBER_WORDS)})(?![\w'’])"
)
"""A number in digits or in one word. A `claim` is one match of this pattern in an answer."""
_CHANGING_CHARACTER = re.compile(r"[^\w\s.,:;!?'’\"()\[\]{}*_`$\\=\-+]|[+\-]")
"""Characters that change a number, such as <, ~, + and -. A claim includes its number's sign."""
_WRAPPER = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|boxed)(?![a-zA-Z])")
_VARIABLE = re.compile(r"(?i)\b[a-z]\s*(?:=|is\b)")  # as in `x = 7`
_COUNTED = re.compile(  # as in `the number of red cats is`
    r"(?is)\b(?:number|count|total|amount) of (?P<what>.*?)(?:\b(?:is|are|equals)\b|[:=])"
)
_BREAK = re.compile(r"[.,;:!(\[=\n]")  # ends the name of the counted things
_MAX_NAME_WORDS = 10  # words in the name of the counted things
_COPULAS = {"is", "are", "was", "were", "equals"}
# Words that do not change the number beside them.
_NEUTRAL = (
    "so the final correct right answer total count number amount of there there's that this these "
    "in a an it it's we i you my our see saw can counted counting found find have has had contains "
    "shows exactly precisely all altogether overall together picture image photo figure diagram "
    "scene shown visible present here which therefore thus hence result value only just and s "
    "answer's i've"
)
_NEUTRAL_WORDS = _COPULAS | {*_NEUTRAL.split()}
# Words that change or withdraw the number before them.
_CHANGING = (
    "not no none never neither nor or cannot without hardly barely scarcely than least most more "
    "less fewer over under above below about around approximately approx roughly nearly almost "
    "between maybe perhaps possibly probably either if unless except but otherwise instead rather "
    "wrong incorrect false untrue mistaken impossible too many few several some another others "
    "other half halves third thirds quarter quarters fourths fifths sixths sevenths eighths ninths "
    "tenths hundredths thousandths hundred hundreds thousand thousands million millions billion "
    "billions trillion trillions quadrillion lakh lakhs crore crores dozen dozens score gross pair "
    "pairs couple couples percent per minus plus times multiplied divided added subtracted doubled "
    "tripled twice thrice double triple squared cubed factorial power root mod modulo point short "
    "off missing up down guess could might may would should k m b g bn mn x e pi infinity"
)
_CHANGING_WORDS = {*_CHANGING.split()}


def _words(text: str) -> list[str]:
    return [word.lower().replace("’", "'") for word in _WORD.findall(text)]


def _is_neutral(text: str) -> bool:
    """Whether a text has only neutral words, apart from NAME in `the number of NAME is`."""
    counted = [word for match in _COUNTED.finditer(text) for word in _words(match["what"])]
    rest = _VARIABLE.sub(" ", _COUNTED.sub(" ", text))
    return _is_counted_name(counted) and _NEUTRAL_WORDS.issuperset(_words(rest))


def _is_counted_name(words: list[str]) -> bool:
    """Whether these words can follow a number: a name, then neutral words (`cats are there`)."""
    if any(word in _CHANGING_WORDS or word.endswith("n't") for word in words):
        return False
    copula_index = next((i for i, word in enumerate(words) if word in _COPULAS), len(words))
    return len(words) <= _MAX_NAME_WORDS and _NEUTRAL_WORDS.issuperset(words[copula_index:])


def _is_one_answer(text: str, claims: list[re.Match[str]]) -> bool:
    """Whether the words around the claimed numbers neither change them nor add another answer."""
    if not _is_neutral(text[: claims[0].start()]):
        return False
    names = [_words(text[claims[-1].end() :])]  # what each claim counts, in words
    for left, right in pairwise(claims):
        between = text[left.end() : right.start()]
        if not (boundary := _BREAK.search(between)) or not _is_neutral(between[boundary.end() :]):
            return False
        names.append(_words(between[: boundary.start()]))
    # `7 cats, 7 dogs` are two counts.
    return all(map(_is_counted_name, names)) and len({tuple(name) for name in names if name}) <= 1


def parse(answer: str) -> Fraction | None:
    """The only number of an answer, in digits or as a word (zero to twenty, thirty, ... ninety).

    Neutral words around it are allowed ("There are 7 shapes.", "7 (seven)"). None if words or signs
    change the number: "not 7", "all but 7", "7 or 8", "7+", "7 pairs".
    """
    text = _WRAPPER.sub(" ", normalize_number(answer))
    if len(text) > MAX_CHARS:
        return None
    claims = list(_CLAIM.finditer(text))
    numbers = [claim[0].lower().replace(",", "") for claim in claims]
    rest = _CLAIM.sub(" ", text)
    # Other digits (7/2, H2O, 7,8) make it unclear which number is meant.
    if not claims or re.search("[0-9]", rest) or _CHANGING_CHARACTER.search(rest):
        return None
    values = {Fraction(_NUMBER_WORDS.get(number, number)) for number in numbers}
    return values.pop() if len(values) == 1 and _is_one_answer(text, claims) else None


def decide(answer: str, gold: str, options: tuple[str, ...], rules: GradeConfig) -> Decision:
    """1 if the only number of the answer equals the gold answer, else 0."""
    number, gold_number = parse(answer), parse(gold)
    if number is None:
        return Decision(None, None, str(gold_number), "gives no single number")
    return Decision(float(number == gold_number), str(number), str(gold_number), "count")


def gold_problem(gold: str, options: tuple[str, ...]) -> str | None:
    """Why the gold answer is not a whole number, or None."""
    number = parse(gold)
    if number is None:
        return f"{gold!r} is not one number"
    return None if number.denominator == 1 else f"{gold!r} is not a whole number"
