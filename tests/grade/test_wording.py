"""Correct answers in other words or layouts are paid, and wrong ones that look like them are not.

Each table has the correct answers of one cause, then the answers that its rule must still refuse.
"""

import time

import pytest

from difftrain import grade
from difftrain.config.difficulty import GradeConfig, TextCredit
from difftrain.records import AnswerKind, Verdict
from tests.grade.adversarial import CATS, sample

COLORS = "red|blue|green|orange"
LENGTHS = "12 cm|15 cm|18 cm|20 cm"
SENTENCES = "I only|II only|I and II|Neither I nor II"
ONE_CAT = '[{"bbox_2d": [100, 100, 200, 200], "label": "cat"}]'


def is_paid(kind: str, gold: str, options: str, answer: str) -> bool:
    response = f"<think>so</think><answer>{answer}</answer>"
    return grade.grade(response, sample(kind, gold, options)) is Verdict.correct


CHOICES = [  # gold, options, correct answers, answers to refuse
    (
        "B",
        COLORS,
        ["B. the blue one", "(B) It is blue", "B, I think", "Blue color", "The color is blue"],
        ["B. the red one", "B. not sure", "B. blue or red", "dark blue", "The color is not blue"],
    ),
    (
        "B",
        COLORS,
        [r"\textbf{(B) } blue", r"\mathrm{(B)}\ blue", r"\textbf{(B)}~\text{blue}", r"\((B)\)"],
        [r"\textbf{(A) } blue", r"\mathrm{(B)}\ red", r"\((A)(B)\)"],
    ),
    (
        "B",
        "红色|蓝色|绿色|黄色",
        ["B、蓝色", "选项B", "正确答案是：B", "蓝色。", "故选B", "答案：B。", "【B】", "B不是 A"],
        ["A、蓝色", "不是B", "B或A", "不选B", "选项A", "红色或蓝色"],
    ),
    (
        "B",
        COLORS,
        [
            "I think it's B",
            "I'd go with B",
            "blue, option B",
            "The sky is blue, so the answer is B",
        ],
        ["I think it's A or B", "blue, option A", "It's not B", "The sky is red, so B", "B. A"],
    ),
    (
        "B",
        COLORS,
        ["B is the correct answer because the sky is blue.", "B\n\nExplanation: not A"],
        ["B because A is wrong", "B because it is not red", "A because the sky is blue"],
    ),
    (
        "B",
        "",
        ["The answer is for sure B, it can't be A or C", "B. it can't be A", "réponse est B non A"],
        ["A, not B", "it can't be B", "B, not B", "either A or B, not C"],
    ),
    ("B", COLORS, ['{"choice": "b"}', '```json\n{"choice": "B. blue"}\n```'], ['{"choice": "A"}']),
    ("A", LENGTHS, ["12", "12cm", "A. 12", "A. 12 centimeters", r"A. $12\,\mathrm{cm}$"], ["12 m"]),
    (
        "A",
        LENGTHS,
        ["The length is 12 cm", "AB = 12"],
        ["AB is not 12 cm", "about 12", "120", "1.2"],
    ),
    ("A", LENGTHS, ["(A) AB = 12 cm"], ["A. 13 cm", "A. 15", "A. 12 m", "A. -12 cm", "B. 12 cm"]),
    ("C", "3|5|7|9", ["7.0", "seven", "x = 7", "C. x = 7"], ["C. x = 5", "B. 7", "3 and 7", "-7"]),
    ("C", "30°|45°|60°|90°", [r"60^\circ", r"(C) $60^\circ$", "60 degrees"], [r"(C) $45^\circ$"]),
    ("A", r"2\sqrt{3}|3\sqrt{2}|6", ["√12", "A. 2√3"], ["A. 3√2", "√18", "A. √12 or 6", "12"]),
    ("B", r"$\frac{1}{2}$|$\frac{2}{3}$", [r"B. $\dfrac{2}{3}$", "2/3"], ["A. 2/3", "3/2"]),
    (
        "A",
        "Yes|No",
        ["Yes, they are.", "Yes"],
        ["Yes, they are not", "Yes, but no", "No, they are"],
    ),
    ("B", "Yes|No", ["No, they are not."], ["No, they are similar", "no, yes", "not no, yes"]),
    ("A", "a cat|a dog", ["A. cat", "cat", "A cat"], ["A. dog", "a catfish"]),
    ("C", SENTENCES, ["C. I and II"], ["C. I only", "C. I", "C. II only", "I or II"]),
    ("A", "increase|decrease", ["A. it will increase"], ["A. decreasing", "it does not increase"]),
    ("B", "25|.25", [".25", "B. 0.25", "1/4"], ["25"]),
    # A cut or inflected text of another option beside a letter.
    (
        "B",
        "New York City|Los Angeles",
        ["B. Los Angeles city", "B. angeles"],
        ["B. New York", "B. York", "B - New York"],
    ),
    ("B", "cats|dogs", ["B. dog", "B. the dogs here"], ["B. cat", "B. a cat"]),
    ("B", "left side|right side", ["B. right", "B. the right one"], ["B. left", "B. leftmost"]),
    (
        "B",
        "the small circle|the large circle",
        ["B. the large one", "B. a large circle", "B. the circle that is large in the picture"],
        ["B. the small one", "B. small circle", "B. smaller"],
    ),
    (
        "A",
        "It increases|It decreases",
        ["A. The value increases", "A. increasing"],
        ["A. The value decreases", "A. a decrease"],
    ),
    ("A", "circle|small circle", ["A. the circle here"], ["A. the small circle here", "A. small"]),
    ("B", "红色的圆|蓝色的圆", ["B、蓝色", "B、这是蓝色的"], ["B、红色", "B、这是红色的"]),
    ("B", COLORS, ["B. bluish"], ["B. hardly blue", "B. barely blue", "B. scarcely blue"]),
    # A dash before a digit may be its sign.
    ("A", "5|-5", ["5", "A. 5"], ["- 5", "– 5", "- five", "- 5.0", "-5"]),
    ("B", COLORS, ["- blue", "– B", "- (B)"], ["- red", "- A"]),
    ("C", "y|z|w|-w", ["C. w"], ["- w"]),
    # A statement with a denying, reporting or long subject.
    (
        "B",
        COLORS,
        ["The color of the sign in the image is blue", "The first shape is blue"],
        [
            "The distractor is blue",
            "The least likely answer is blue",
            "Nobody says it is blue",
            "He said it is blue",
            "If the sky is blue",
            "It is unlikely that the color is blue",
            "The color that all of the people here picked is blue",
        ],
    ),
    (
        "B",
        "7|14",
        ["x = 14", "AB = 14", "Area = 14", "x_1 = 14", r"\angle 1 = 14", "The value of x is 14"],
        [
            "2x = 14",
            "x + 1 = 14",
            "xy = 14",
            "x^2 = 14",
            r"\frac{x}{2} = 14",
            "-x = 14",
            "x y = 14",
        ],
    ),
    ("B", "7|14", ["y-coordinate = 14"], ["2x is 14", "x squared is 14", "f(x) = 14", "|x| = 14"]),
    ("B", "4|3:4", ["The ratio is 3:4"], ["3:5", "The ratio is 4"]),
    # Units.
    ("A", "5 km/h|6 km/h", ["5 kph", "5 kilometers per hour", "A. 5"], ["5 mph", "5 km", "A. 5 m"]),
    ("B", "30 °C|40 °C", ["40 degrees Celsius", "40°C"], ["30 °C", "40 °F"]),
    ("A", "7 boys|5 girls", ["seven boys"], ["7 girls", "7 people"]),
    ("A", "¥5|¥6", ["5 yuan", "5元", "5 yen", "5"], ["6 yen", "€5"]),
]
COUNTS = [
    (
        "23",
        "",
        ["twenty-three", "Twenty three dogs", "二十三", "共23只"],
        ["twenty", "three", "203"],
    ),
    ("105", "", ["one hundred and five", "a hundred five", "一百零五"], ["one hundred", "一百五"]),
    ("0", "", ["none", "There are no dogs in the image.", "没有"], ["no idea", "no fewer than 3"]),
    ("0", "", ["There are none"], ["none of the above", "no more than 5", "no", "no one knows"]),
    (
        "5",
        "",
        ["5个", "五只", "一共5个。", "图中有5条鱼"],
        ["不是5个", "约5个", "第5个", "5个或6个"],
    ),
    ("5", "", ["五名学生"], ["五六个", "十五个", "至少5个", "5个左右", "5双"]),
    ("2", "", ["两个", "a pair"], ["a couple", "both", "2 pairs", "a pair of pairs"]),
    ("12", "", ["a dozen", "12 (a dozen)"], ["half a dozen", "about a dozen", "12 dozen"]),
    ("1", "", ["a single dog"], ["not a single dog", "a single dog and two cats"]),
    (
        "7",
        "",
        ["3 red and 4 blue, 7 in total", "7 dogs (3 black and 4 white)"],
        ["3 red and 4 blue"],
    ),
    (
        "7",
        "",
        ["In total there are 7 birds: 2 here and 5 there."],
        ["3 red and 5 blue, 7 in total"],
    ),
    ("7", "", ["3 + 4 = 7", "$3+4=7$ dogs"], ["3 + 5 = 7", "3 + 4", "7 = 7 or 8", "3 + 4 = 8"]),
    (
        "7",
        "",
        ["dogs: 7", "7 ✅"],
        ["wrong: 7", "step 7: 8", "7 ❌", "maximum: 7", "cats: 7, dogs: 7"],
    ),
    ("7", "", ["7 dogs.\n\nExplanation: two hide, five do not."], ["7 or 8", "not 7", "about 7"]),
    (
        "0",
        "",
        [
            "no people",
            "no red circles here",
            "There are no pictures on the wall",
            "no cats in image",
            "no cats on the mat",
        ],
        [
            "no comment",
            "no information",
            "No image",
            "no picture provided",
            "no response",
            "no limit",
            "no thanks",
            "There is no image",
            "no data",
            "no, it is",
            "no it is",
        ],
    ),
    ("7", "", ["red dogs: 7", "Total: 7"], ["lie: 7", "example: 7", "for example: 7", "limit: 7"]),
    ("1024", "", ["1 024", "1 024 dogs"], ["1 24", "102 4", "1 0 2 4"]),
]
TEXTS = [
    (
        "Paris",
        "",
        ["Paris.", "“Paris”", "`Paris`", "*Paris*", r"$$\text{Paris}$$", "Paris!"],
        ["Paris?"],
    ),
    ("Paris", "", ["The answer is Paris.", "**Answer:** Paris"], ["The answer is not Paris"]),
    ("Paris", "", ["It is Paris."], ["Not Paris", "Paris or Rome", "near Paris", "Paris, Texas"]),
    ("Paris", "", ["Paris\n\nExplanation: not Rome."], ["Rome\n\nExplanation: not Paris."]),
    (
        "STOP",
        "",
        ['The text reads "STOP".', "the stop"],
        ['It does not read "STOP"', "it says stop"],
    ),
    ("don't walk", "", ["Don’t Walk."], ["walk", "do walk", "dont walk"]),
    ("Vitamin A", "", ["the vitamin A"], ["Vitamin", "a vitamin"]),
    ("A major", "", ["A major."], ["major"]),
    (
        "1990-2000",
        "",
        ["1990–2000", "1990 - 2000", "1990 to 2000"],
        ["1990", "2000-1990", "1990-2001"],
    ),
    ("3-2", "", ["3 – 2", "3 to 2"], ["2-3", "32", "3", "1"]),
    ("12:30", "", ["12 : 30"], ["1:230", "12:03", "1230"]),
    ("Coca-Cola", "", ["Coca Cola"], ["Coca", "Cola", "Pepsi-Cola"]),
    ("p - q", "", ["p-q", r"\(p - q\)"], ["pq", "q - p", "p + q"]),
    ("北京", "", ["北京。", "北 京"], ["南京", "不是北京", "北京市长"]),
    ("H2O", "", ["H_2O", r"\text{H}_2\text{O}"], ["H3O", "HO2", "H2O2"]),
    ("10^2", "", ["$10^2$"], ["102", "10", "2^10"]),
    ("5!", "", ["5!"], ["5", "120"]),
    ("yes", "", ["Yes, it is."], ["yes or no", "Yes, it is not", "no", "Yes, but it is red"]),
    ("no", "", ["No, there is not."], ["No, there is", "I don't know", "No. 5"]),
    (
        "red and white",
        "",
        ["white and red", "red & white"],
        ["red or white", "red", "red and black"],
    ),
    (
        "1, 2",
        "",
        ["1 and 2", "x = 1 or x = 2", "{1, 2}", "$1$, $2$"],
        ["1", "1, 2, 3", "1, 1", "12"],
    ),
    ("3, 1, 2", "", ["3,1,2"], ["1, 2, 3"]),
    ("x = -5, p = 3", "", ["-5, 3", "p = 3, x = -5"], ["3, -5", "x = 3, p = -5"]),
    ("(1, 2)", "", ["(1,2)"], ["(2, 1)"]),
    ("1,234", "", ["1,234."], ["1234", "1, 234", "234, 1"]),
    ("7", "", ["7."], ["7.0", "seven", "7 miles", "7 or 8", "$7", "7!", "-7"]),
    ("5 miles", "", ["5", "5.0 miles", r"5\text{ miles}", "5 mi"], ["6", "5 km", "about 5 miles"]),
    (
        "5 miles",
        "",
        ["five miles"],
        ["5 or 6 miles", "5-6 miles", "less than 5 miles", "5 miles^2"],
    ),
    ("5 km/h", "", ["5 kph", "5 kilometers per hour", "5 KM/H"], ["5 mph", "5 km", "5 m/s"]),
    ("10 sq ft", "", ["10 ft^2", "10 square feet", "10"], ["10 ft", "10 ft^3", "10 m^2"]),
    ("7 A", "", ["7 a", "7 A."], ["7", "7 B"]),
    ("5月", "", ["5月。"], ["5", "5 months"]),
    ("7 boys", "", ["seven boys"], ["7", "7 girls"]),
    ("20%", "", ["20 percent", "20"], ["20 cm", "2%"]),
    ("20 square units", "", ["20 units²", "20"], ["20 cubic units", "20 units"]),
    ("$1,299.00", "", ["1299", "$1,299"], ["1,299.01", "€1,299", "1"]),
    ("10 Downing Street", "", ["10 downing street"], ["10", "11 Downing Street"]),
    (
        "March 5, 2021",
        "",
        ["5 March 2021", "2021-03-05"],
        ["March 6, 2021", "2021-05-03", "March 5"],
    ),
    ("CT", "", ["CT (computed tomography)"], ["CT (magnetic resonance)", "MRI"]),
    (
        r"\begin{pmatrix}1 & 0 \\ 0 & 1\end{pmatrix}",
        "",
        [
            r"$\begin{pmatrix}1&0\\0&1\end{pmatrix}$.",
            r"The matrix is $\left[\begin{array}{cc}1 & 0 \\ 0 & 1\end{array}\right]$",
        ],
        [
            r"\begin{pmatrix}1 & 0 \\ 0 & 2\end{pmatrix}",
            r"\begin{vmatrix}1 & 0 \\ 0 & 1\end{vmatrix}",
        ],
    ),
]
BOXES = [
    (
        ONE_CAT,
        "",
        [
            '{"bbox": [100, 100, 200, 200], "label": "cat"}',
            '[{"box": [100, 100, 200, 200], "category": "a cat"}]',
            '{"x1": 100, "y1": 100, "x2": 200, "y2": 200, "label": "cats"}',
            '[{"xmin": 100, "ymin": 100, "xmax": 200, "ymax": 200, "label": "cat #1"}]',
            '{"label": "cat", "left": 100, "top": 100, "right": 200, "bottom": 200}',
            '[{"bbox_2d": ["100", "100", "200", "200"], "label": "cat"}]',
            '[{"bbox_2d": [[100, 100], [200, 200]], "label": "cat"}]',
        ],
        [
            '{"bbox": [100, 100, 200, 200], "bbox_2d": [9, 9, 20, 20], "label": "cat"}',
            '{"x": 100, "y": 100, "width": 100, "height": 100, "label": "cat"}',
            '[{"box": [100, 100, 200, 200], "category": "dog"}]',
            '{"x1": 200, "y1": 200, "x2": 100, "y2": 100, "label": "cat"}',
            '[{"bbox_2d": [100, 100, 200, 200], "label": "catalog"}]',
            '[{"bbox_2d": ["100", 100, 200, 200], "label": "cat"}]',
        ],
    ),
    (
        ONE_CAT,
        "",
        [
            "[100, 100, 200, 200]",
            "[[100, 100, 200, 200]]",
            "(100,100),(200,200)",
            "The cat is at [100, 100, 200, 200].",
            "x1=100, y1=100, x2=200, y2=200",
            "<|box_start|>(100,100),(200,200)<|box_end|>",
            "<|object_ref_start|>cat<|object_ref_end|><|box_start|>(100,100),(200,200)<|box_end|>",
        ],
        [
            "not at [100, 100, 200, 200]",
            "[100, 100, 200, 200] or [1, 1, 2, 2]",
            "(100,100),(200,200) or (1,1),(2,2)",
            "[[100, 100, 200, 200], [100, 100, 200, 200]]",
            "[200, 200, 100, 100]",
            "[100, 100, 100, 100]",
            "[0.1, 0.1, 0.2, 0.2]",
            "x1=100, y1=100, x2=200",
            "<|box_start|>(100,100),(200,200)<|box_end|> is not the cat",
            "<|object_ref_start|>dog<|object_ref_end|><|box_start|>(100,100),(200,200)<|box_end|>",
        ],
    ),
    (
        ONE_CAT,
        "",
        [
            "[{“bbox_2d”: [100, 100, 200, 200], “label”: “cat”}]",
            '[{bbox_2d: [100, 100, 200, 200], label: "cat"} // the cat\n]',
            "[{'bbox_2d': (100, 100, 200, 200), 'label': 'cat'}]",
        ],
        [
            '[{bbox_2d: [100, 100, 200, 200], label: "cat"}',
            '[{bbox_2d: [100, 100, 200, 200], bbox_2d: [1, 1, 2, 2], label: "cat"}]',
            '[{bbox_2d: [100, 100, 200, Infinity], label: "cat"}]',
        ],
    ),
    (
        ONE_CAT,
        "",
        [
            f"{ONE_CAT} The cat is not fully visible.",
            f"{ONE_CAT} Note that there are no dogs.",
            f"The cat, without a collar: {ONE_CAT}",
        ],
        [
            f"{ONE_CAT} The cat is not visible.",
            f"{ONE_CAT} There are no cats.",
            f"{ONE_CAT} There is no animal.",
            f"A picture without a cat: {ONE_CAT}",
        ],
    ),
    (
        CATS,
        "",
        [CATS[1:-1], CATS[1:-1].replace("}, ", "}\n"), "1. " + CATS[1:-1].replace("}, ", "}\n2. ")],
        [CATS[1:-1].replace("}, ", "} "), CATS[1:], CATS[:-1], "[[0, 0, 10, 10], [50, 0, 60, 10]]"],
    ),
]
TABLES = {"choice": CHOICES, "count": COUNTS, "text": TEXTS, "boxes": BOXES}
ROWS = [(kind, *row) for kind, table in TABLES.items() for row in table]


