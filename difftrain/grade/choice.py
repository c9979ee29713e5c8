"""Grades a choice: the answer is an option's letter, as in `**(B)**`, or an option's text.

A letter may have its option's text beside it, also paraphrased or cut (`B. the blue one`), or a
sentence. It must not have another option's text or letter, a denial or a doubt.
"""

import re
import unicodedata
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import compress, takewhile
from string import ascii_uppercase as LETTERS
from typing import NamedTuple

from difftrain.config.difficulty import GradeConfig
from difftrain.grade import layout, values
from difftrain.grade.decision import GradeDecision
from difftrain.grade.normalize import normalize_text
from difftrain.grade.number_words import english_to_digits
from difftrain.grade.same_text import without_layout

MAX_CHARS = 2_000  # longer answers are not parsed

_DECORATION = "*_`\"'“”‘’$#> \t\n.,:;!?。、【】"
_MATHS_MARKS = re.compile(r"\\[()\[\]]|\$(?=[^$]*\$)|(?<=[\w})])\$(?=\s)")
_JSON = re.compile(  # {"choice": "B"}, as some benchmarks ask for
    r"(?is)\A(?:[a-z]+[!.:,]\s*)?(?:```(?:json)?)?\s*"
    r"\{\s*\"(?:choice|option|letter)\"\s*:\s*\"(?P<text>[^\"]*)\"\s*\}\s*(?:```)?\Z"
)
_LEAD = re.compile(  # as in `So the answer is B`
    r"(?i)\A(?:(?:so|thus|therefore|hence),? )?(?:the |my |i choose |i pick |it is |it's )?"
    r"(?:(?:final|correct|right|best) )?(?:(?:answer|option|choice|letter)\b(?: is\b)?)?[:\s]*"
)
_WORDY_LEAD = re.compile(
    r"(?i)\A(?:(?:so|thus|therefore|hence),? )?(?:i(?:'d|'ll)? (?:think|believe"
    r"|(?:would |will )?(?:choose|pick|select|go (?:for|with)|say))(?: that)? ?"
    r"(?:it's |it is |the answer is )?"
    r"|(?:for sure|definitely|clearly|certainly|should be|must be|ans)\b[,.:\s]+"
    r"|(?:la |le |el |die |a )?(?:bonne |richtige )?(?:réponse|respuesta|antwort|risposta|resposta)"
    r"(?: (?:correcta|corretta))?\b(?: (?:est|es|ist|è|é)\b)?[:\s]*)"
)
_BULLET = re.compile(r"\A[-–] (?!\W*\d)")  # not the sign of `- 5`
_CHINESE_LEAD = re.compile(
    r"\A(?:因此|所以|故|综上)?,?我?(?:正确|最终)?(?:答案|选项|选择|应选|选)(?:应该|应)?(?:是|为|选)?"
    r"[:\s]*(?:选项)?"
)
_CONSIDERED = re.compile(
    r"\A(?:I|We) (?:first |initially )?(?:considered|thought of|ruled out|rejected|eliminated) "
    r"[A-Z](?:(?: and|,) [A-Z])*, but "
)
_DENIED_LETTERS = re.compile(
    r"[\s,.;。]+(?:(?:because |as |since |and )?(?:it )?(?:can't|cannot|can not) be"
    r"|(?:and )?not|non"
    r"|(?:because |as |since )?(?:it |this )(?:isn't|is not)|it doesn't make sense for it to be"
    r"|rather than|instead of|nicht|no es)"
    r" (?P<letters>[A-Z](?:(?:,| or| nor| and|, or) [A-Z])*)\Z"
    r"|[\s,.;。]*不(?:可能)?是\s*(?P<chinese>[A-Z])\Z"
)
_TAIL = re.compile(  # as in `B is the correct answer`
    r"(?i)\s+is\s+(?:the\s+)?(?:correct|right|best|answer)(?:\s+(?:answer|option|choice|one))?\Z"
)
_CONCLUSION = re.compile(r"(?is)[,.;]\s+(?:so|thus|therefore|hence),?\s+(?P<claim>[^,;]*)\Z")
_REASON = re.compile(r"(?is),?\s+(?:because|since)\s+(?P<reason>.*)\Z")
_MAX_ROUNDS = 4  # leads and a tail are stripped once in each round
_LETTER = re.compile(r"[(\[{<]{0,3}\s*([A-Za-z])\s*[)\]}>.:]{0,4}")
_MARKED_LETTER_AND_TEXT = re.compile(  # `(A) red`; used only if the options are unknown
    r"(?s)(?:[(\[]([A-Z])[)\]]|([A-Z])[).:,、]|([A-Z])(?=\s*[-–—=(]))"
    r"[*_.:,]*\s*[-–—=(]*\s*(\S.*?)\)?"
)
_TEXT_AND_LETTER = re.compile(
    r"(?s)(\S.*?)(?:\s*[(\[]([A-Z])[)\]]|,?\s+(?:option|choice|answer|letter)\s+[(\[]?([A-Z])[)\]]?)"
)
_DASHES = r"\-\u2010-\u2015\u2212"
_DASH = re.compile(f"[{_DASHES}]")
_LETTER_AND_OPTION_TEXT = re.compile(
    r"(?s)[(\[]?([A-Za-z])([*_]*(?:[)\].:,、][)\].:,、*_]*\s*"
    rf"|\s*(?=[{_DASHES}=+(\[{{])|\s+(?=(?:is|means|says)\b)))(\S.*)"
)
"""`a. red`, `A is red`, `(A) = red`. The rest shows whether `A` is a letter or an article."""
_LETTER_AND_PARAPHRASE = re.compile(
    r"(?s)[(\[]?(?P<letter>[A-Z])(?:[)\].:,、][)\].:,、*_]*\s*|\s+[-–—]\s+|\s*\n\s*)(?P<text>\S.*)"
    r"|(?P<bare>[A-Z])\s+(?P<bracketed>\([^()]+\))"
)
_SEPARATOR = re.compile(rf"\A(?:[{_DASHES}=(]|(?:is|means|says)\b[:*_]*)\s*")
_SPACED_MINUS = re.compile(rf"\A[{_DASHES}]\s+")
_SIGN = re.compile(rf"[{_DASHES}][0-9]")
_MAX_SEPARATORS = 8  # skipped at most between a letter and the option's text
_LONE_LETTER = re.compile(r"\b[A-Z]\b")
_LISTED_LETTER = re.compile(r"(?<![\w.])[a-z][.):](?=\s)")  # `b.` in `a. red b. blue`
_DOUBT = re.compile(
    r"(?i)\b(?:no|not|nor|neither|never|or|either|wrong|incorrect|false|mistaken|maybe|perhaps"
    r"|possibly|probably|but|however|except|unless|instead|rather|wait|actually|cannot|opposite"
    r"|unlike|both|impossible|twice|half|double|triple|exclude|eliminate|unsure|guess|isn|aren|doesn|don|can't"
    r"|hardly|barely|scarcely|nobody|nothing|least(?! common| number| value)|unlikely"
    r"|improbable|doubt|doubtful|den(?:y|ies|ied)|untrue|distractors?|decoys?)\b|n't|[?？]|不|或|错"
)
"""Words that withdraw or weaken an answer, unless the option's own text has them."""
_STATEMENT_DOUBT = re.compile(
    r"(?i)\b(?:says?|said|claim(?:s|ed)?|th(?:inks?|ought)|believe[sd]?|told|assum(?:e[sd]?|ing|ption)"
    r"|suppos(?:e[sd]?|ing)|expect(?:s|ed)?|if|whether|would|could|might|may|few|rarely|seldom|worst"
    r"|others?|another|else|trap|bait|fake|contrary|lie|myth|absent|initial(?:ly)?|previous(?:ly)?"
    r"|earlier|anything|avoid|missing|what|which"
    r"|reject(?:ed)?|exclud(?:ed|ing)|eliminated|squared|cubed|square of|cube of"
    r"|root|plus|minus|times (?:[a-z]|the|as)|divided|multiplied|reciprocal|negative of)\b"
    r"|没|无人|非|谁|干扰|除|假|如果"
)
"""Words before `is blue` or `= 7` by which a statement need not be the answer."""
_SIGNED_NUMBER = re.compile(r"(?<![\w.])[-+]?[0-9]+(?:\.[0-9]+)?|(?<=[a-zA-Z√])[0-9]+(?:\.[0-9]+)?")
_ROMAN = re.compile(r"\b(?:I{1,3}|IV|VI{0,3})\b")
_MAYBE_LETTER = re.compile(r"an?\b")
_ARTICLE = re.compile(r"\A(?:an?|the) ")
_GENERIC_NOUN = re.compile(r"(?i)(\S.*?) (?:side|colou?r|shape|option|one)")
_PRONOUN = re.compile(r"(?i)\bone\b(?![- ](?:hundred|thousand))")  # `the blue one`
_STATEMENT = re.compile(
    r"(?is)(?P<subject>.{1,80}?\s?)(?:\b(?:is|are|was|were|equals)\b|=|:|是|为)\s*"
)
_MAX_SUBJECT_WORDS = 8
_MAX_STATEMENTS = 8  # tried from the end of an answer
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u9fff"
_SUBJECT_WORD = re.compile(rf"[{_IDEOGRAPHS}]{{1,2}}|[^\W{_IDEOGRAPHS}]+")
_NUMBERED_NAME = re.compile(  # of a thing: `\angle 1`, `Figure 3`, `x_1`
    r"(?i)(?:\\angle|∠|\b(?:angle|side|figure|image|line|row|column|point|box|question))\s*\d+\b"
    r"|\b(?:19|20)\d\d\b|(?<=[a-z])_(?:\d|\{\d+\})"
)
_PLAIN_COMMAND = re.compile(r"\\(?:angle|triangle|overline|alpha|beta|gamma|theta|phi|mu)\b")
_FORMULA = re.compile(  # `2x`, `x + 1`, `f(x)`, `sin x`, `xy`
    r"\d|[+*/^√·×÷<>|!%\\]|(?<![A-Za-z])-|-(?![A-Za-z])|\b[a-zA-Z]\(|\b[a-zA-Z]\s+[a-zA-Z]\b"
    r"|\b(?:sin|cos|tan|cot|sec|csc|log|ln|lg|exp|sqrt)\b"
)
_PRODUCT = re.compile(r"\b(?!of|is|in|so|to|at|by|it|we|an)[a-z]{2}\b")
_YES_OR_NO = re.compile(r"(?is)(yes|no)[,.;:]\s+(?P<clause>.*)")
_MIN_STEM_CHARS = 4  # an option's text of so many letters is also found as the start of a word


