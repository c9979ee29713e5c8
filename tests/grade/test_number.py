r"""A number is graded by its value, in any notation; what is no value is not evaluated."""

import pytest

from difftrain.config.difficulty import GradeConfig
from difftrain.grade import grade_with_credit, number
from difftrain.records import AnswerKind, Verdict
from tests.grade.adversarial import sample
from tests.grade.test_graders import verdict_of

CORRECT = Verdict.correct

RIGHT = {
    "thousands with blanks or commas": [
        ("1000", "1 000"), ("1234567", "1 234 567"), ("1234", r"1\,234"), ("11111", r"11,\! 111"),
    ],
    "decimal comma": [("1000.99", "1000,99"), ("2.74", "2,74 $"), ("1234.5", "1.234,5")],
    "mixed numbers": [
        ("5/2", "2 1/2"), ("2 1/2", "2.5"), ("2.5", r"2\frac{1}{2}"), ("2.5", "2½"),
        ("2.5", "2 and 1/2"), ("-2.5", "-2 1/2"),
    ],
    "fractions and ratios": [
        ("0.25", "¼"), ("3/4", r"\cfrac{3}{4}"), ("3/4", "3÷4"), ("3/4", "3 out of 4"),
        ("3:4", "3 to 4"), ("3:4", "6:8"), ("3:4", "3/4"), ("1:2:3", "2:4:6"),
    ],
    "repeating decimals": [("1/3", r"0.\overline{3}"), ("1/3", "0.(3)"), ("1/3", "0.333...")],
    "powers of ten": [
        ("3000000000000", "3×10¹²"), ("0.003", "3×10⁻³"), ("10000", "10K"),
        ("3000000", "3 Million"),
        ("300000000", "3 x 10^8"), ("300000000", r"3.0 \times 10^{8} \text{ m/s}"),
        ("300000000", "300 million"), ("30000", "3万"),
    ],
    "units": [
        ("12", "12 km/h"), ("12", "12 sq units"), ("12", "12°C"), ("12", "12 Ω"), ("12", "12 N/m"),
        ("12", "12 years"), ("12", "12 people"), ("12", "12厘米"), ("12", "12 (cm)"),
        ("12", "12 m s^{-1}"), ("12 km/h", "12 kilometers per hour"), ("45 mph", "45 miles/hour"),
        ("12 m^2", "12 square meters"), ("120 min", "120 minutes"), ("120 min", "120"),
        (r"12\text{ cm}^2", "12 cm²"), ("4\\pi", "4π cm²"), ("2\\sqrt{3}", "2√3 cm"),
    ],
    "currencies": [
        ("$5", "5 dollars"), ("$5", "5"), ("5元", "¥5"), ("£5", "5 pounds"),
        ("12", "€12"), ("12", "12 €"), ("12", "12 USD"), ("12", "12元"), ("36", r"\$36"),
    ],
    "percentages": [("25%", "25 percent"), ("25%", "25"), ("25", "25%"), ("25%", "25 per cent")],
    "sentences and names": [
        ("6", "a + b = 6"), ("3/5", r"\sin A = 3/5"), ("5", "The length of AB = 5"),
        ("12", r"A = \pi r^2 = 12"),
        ("5", "The answer is 5."), ("5", "答案是5"), ("5", "The length of AB is 5 cm."),
        ("5", "**Answer:** 5"), ("5", "AB = 5"), ("5", "Area = 5"), ("60", "∠ABC = 60°"),
        ("60", r"m\angle A = 60^\circ"), ("5", "approximately 5"), ("5", "~5"), ("-3", "minus 3"),
    ],
    "chains": [
        ("0.33", "1/3 ≈ 0.33"), ("3.14", "π ≈ 3.14"),
        ("5", "2 + 3 = 5"), ("1/3", "1/3 ≈ 0.333"), (r"2\sqrt{3}", r"2\sqrt{3}\approx 3.46"),
    ],
    "Chinese": [
        ("8", "x的值为8"), ("8", "面积是8平方厘米"), ("1, 2", "x=1或x=2"), ("1, 2", "1和2"),
    ],
    "other leads": [("8", "Therefore, x = 8."), ("8", "∴ x = 8"), ("8", "It's 8"), ("8", "Ans: 8")],
    "full stops and wrappers": [
        (r"\sqrt{51}", r"$\sqrt{51}$."), ("6+9i", "6+9i."), ("5", "`5`"), ("5", '"5"'),
    ],
    "unicode operators": [
        (r"2\sqrt{3}", "2√3"), (r"2\sqrt{3}", "2*sqrt(3)"), ("4\\pi", "4pi"),
        ("x \\neq 3", "x != 3"),
    ],
    "points and intervals": [
        ("(3, 4)", "P(3, 4)"), ("(3, 4)", "x=3, y=4"), ("[2, 5)", "2 ≤ x < 5"),
        ("[2, 5)", "x ∈ [2,5)"), ("(3, \\infty)", "x > 3"), ("x > 3", "(3, \\infty)"),
    ],
    "lists in any order": [
        ("x = 1, y = 2", "y = 2, x = 1"), ("x = 1, y = 2", "1, 2"), ("5, 5, 6", "6, 5, 5"),
        ("1, 2", "2 and 1"), ("1, 2", "x = 1 or x = 2"), ("{1,2,3}", r"\{3, 2, 1\}"),
        ("(2,1),(1,2)", "(1, 2), (2, 1)"), ("x = 1 or x = 2", "1, 2"), ("2; 3", "3, 2"),
    ],
    "matrices": [
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}"),
    ],
    "what is written": [
        ("2007-2008", "2007–2008"), ("1920x1080", "1920 × 1080"), ("12:30", "12 : 30"),
        ("52_8", "52_{8}"), ("555-1234", "555-1234"),
    ],
}  # fmt: skip
"""Gold answers and correct answers, by what they have in common."""

