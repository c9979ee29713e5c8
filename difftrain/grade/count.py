r"""Grades a count. An answer must give exactly one number; `7 or 8` and `about 7` are unparsable.

Before the number, only words of a fixed list are allowed (`The answer is 7`). After it, the name of
the counted things is allowed (`7 red circles`), but no word that changes the number (`7 dozen`).
Parts may stand beside their total (`3 red and 4 blue, 7 in total`) if they add up to it.
"""

import re
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

from difftrain.config.difficulty import GradeConfig
from difftrain.grade.decision import GradeDecision
from difftrain.grade.layout import strip_explanation
from difftrain.grade.normalize import normalize_number
from difftrain.grade.number_words import chinese_value, english_to_digits

MAX_CHARS = 200  # longer answers are not parsed

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_CLAIM = re.compile(
    r"(?<![\w.,/^])[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?![\w%/^]|[.,][0-9])"
)
"""A number. A `claim` is one match of this pattern in an answer, after words became digits."""
_NUMBER_NOUN = re.compile(r"(?i)(?<![\w'’-])a (?:single(?= [a-z])|pair(?! of)|dozen)(?![\w'’])")
_NUMBER_NOUNS = {"single": "1", "pair": "2", "dozen": "12"}
_BLANK_THOUSANDS = re.compile(
    r"(?<![\w.,] )(?<![\w.,])[0-9]{1,3}(?:[ \u2009\u202f][0-9]{3})+(?![ ]?[\w.,]*[0-9])"
)
_CHANGING_CHARACTER = re.compile(r"[^\w\s.,:;!?'’\"()\[\]{}*_`$\\=\-+]|[+\-]")
"""Characters that change a number, such as <, ~, + and -. A claim includes its number's sign."""
_WRAPPER = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|boxed)(?![a-zA-Z])")
_VARIABLE = re.compile(r"(?i)\b[a-z]\s*(?:=|is\b)")  # as in `x = 7`
_COUNTED = re.compile(  # as in `the number of red cats is`
    r"(?is)\b(?:number|count|total|amount) of (?P<what>.*?)(?:\b(?:is|are|equals)\b|[:=])"
)
_BREAK = re.compile(r"[.,;:!(\[=\n]")  # ends the name of the counted things
_NAME_BEFORE = re.compile(r"(?i)\A\W*([a-z][a-z ]{0,40}?)\s*[:=]\s*[+-]?[0-9]")  # `dogs: 7`
_NO_NAME = (
    "estimate estimated minimum maximum min max question step page item version option confidence "
    "no error errors answers lie lies joke trap bait fake decoy distractor example examples eg "
    "instance sample hypothesis prior previous previously initial initially earlier first second "
    "old draft try attempt trial test task exercise problem hint note limit limits rating level "
    "grade section chapter figure line index id size age opposite nonsense mistake"
)
_NO_NAMES = {*_NO_NAME.split()}
_NONE = re.compile(
    r"(?i)(?:there (?:is|are) )?(?:none|no (?P<name>[a-z]+(?: [a-z]+){0,3}?))"
    r"(?: (?:here|visible|shown|present|at all|of them"
    r"|(?:visible |shown )?in (?:the|this)? ?(?:picture|image|photo|figure|scene|diagram)))*"
)
_UNCOUNTED = (
    "idea ideas answer answers way doubt doubts clue clues one more longer number numbers count "
    "dice problem problems less fewer other others need point use result results comment comments "
    "info information image picture photo figure diagram visual response responses reply thanks "
    "thank thankyou limit limits data objection objections preference access evidence text "
    "question questions change opinion solution context detail details mention matter sense "
    "worries chance hope match input output reason certainty confidence explanation hint rush "
    "difference deal good kidding cheating guarantee yes ok okay please sir sorry provided given "
    "attached available supplied uploaded"
)
_PRONOUN = "it there this that i we you the they these he she"
_PRONOUNS = {*_PRONOUN.split()}
_NOT_COUNTED = {*_UNCOUNTED.split()}
_TOTAL = re.compile(r"(?i)\b(?:in total|in all|altogether|total|overall|combined|sum)\b")
_SUM = re.compile(r"\s*([0-9]+(?:\s*\+\s*[0-9]+)+)\s*=\s*([0-9]+)(?P<name>[^0-9+=]*)")
_CHINESE = re.compile(
    r"(?:正确|最终)?(?:答案|总数|数量|个数)?(?:是|为|[:,])?\s*(?:图|图片|图像|画面|照片)?(?:中|里|上)?"
    r"(?:一共|总共|共计|总计|合计|共)?(?:可以看到|看到)?(?:有|是|为)?\s*"
    r"(?P<number>[0-9]{1,9}|[零〇一二两三四五六七八九十百千]+)\s*"
    r"(?:[个個只隻条條头頭匹张張把本辆輛颗顆朵棵株座位名人枚块塊片件台臺支根艘架間间栋种種개]"
    r"(?P<name>[\u4e00-\u9fff]{0,8}))?[。.!]?"
)
_CHINESE_NONE = re.compile("(?:没有|沒有|一个也没有|一个都没有)[。.]?")
_CHINESE_CHANGING = set("不没非或至多少半余以上下左右约几和与加减乘除对双打倍")
_EMOJI = re.compile("[\u2600-\u27bf\U0001f300-\U0001faff\ufe0f]")
_DENYING_EMOJI = set("❌✖✗✘❎🚫⛔👎❓❔🔟💯🤔🤷")
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
    "each tens doz dz mil grand binary negative removed excluding excluded apart aside nope nah jk "
    "kidding lie joke scratch ignore oops knows whatever "
    "off missing up down guess could might may would should k m b g bn mn x e pi infinity"
)
_CHANGING_WORDS = {*_CHANGING.split()}