_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W\d_{_IDEOGRAPHS}]+")
_FUNCTION = (
    "a an the of to for by with from as at it its is are was were be been has have had this that "
    "these those there they i you we and which who shows show shown 的 是 了 个 这 那 有 为"
)
_FUNCTION_WORDS = {*_FUNCTION.split()}
_IN_IMAGE = re.compile(
    r"\b(?:shown |seen |visible )?in (?:the|this) (?:image|picture|photo|figure|diagram|scene)\b"
)
_INFLECTIONS = {"s", "es", "ed", "d", "r", "er", "st", "est", "ing", "ish", "y", "ly"}


class _Option(NamedTuple):
    """An option's letter and its text in the forms that answers are compared with."""

    letter: str
    text: str
    bare: str  # the text without its article
    plain: str
    value: values.Value | None
    numbers: tuple[str, ...]


class _Reading(NamedTuple):
    """The letter that an answer names, and how it names it."""

    letter: str
    rule: str


def _strip_decoration(answer: str) -> str:
    text = layout.strip_latex(_MATHS_MARKS.sub(" ", unicodedata.normalize("NFKC", answer)))
    stripped = text.strip().strip(_DECORATION)
    if stripped[:1].isdigit() and text[: text.index(stripped)].endswith("."):
        return f".{stripped}"
    return stripped