@pytest.mark.parametrize(
    ("kind", "gold", "options", "answer"),
    [(kind, gold, options, a) for kind, gold, options, correct, _ in ROWS for a in correct],
)
def test_a_correct_answer_is_paid_in_any_words(
    kind: str, gold: str, options: str, answer: str
) -> None:
    assert is_paid(kind, gold, options, answer)


@pytest.mark.parametrize(
    ("kind", "gold", "options", "answer"),
    [(kind, gold, options, a) for kind, gold, options, _, wrong in ROWS for a in wrong],
)
def test_a_wrong_or_doubtful_answer_in_similar_words_is_not_paid(
    kind: str, gold: str, options: str, answer: str
) -> None:
    assert not is_paid(kind, gold, options, answer)


@pytest.mark.parametrize("piece", ["=", "x=", "是", "x is ", ":", "- "])
def test_a_long_answer_with_many_statements_is_graded_fast(piece: str) -> None:
    graded, response = sample("choice", "B", COLORS), f"<answer>{piece * 500}</answer>"
    started = time.process_time()
    assert grade.grade(response, graded) is not Verdict.correct
    assert time.process_time() - started < 0.3


def text_credit(answer: str, gold: str, credit: TextCredit, correct_min: float = 1.0) -> float:
    rules = GradeConfig(text=credit, text_correct_min=correct_min)
    decision = grade.GRADERS[AnswerKind.text].decide(answer, gold, (), rules)
    assert decision.credit is not None
    return decision.credit