def _words(text: str) -> list[str]:
    return [word.lower().replace("’", "'") for word in _WORD.findall(text)]


def _is_name_before(text: str) -> bool:
    """Whether the text is `NAME:` and a number, where NAME is what is counted."""
    match = _NAME_BEFORE.match(text)
    words = _words(match[1]) if match else []
    return 0 < len(words) <= 4 and _is_counted_name(words) and not _NO_NAMES.intersection(words)


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
    if not _is_neutral(text[: claims[0].start()]) and not _is_name_before(text):
        return False
    names = [_words(text[claims[-1].end() :])]  # what each claim counts, in words
    for left, right in pairwise(claims):
        between = text[left.end() : right.start()]
        if not (boundary := _BREAK.search(between)) or not _is_neutral(between[boundary.end() :]):
            return False
        names.append(_words(between[: boundary.start()]))
    # `7 cats, 7 dogs` are two counts.
    return all(map(_is_counted_name, names)) and len({tuple(name) for name in names if name}) <= 1


def _total(text: str, claims: list[re.Match[str]]) -> Fraction | None:
    """The total that an answer gives beside its parts, if the parts add up to it; else None.

    The total is marked (`7 in total`), or comes first (`7 dogs: 3 black and 4 brown`).
    """
    if len(claims) < 3 or _CHANGING_WORDS.intersection(_words(text)):
        return None
    if _CHANGING_CHARACTER.search(_CLAIM.sub(" ", text)):
        return None
    values = [Fraction(claim[0].replace(",", "")) for claim in claims]
    if min(values) < 0:
        return None
    after_first = text[claims[0].end() : claims[1].start()]
    if values[0] == sum(values[1:]) and re.search("[(:]", after_first):
        return values[0]
    total = max(values)
    is_sum = 2 * total == sum(values) and values.count(total) == 1
    return total if is_sum and _TOTAL.search(text) else None


def _sum_with_result(text: str) -> Fraction | None:
    """The result of `3 + 4 = 7`, if it is correct."""
    match = _SUM.fullmatch(text.strip(" .$*"))
    if match is None or not _is_counted_name(_words(match["name"])):
        return None
    parts = [int(part) for part in match[1].split("+")]
    return Fraction(match[2]) if sum(parts) == int(match[2]) else None


def _is_none(text: str) -> bool:
    """Whether an answer says that nothing is there: `none`, `There are no dogs`."""
    match = _NONE.fullmatch(text.strip(" .*!"))
    if match is None:
        return _CHINESE_NONE.fullmatch(text.strip()) is not None
    words = _words(match["name"] or "")
    if _PRONOUNS.intersection(words[:1]):  # `no, it is`
        return False
    return _is_counted_name(words) and not _NOT_COUNTED.intersection(words)


def _chinese_count(text: str) -> Fraction | None:
    """The number of `一共5个`, `五只猫`; None for a text in another form, or about `五六个`."""
    match = _CHINESE.fullmatch(text.strip(" *"))
    if match is None or _CHINESE_CHANGING.intersection(match["name"] or ""):
        return None
    number = match["number"]
    value = int(number) if number[0].isascii() else chinese_value(number)
    return None if value is None else Fraction(value)


def _prepared(answer: str) -> str:
    """The answer without layout and explanation, with digits for English number words."""
    text = normalize_number(strip_explanation(_WRAPPER.sub(" ", answer)))
    text = _EMOJI.sub(lambda match: match[0] if match[0] in _DENYING_EMOJI else "", text)
    text = _NUMBER_NOUN.sub(lambda match: _NUMBER_NOUNS[match[0][2:].lower()], text)
    text = _BLANK_THOUSANDS.sub(lambda match: re.sub(r"\s", "", match[0]), text)
    return english_to_digits(text).strip()


def parse(answer: str) -> Fraction | None:
    """The only number of an answer, in digits or in English or Chinese words, below a million.

    Neutral words around it are allowed ("There are 7 shapes.", "7 (seven)"), and parts that add up
    to it. None if words or signs change the number: "not 7", "all but 7", "7 or 8", "7 pairs".
    """
    if len(answer) > 4 * MAX_CHARS:
        return None
    text = _prepared(answer)
    if len(text) > MAX_CHARS:
        return None
    if _is_none(text):
        return Fraction(0)
    if not text.isascii() and (count := _chinese_count(text)) is not None:
        return count
    claims = list(_CLAIM.finditer(text))
    rest = _CLAIM.sub(" ", text)
    # Other digits (7/2, H2O, 7,8) make it unclear which number is meant.
    if not claims or re.search("[0-9]", rest):
        return None
    values = {Fraction(claim[0].replace(",", "")) for claim in claims}
    if len(values) > 1:
        return _total(text, claims) or _sum_with_result(text)
    if _CHANGING_CHARACTER.search(rest) or not _is_one_answer(text, claims):
        return None
    return values.pop()


@lru_cache(maxsize=4096)
def _parsed_gold(gold: str) -> Fraction | None:
    return parse(gold)


def decide(answer: str, gold: str, options: tuple[str, ...], rules: GradeConfig) -> GradeDecision:
    """1 if the only number of the answer equals the gold answer, else 0."""
    number, gold_number = parse(answer), _parsed_gold(gold)
    if number is None:
        return GradeDecision(None, None, str(gold_number), "gives no single number")
    return GradeDecision(float(number == gold_number), str(number), str(gold_number), "count")


def gold_problem(gold: str, options: tuple[str, ...]) -> str | None:
    """Why the gold answer is not a whole number, or None."""
    number = _parsed_gold(gold)
    if number is None:
        return f"{gold!r} is not one number"
    return None if number.denominator == 1 else f"{gold!r} is not a whole number"