def _option_text(text: str) -> str:
    """An option's text, normalized for comparison; all dashes become `-`."""
    return _DASH.sub("-", normalize_text(_strip_decoration(text)))


def _numbers(text: str) -> tuple[str, ...]:
    digits = english_to_digits(_PRONOUN.sub(" ", layout.strip_latex(text))).replace("−", "-")
    return tuple(match[0].lstrip("+") for match in _SIGNED_NUMBER.finditer(digits))


def _roman_numerals(text: str) -> tuple[str, ...]:
    return tuple(_ROMAN.findall(text))


@lru_cache(maxsize=4096)
def _parsed_options(options: tuple[str, ...]) -> tuple[_Option, ...]:
    """The options, parsed once for all answers to a sample."""
    return tuple(
        _Option(
            letter,
            _option_text(text),
            _ARTICLE.sub("", _option_text(text)),
            without_layout(text),
            values.parse(text),
            _numbers(text),
        )
        for letter, text in zip(LETTERS, options, strict=False)
    )


def _option_of(letter: str, options: tuple[str, ...]) -> _Option | None:
    return next((o for o in _parsed_options(options) if o.letter == letter), None)


def _letters_with_text(text: str, options: tuple[str, ...]) -> list[str]:
    """The letters of the options that are equal to the text: exactly, or in another spelling.

    Other spellings: without layout or the option's article, and another notation of its value. A
    value without a unit is enough if all options have the same one.
    """
    normalized, parsed = _option_text(text), _parsed_options(options)
    if not normalized:
        return []
    if letters := [option.letter for option in parsed if option.text == normalized]:
        return letters
    if _SPACED_MINUS.match(text):
        return []  # a dash before the text, or its sign: see _letters_after_separator
    # `a. red` and `a red` may begin with a letter: only the option's own article is left out.
    plain = normalized if _MAYBE_LETTER.match(normalized) else without_layout(text)
    if letters := [o.letter for o in parsed if plain in (o.plain, o.bare)]:
        return letters
    value = values.parse(text)
    if value is None:
        return []
    option_values = [option.value for option in parsed]
    has_one_unit = len({v.unit for v in option_values if v}) == 1
    equal = [
        v is not None and (value.equals(v) or (has_one_unit and value.equals_without_unit(v)))
        for v in option_values
    ]
    return list(compress(LETTERS, equal))


