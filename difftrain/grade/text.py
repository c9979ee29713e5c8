"""Grades a text: correct if it says the same as the gold text, ignoring case, width and layout.

The setting grade.text chooses the rule: `strict` equality, `exact` (equality without layout, see
same_text.py), or a score: `similarity`, `anls`, `vqa`.
"""

from functools import lru_cache

from rapidfuzz.distance import Levenshtein

from difftrain.config.difficulty import GradeConfig, TextCredit
from difftrain.grade import same_text, vqa
from difftrain.grade.decision import GradeDecision
from difftrain.grade.layout import strip_simple_wrappers
from difftrain.grade.normalize import normalize_text

MAX_CHARS = 20_000  # longer answers are incorrect
MAX_LENIENT_CHARS = 2_000  # longer answers are compared by the strict rule only
ANLS_MAX_DISTANCE = 0.5  # from this normalized distance on, ANLS is 0 (Biten et al. 2019)


@lru_cache(maxsize=4096)
def _normal_gold(gold: str) -> str:
    return normalize_text(gold)


def _spellings(answer: str) -> set[str]:
    """The answer, normalized, with and without the marks around all of it."""
    return {normalize_text(answer), normalize_text(strip_simple_wrappers(answer))}


def similarity(answer: str, gold: str) -> float:
    """1 - Levenshtein distance / length of the longer text, both normalized; 1 only if equal."""
    if len(answer) > MAX_CHARS:
        return 0.0
    return max(
        Levenshtein.normalized_similarity(spelling, _normal_gold(gold))
        for spelling in _spellings(answer)
    )


def anls(answer: str, gold: str) -> float:
    """ANLS for one gold answer: the similarity if the normalized distance is below 0.5, else 0.

    Average Normalized Levenshtein Similarity (Biten et al. 2019); of several gold answers the best
    counts, and the average is over the samples.
    """
    if len(answer) > MAX_CHARS:
        return 0.0
    spellings = (" ".join(text.lower().split()) for text in (answer, gold))
    distance = Levenshtein.normalized_distance(*spellings)
    return 1 - distance if distance < ANLS_MAX_DISTANCE else 0.0


def _strictly_equal(answer: str, gold: str) -> bool:
    if len(answer) > MAX_CHARS:
        return False
    return _normal_gold(gold) in _spellings(answer)


def _equality_rule(answer: str, gold: str) -> str | None:
    """The rule by which the texts are equal, strictly or without layout; None if they differ."""
    if _strictly_equal(answer, gold):
        return "equal text"
    return same_text.same(answer, gold) if len(answer) <= MAX_LENIENT_CHARS else None


def decide(answer: str, gold: str, options: tuple[str, ...], rules: GradeConfig) -> GradeDecision:
    """1 for a correct text, else 0, or with grade.text=similarity or anls the score.

    A score of at least grade.text_correct_min counts as correct. With grade.text=vqa, 1 if equal
    after the normalization of VQA; `vqa.vqa_accuracy` grades by several accepted answers.
    """
    normal, normal_gold = normalize_text(strip_simple_wrappers(answer)), _normal_gold(gold)
    if not normalize_text(answer):
        return GradeDecision(None, None, normal_gold, "empty")
    match rules.text:
        case TextCredit.strict:
            score, rule = float(_strictly_equal(answer, gold)), "strictly equal text"
        case TextCredit.exact:
            rule = _equality_rule(answer, gold)
            score, rule = float(rule is not None), rule or "another text"
        case TextCredit.similarity:
            rule = _equality_rule(answer, gold)
            score, rule = (1.0, rule) if rule else (similarity(answer, gold), "similarity")
        case TextCredit.anls:
            score, rule = anls(answer, gold), "ANLS"
        case TextCredit.vqa:
            score, rule = vqa.vqa_accuracy(answer, (gold,)), "VQA accuracy"
    if score >= rules.text_correct_min:
        score = 1.0
    return GradeDecision(score, normal, normal_gold, rule)


def gold_problem(gold: str, options: tuple[str, ...]) -> str | None:
    """Why the gold answer is not a text, or None."""
    return None if normalize_text(gold) else "the text is empty"