WRONG = [
    ("7", "3 4"), ("1", "2 1/2"), ("0", "5 000"), ("357", "12 345"), ("12", "1 2"),
    ("2007-2008", "2008-2009"), ("2007-2008", "-1"), ("-1", "2007-2008"), ("1", "3-2"),
    ("3-2", "2-1"), ("1920x1080", "1080x1920"), ("6", "2x3"), ("1:2:3", "1:6"), ("1/6", "1:2:3"),
    ("5:3:2", "5/6"), ("3:4", "4:3"), ("12:30", "24:60"), ("12:30", "2/5"),
    ("(1, 2)", r"\{1, 2\}"), (r"\{1, 2\}", "(1, 2)"), ("(3, 4)", "[3, 4]"), ("(1,2)", "(2,1)"),
    ("[2, 5)", "2 < x < 5"), ("0.25", "0.25%"), ("0.1", "10%"), ("0.25", "25"),
    ("52", "52_8"), ("42", "52_8"), ("52_8", "52_9"), ("1234", "1.234"), ("32349", "32, 349"),
    ("5 cm", "5 m"), ("12", "12 million"), ("12", "12 dozen"), ("12 km/h", "12 m/s"),
    ("25%", "25 percentage points"), ("120 min", "2 hours"), ("36", "36 cents per"),
    ("x = 1, y = 2", "x = 2, y = 1"), ("(1,2)", "y = 1, x = 2"), ("(3, 4)", "(y, x) = (3, 4)"),
    ("a=3, b=5", "5, 3"), ("5, 5, 6", "5, 6, 6"), ("3, 3, 5", "3, 5"), ("5", "not x = 5"),
    ("5", "wrong answer = 5"), ("5", "half of it = 5"), ("5", "-x = 5"), ("10", "2x = 10"),
    ("8", "x + 3 = 8"), ("25", "x^2 = 25"), ("5", "I doubt it is 5"), ("5", "My first try was 5"),
    ("5", "The negative of the answer is 5"), ("$5", "5 cents"), ("$5", "5 kg"), ("$25", "25%"),
    ("5 km", "5 people"), ("25 people", "25%"), ("5 feet", '5"'), ("10", "10K"), ("5", "the third"),
    ("10 m", "10 meters square"), ("0.5", "1 to 2"), ("0.4", "12:30"), ("10", "10 to 1"),
    ("30", "30:1"), ("6", "6 in 1"), ("2/5", "12:30"), ("0.4", "2 to 5"),
    ("6", r"5 \approx 6"), ("5", r"5 \approx 6"), ("9", "0≈1≈2≈3≈9"), ("1", r"\frac{\pi}{2}≈1"),
    ("5 cm", "4 m ≈ 5 cm"),
    ("5 cm", "x = 5 m = 5 = 5 cm"), ("5", r"\infty ≈ 5"), ("5", "xy = 7 = 5"),
    ("5", r"\sqrt{-1} ≈ 5"), ("5", r"\ln 0 ≈ 5"), ("5", r"100000000\ln 3"), ("5", "a trap is 5"),
    ("5", "the answer plus one is 5"), ("5", "log x = 5"), ("5", "ten times x = 5"),
    ("5", "答案不是5"), ("5", "x不等于5"),
    ("5", "not 5"), ("5", "The answer is not 5"), ("5", "5 or 6"), ("5", "5, 6"),
    ("5", "more than 5"), ("5", "at least 5"), ("5", "x = 5, y = 3"), ("5", "5 - 6"), ("5", "5?"),
    ("5", r"5 \pm 1"), ("5", r"\pm 5"), ("1/3", "0.333"), ("1/3", r"x=1/3\approx1.3"),
    ("11", "5+5+1 = 7 = 11"), ("10/9", r"Answer $\frac{1}{2} = \frac{10}{9}$"),
    ("1, 2", "1, 3"), ("1, 2", "1"), ("1, 2, 3", "1, 2"), ("1", "1, 2"), ("1, 2", "1, 2, 3"),
    (r"x \in [-2,7]", r"-2 \\le x \\le 7"), ("2.5", "2-1/2"), (r"4\pi", "12.57"),
]  # fmt: skip