def _letters_after_separator(separator: str, rest: str, options: tuple[str, ...]) -> list[str]:
    """The letters of the options equal to `rest`, the text after a letter and `separator`.

    If no option is equal, the separators at the start of `rest` are removed one by one. A minus
    sign is first tried as a part of the option: `C -5` and `C: - 5` mean the option -5, not 5.
    """
    after_separator = any(character in ".:,、" for character in separator)
    for _ in range(_MAX_SEPARATORS):
        for text in (rest, rest.removesuffix(")")):
            signed = _SPACED_MINUS.sub("-", text) if after_separator else text
            if letters := _letters_with_text(text, options) or _letters_with_text(signed, options):
                return letters
        shorter = _SEPARATOR.sub("", rest)
        if shorter == rest or (after_separator and _SIGN.match(rest)):
            break
        rest, after_separator = shorter, True
    return []


def _letter_beside_text(text: str, options: tuple[str, ...]) -> str | None:
    """The letter of `B. blue`, `B is blue` or `blue (B)` if the text of option B is `blue`."""
    text_first = _TEXT_AND_LETTER.fullmatch(text)
    letter_after = (text_first[2] or text_first[3]) if text_first else None
    if options:
        if match := _LETTER_AND_OPTION_TEXT.fullmatch(text):
            letter = match[1].upper()
            if letters := _letters_after_separator(match[2], match[3], options):
                return letter if letters == [letter] else None
        if text_first and _letters_with_text(text_first[1], options) == [letter_after]:
            return letter_after
        return None
    if match := _MARKED_LETTER_AND_TEXT.fullmatch(text):
        letter, rest = match[1] or match[2] or match[3], match[4]
    elif text_first and letter_after:
        rest, letter = text_first[1], letter_after
    else:
        return None
    return None if _LONE_LETTER.search(rest) else letter  # another letter makes it ambiguous


