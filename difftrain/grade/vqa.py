"""VQA accuracy (Antol et al. 2015), with the normalization of the official evaluation code."""

import re
from itertools import product

_TO_TEN = "zero one two three four five six seven eight nine ten"
_DIGITS = {word: str(value) for value, word in enumerate(_TO_TEN.split())} | {"none": "0"}
_ARTICLES = {"a", "an", "the"}
_CONTRACTIONS = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't "
    "haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll let's ma'am mightn't "
    "mightn't've might've mustn't must've needn't not've o'clock oughtn't shan't she'd've "
    "should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've "
    "someone'll someone's something'd something'd've something'll that's there'd there'd've "
    "there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't "
    "what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's "
    "who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've "
    "you'd you'd've you'll you're you've"
)


def _spellings(contraction: str) -> list[str]:
    """A contraction without some or all of its apostrophes: couldnt've, couldn'tve, couldntve."""
    first, *others = contraction.split("'")
    return [
        first + "".join(mark + part for mark, part in zip(marks, others, strict=True))
        for marks in product(("", "'"), repeat=len(others))
    ]


_CONTRACTION = {
    spelling: contraction
    for contraction in _CONTRACTIONS.split()
    for spelling in _spellings(contraction)
}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")


def normalize(answer: str) -> str:
    """The answer in lower case, without punctuation and articles, with digits for number words.

    As in the official code, a mark next to a blank is removed, and any other becomes a blank; with
    a comma between digits all marks are removed. Contractions get their apostrophes.
    """
    answer = " ".join(answer.split())
    removes_all = _DIGIT_COMMA.search(answer) is not None
    text = answer
    for mark in _PUNCTUATION:
        beside_blank = f"{mark} " in answer or f" {mark}" in answer
        text = text.replace(mark, "" if beside_blank or removes_all else " ")
    words = [_DIGITS.get(word, word) for word in _PERIOD.sub("", text).lower().split()]
    return " ".join(_CONTRACTION.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(answer: str, accepted: tuple[str, ...] | list[str]) -> float:
    """The share of annotators who would agree: the mean of min(1, matches / 3), leaving one out.

    `accepted` holds the answers of all annotators, ten in VQA, repetitions included. For each
    annotator, `matches` counts the others with this answer: four equal answers of ten give 1, three
    give 0.9. With one accepted answer there is no other to count, so it is 1 if the answers are
    equal after normalization, else 0. The official code leaves the answers unnormalized if all ten
    are the same; here they are always normalized.
    """
    normalized = normalize(answer)
    matches = [normalize(other) == normalized for other in accepted]
    if len(matches) == 1:
        return float(matches[0])
    others = (sum(matches) - match for match in matches)
    return sum(min(1.0, count / 3) for count in others) / len(matches) if matches else 0.0