@pytest.mark.parametrize("cases", RIGHT.values(), ids=RIGHT)
def test_a_right_value_is_correct_in_any_notation(cases: list[tuple[str, str]]) -> None:
    refused = [case for case in cases if verdict_of(AnswerKind.number, *case[::-1]) is not CORRECT]
    assert refused == []


@pytest.mark.parametrize("cases", RIGHT.values(), ids=RIGHT)
def test_such_gold_answers_can_be_graded_and_are_correct_themselves(
    cases: list[tuple[str, str]],
) -> None:
    golds = {gold for gold, _ in cases}
    assert [gold for gold in golds if number.gold_problem(gold, ())] == []
    assert {verdict_of(AnswerKind.number, gold, gold) for gold in golds} == {CORRECT}


@pytest.mark.parametrize(("gold", "answer"), WRONG)
def test_a_wrong_value_is_never_correct(gold: str, answer: str) -> None:
    assert verdict_of(AnswerKind.number, answer, gold) is not CORRECT


@pytest.mark.parametrize(
    ("question", "gold", "answer"),
    [
        ("What is the time signature?", "3/4", "6/8"),
        ("Which date is on the stamp (month/day)?", "5/12", "10/24"),
    ],
)
def test_a_date_and_a_time_signature_are_no_fractions(
    question: str, gold: str, answer: str
) -> None:
    rules = GradeConfig()
    assert number.decide(answer, gold, (), rules, question).credit == 0
    assert number.decide(gold, gold, (), rules, question).credit == 1
    assert number.decide(answer, gold, (), rules, "What is the quotient?").credit == 1
    assert number.decide("85.50 points", "85.5", (), rules, "What is the mean score?").credit == 1


def test_other_units_of_the_same_kind_are_correct_where_the_setting_says_so() -> None:
    converts = GradeConfig(convert_units=True)
    assert number.decide("2 hours", "120 min", (), converts).credit == 1
    assert number.decide("100 cm", "1 m", (), converts).credit == 1
    assert number.decide("1 cm", "1 m", (), converts).credit == 0
    assert number.decide("2 m", "2 s", (), converts).credit == 0


def test_several_boxes_are_one_list_if_the_gold_answer_is_a_list() -> None:
    response = r"<answer>\boxed{(1, 2)} and \boxed{(2, 1)}</answer>"
    assert grade_with_credit(response, sample("number", "(2,1),(1,2)", "")).verdict is CORRECT
    assert grade_with_credit(response, sample("number", "(1,2)", "")).verdict is not CORRECT
    denied = r"<answer>\boxed{5} not \boxed{6}</answer>"
    assert grade_with_credit(denied, sample("number", "5, 6", "")).verdict is not CORRECT
    names = r"<answer>\boxed{k = 45} and \boxed{n = 2}</answer>"
    assert grade_with_credit(names, sample("text", "k = 45, n = 2", "")).verdict is CORRECT
    assert grade_with_credit(names, sample("text", "n = 2", "")).verdict is CORRECT
    assert grade_with_credit(names, sample("text", "k = 45", "")).verdict is not CORRECT


def test_a_decision_says_what_was_compared_and_by_which_rule() -> None:
    decision = number.decide(r"\frac{10}{4} cm", "2.5", (), GradeConfig())
    assert (decision.answer, decision.gold, decision.rule) == (
        "5/2 centimeter",
        "5/2",
        "number with unit",
    )
    assert number.decide("2 - 3", "2-3", (), GradeConfig()).rule == "same text"
    assert number.decide("seven or eight", "7", (), GradeConfig()).answer is None