def _names_option(text: str, option: _Option) -> bool:
    """Whether a normalized text has the option's text as whole words, or as the start of one."""
    if not option.bare or option.bare == "a":  # which is an article in a sentence
        return False
    stem, end = option.bare, r"(?!\w)"
    if len(stem) >= _MIN_STEM_CHARS and stem[-1].isalpha():
        stem, end = stem.removesuffix("e"), ""  # `decreasing` names `decrease`
    return re.search(rf"(?<![\w.+-]){re.escape(stem)}{end}", text) is not None


def _mentions_other(text: str, own: _Option | None, options: tuple[str, ...]) -> bool:
    """Whether a text has the letter or the text of an option other than `own`."""
    own_letter, own_text = (own.letter, own.bare) if own else ("", "")
    letters = {*_LONE_LETTER.findall(text)} - {own_letter}
    letters -= {"I"} if len(options) < 9 else set()  # `I` is a pronoun
    own_words = {*_LONE_LETTER.findall(options[LETTERS.index(own_letter)])} if own else set()
    if letters - own_words or _LISTED_LETTER.search(text):
        return True
    normalized = _option_text(text)
    if own_text:
        normalized = normalized.replace(own_text, " ")
    return any(
        _names_option(normalized, option)
        for option in _parsed_options(options)
        if option.letter != own_letter and option.bare not in own_text
    )


def _content_words(normalized: str) -> set[str]:
    """The words that tell options apart: not articles, pronouns and the like."""
    return {*_WORD.findall(_IN_IMAGE.sub(" ", normalized))} - _FUNCTION_WORDS


def _likeness(word: str, other: str) -> int:
    """The number of first letters that make two words forms of one; 0 if they are different words.

    `cat` and `cats` share 3 letters, `reduces` and `reduction` 5; 4 are needed for any ending.
    """
    shared = len([*takewhile(lambda pair: pair[0] == pair[1], zip(word, other, strict=False))])
    if shared >= _MIN_STEM_CHARS or word == other:
        return shared
    ends = {word[shared:], other[shared:]} - {""}
    return shared if shared == _MIN_STEM_CHARS - 1 and ends <= _INFLECTIONS else 0


def _has_word_of_other(text: str, own: _Option, options: tuple[str, ...]) -> bool:
    """Whether a text has a content word that is more like another option's than like the own's.

    `B. New York` has one if option A is `New York City`. A text with all of the own option's text
    may have such words, unless that text is a part of another option's.
    """
    normalized, parsed = _option_text(text), _parsed_options(options)
    others = [option for option in parsed if option.letter != own.letter]
    if _names_option(normalized, own) and not any(own.bare in other.bare for other in others):
        return False
    own_words = _content_words(own.text)
    other_words = {word for other in others for word in _content_words(other.text)}

    def best(word: str, words: set[str]) -> int:
        return max((_likeness(word, other) for other in words), default=0)

    return any(best(w, other_words) > best(w, own_words) for w in _content_words(normalized))


def _has_doubt(text: str, own_text: str) -> bool:
    """Whether a text has a word of denial or doubt that the option's own text has not."""
    own_words = {match[0].lower() for match in _DOUBT.finditer(own_text)}
    return any(match[0].lower() not in own_words for match in _DOUBT.finditer(text))