@pytest.mark.parametrize("answer", ["a stop sign", "stop sign.", '"stop sign"', "stop-sign"])
def test_strict_texts_keep_their_articles_and_punctuation(answer: str) -> None:
    assert text_credit(answer, "Stop Sign", TextCredit.strict) == 0
    assert text_credit(answer, "Stop Sign", TextCredit.exact) == 1


def test_a_strict_text_may_differ_in_case_width_and_spacing() -> None:
    assert text_credit("ｓｔｏｐ   SIGN", "Stop Sign", TextCredit.strict) == 1
    assert text_credit(r"\text{Stop Sign}", "Stop Sign", TextCredit.strict) == 1


def test_anls_is_one_minus_the_normalized_distance_and_zero_from_a_half_on() -> None:
    # `stop` to `stopp`: 1 edit of 5 characters; to `stopsign`: 4 of 8; to `st`: 2 of 4.
    assert text_credit("Stop", "stopp", TextCredit.anls) == pytest.approx(4 / 5)
    assert text_credit("stop", "stopsign", TextCredit.anls) == 0
    assert text_credit("stop", "st", TextCredit.anls) == 0
    assert text_credit("STOP", "stop", TextCredit.anls) == 1


def test_anls_counts_as_correct_from_its_threshold_on() -> None:
    assert text_credit("stop", "stopp", TextCredit.anls, correct_min=0.8) == 1
    assert text_credit("stop", "stopp", TextCredit.anls, correct_min=0.81) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("The two dogs!", "2 dogs"),
        ("dont", "don't"),
        ("a/b", "a b"),
        ("1,000", "1000"),
        ("no.", "No"),
    ],
)
def test_vqa_normalizes_articles_number_words_contractions_and_punctuation(
    answer: str, gold: str
) -> None:
    assert text_credit(answer, gold, TextCredit.vqa) == 1
    assert text_credit(f"not {answer}", gold, TextCredit.vqa) == 0


@pytest.mark.parametrize("threshold_kind", [TextCredit.exact, TextCredit.strict, TextCredit.vqa])
def test_only_scores_have_a_threshold(threshold_kind: TextCredit) -> None:
    assert list(GradeConfig(text=threshold_kind, text_correct_min=0.8).check())
    assert not list(GradeConfig(text=TextCredit.anls, text_correct_min=0.8).check())


PLAIN = [
    ("choice", "B", "red|blue|green|orange", "The answer is B."),
    ("choice", "B", "red|blue|green|orange", "B"),
    ("count", "7", "", "There are 7 dogs."),
    ("text", "Paris", "", "paris."),
    ("boxes", ONE_CAT, "", ONE_CAT),
]


@pytest.mark.parametrize(("kind", "gold", "options", "answer"), PLAIN)
def test_two_thousand_plain_answers_are_graded_in_a_second(
    kind: str, gold: str, options: str, answer: str
) -> None:
    graded, response = sample(kind, gold, options), f"<answer>{answer}</answer>"
    grade.grade(response, graded)  # parses the gold answer
    started = time.process_time()
    for _ in range(500):
        grade.grade(response, graded)
    assert time.process_time() - started < 500 / 2000