def _letter_with_paraphrase(text: str, options: tuple[str, ...]) -> str | None:
    """The letter of `B. the blue one`, whose text paraphrases or cuts that of option B.

    If the text has numbers, Roman numerals or a unit, they must be those of the option.
    """
    match = _LETTER_AND_PARAPHRASE.fullmatch(text)
    own = _option_of(match["letter"] or match["bare"], options) if match else None
    if match is None or own is None:
        return None
    rest = match["text"] or match["bracketed"]
    letters = _letters_with_text(rest, options)
    if letters and own.letter not in letters:
        return None
    if _numbers(rest) not in ((), own.numbers):
        return None
    roman_numerals = _roman_numerals(options[LETTERS.index(own.letter)])
    if roman_numerals and _roman_numerals(rest) not in ((), roman_numerals):
        return None
    value = values.parse(rest)
    if value and own.value and not value.equals_or_lacks_unit(own.value):
        return None
    if _has_doubt(rest, own.text) or _mentions_other(rest, own, options):
        return None
    return None if _has_word_of_other(rest, own, options) else own.letter


def _letter_with_reason(text: str, options: tuple[str, ...]) -> str | None:
    """The letter of `B because the sky is blue`, if the reason names no other option."""
    match = _REASON.search(text)
    letter = _LETTER.fullmatch(_TAIL.sub("", text[: match.start()])) if match else None
    if match is None or letter is None or not letter[1].isupper():
        return None
    own = _option_of(letter[1], options)
    if options and own is None:
        return None
    reason = match["reason"]
    if _has_doubt(reason, own.text if own else "") or _mentions_other(reason, own, options):
        return None
    return letter[1]


def _letter_of_conclusion(text: str, options: tuple[str, ...]) -> str | None:
    """The letter of `The sky is blue, so the answer is B`, if no other option is named."""
    match = _CONCLUSION.search(text)
    if match is None:
        return None
    letter = _plain_letter(_without_lead_and_tail(match["claim"], options), options)
    own = _option_of(letter, options) if letter else None
    if own is None:
        return None
    premise = text[: match.start()]
    if _has_doubt(premise, own.text) or _mentions_other(premise, own, options):
        return None
    return letter


def _is_formula(subject: str) -> bool:
    """Whether the text up to `=` or `is` is a formula (`2x =`) and not a name (`x =`, `AB =`)."""
    names = _PLAIN_COMMAND.sub(" ", _NUMBERED_NAME.sub(" ", subject))
    is_equation = subject.rstrip().endswith("=")
    return bool(_FORMULA.search(names) or (is_equation and _PRODUCT.search(names)))


def _letter_of_statement(text: str, options: tuple[str, ...]) -> str | None:
    """The letter of the option that a statement ends with: `The color is blue`, `x = 7`."""
    for match in reversed(deque(_STATEMENT.finditer(text), maxlen=_MAX_STATEMENTS)):
        letters = _letters_with_text(text[match.end() :], options)
        subject = text[: match.end()]
        if len(letters) == 1 and not _is_formula(subject):
            if len(_SUBJECT_WORD.findall(subject)) > _MAX_SUBJECT_WORDS + 1:  # with `is`
                return None
            is_letter = re.fullmatch(r"\W*[a-zA-Z]\W*", match["subject"]) is not None
            names_letter = is_letter and match["subject"].strip().upper() in LETTERS[: len(options)]
            is_doubtful = _DOUBT.search(subject) or _STATEMENT_DOUBT.search(subject)
            is_plain = not is_doubtful and not _mentions_other(subject, None, options)
            return letters[0] if is_plain and not names_letter else None
    return None


def _letter_of_yes_or_no(text: str, options: tuple[str, ...]) -> str | None:
    """The letter of `No, they are not.` if the options are Yes and No."""
    match = _YES_OR_NO.fullmatch(text)
    if match is None or {o.text for o in _parsed_options(options)} != {"yes", "no"}:
        return None
    word, clause = match[1].lower(), match["clause"].lower()
    is_denial = re.search(r"\bnot\b|n't", clause) is not None
    if re.search(r"\b(?:yes|no|but|wait|or|actually|however)\b", clause) or "?" in clause:
        return None
    if is_denial != (word == "no"):
        return None
    return next(option.letter for option in _parsed_options(options) if option.text == word)


def _letter_of_generic_noun(text: str, options: tuple[str, ...]) -> str | None:
    """The letter of `blue color` if an option is `blue`."""
    match = _GENERIC_NOUN.fullmatch(text)
    letters = _letters_with_text(match[1], options) if match else []
    return letters[0] if len(letters) == 1 else None


def _letter_of_text(text: str, options: tuple[str, ...]) -> str | None:
    letters = _letters_with_text(text, options)
    return letters[0] if len(letters) == 1 else None


def _plain_letter(text: str, options: tuple[str, ...]) -> str | None:
    match = _LETTER.fullmatch(text)
    return match[1].upper() if match else None


_READERS: Sequence[tuple[Callable[[str, tuple[str, ...]], str | None], str]] = (
    (_plain_letter, "letter"),
    (_letter_of_text, "option's text"),
    (_letter_beside_text, "letter and its text"),
    (_letter_with_paraphrase, "letter and a paraphrase"),
    (_letter_with_reason, "letter and a reason"),
    (_letter_of_conclusion, "letter in a conclusion"),
    (_letter_of_yes_or_no, "yes or no with a clause"),
    (_letter_of_generic_noun, "option's text and a generic noun"),
)


def _without_denied_letters(text: str) -> str:
    """The text without `, it can't be A or B` at its end, unless it denies the letter before."""
    match = _DENIED_LETTERS.search(text)
    if match is None:
        return text
    denied = {*_LONE_LETTER.findall(match["letters"] or match["chinese"])}
    before = text[: match.start()].rstrip()
    named = {*_LONE_LETTER.findall(before)}
    return before if len(named) == 1 and not named & denied else text


def _without_lead_and_tail(text: str, options: tuple[str, ...]) -> str:
    if not any(option.text.startswith("-") for option in _parsed_options(options)):
        text = _BULLET.sub("", text)
    text = _CONSIDERED.sub("", _without_denied_letters(text), count=1)
    text = _WORDY_LEAD.sub("", _LEAD.sub("", text, count=1), count=1)
    return _strip_decoration(_TAIL.sub("", _CHINESE_LEAD.sub("", text, count=1), count=1))


def _read(answer: str, options: tuple[str, ...]) -> _Reading | None:
    if len(answer) > MAX_CHARS:
        return None
    json = _JSON.match(answer)
    text = _strip_decoration(layout.strip_explanation(json["text"] if json else answer))
    statement = text
    for _ in range(_MAX_ROUNDS):
        for reader, rule in _READERS:
            if letter := reader(text, options):
                return _Reading(letter, rule)
        shorter = _without_lead_and_tail(text, options)
        if shorter == text:
            break
        text = shorter
    if not options or "?" in answer:
        return None
    letter = _letter_of_statement(statement, options)
    return _Reading(letter, "option's text in a statement") if letter else None


def parse(answer: str, options: tuple[str, ...]) -> str | None:
    """The letter of an answer, even if there is no such option; None if it is ambiguous.

    If option B is `blue`, then `(B)`, `B.`, `**B**`, `Option B`, `b. blue`, `B is blue`, `B. the
    blue one` and `blue` are B. `A or B`, all options in a row, and a letter with another option's
    text give None.
    """
    reading = _read(answer, options)
    return reading.letter if reading else None


@lru_cache(maxsize=4096)
def _gold_letter(gold: str, options: tuple[str, ...]) -> str | None:
    return parse(gold, options)


def decide(answer: str, gold: str, options: tuple[str, ...], rules: GradeConfig) -> GradeDecision:
    """1 for the letter of the gold answer, 0 for any other, even outside the options."""
    reading, gold_letter = _read(answer, options), _gold_letter(gold, options)
    if reading is None:
        return GradeDecision(None, None, gold_letter or gold, "names no single option")
    return GradeDecision(
        float(reading.letter == gold_letter), reading.letter, gold_letter or gold, reading.rule
    )


def gold_problem(gold: str, options: tuple[str, ...]) -> str | None:
    """Why the gold answer is not an option, or None."""
    letter = _gold_letter(gold, options)
    if letter is None:
        return f"{gold!r} names no option"
    if options and letter not in LETTERS[: len(options)]:
        return f"{gold!r} is outside the {len(options)} options"
    return None
