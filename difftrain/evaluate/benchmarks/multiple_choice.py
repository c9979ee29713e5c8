"""Multiple choice as the reference harness scores it: by matching options, else by a judge.

Shared by MathVista, MMMU and MMStar. The harness's accidents are kept on purpose: "$70" contains
"$7".
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from difftrain import seeds
from difftrain.config.evaluate import Fallback
from difftrain.data import prompts
from difftrain.evaluate import harness
from difftrain.evaluate.harness import HarnessRules, Item, ItemGrade, Judge
from difftrain.records import GradedBy

NONE_OF_THEM = "Z"
LAST_TOKENS = 4
REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_BLANKED = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_ANSWER_IS = re.compile(r"answer is\s*\**\s*([A-D])", re.IGNORECASE)
_ANSWER_IS_ALONE = re.compile(r"answer is\s*\**\s*([A-D])(?!\w)", re.IGNORECASE)
_GAP = "\0"
_MATCH_OPTIONS = """\
You are an AI assistant who will help me to match an answer with several options of a \
single-choice question. You are provided with a question, several options, and an answer, and \
you need to find which option is most similar to the answer. If the meaning of all options are \
significantly different from the answer, output Z. Your should output a single uppercase \
character in A, B, C, D (if they are valid options), and Z.
Example 1:
Question: What is the main object in image?
Options: A. teddy bear B. rabbit C. cat D. dog
Answer: a cute teddy bear
Your output: A
Example 2:
Question: What is the main object in image?
Options: A. teddy bear B. rabbit C. cat D. dog
Answer: Spider
Your output: Z
Example 3:
"""
# The reference has a Chinese form of the same content; these words are ours.
_MATCH_OPTIONS_CHINESE = """\
你是一个帮助我把答案与单选题的选项进行匹配的人工智能助手。给你一个问题、若干选项和一个答案\uff0c\
你需要找出与答案最相似的选项。如果所有选项的含义都与答案明显不同\uff0c请输出 Z。\
你只应输出一个大写字母\uff1aA、B、C、D\uff08如果它们是有效选项\uff09或 Z。
例 1:
问题: 图中最主要的物体是什么?
选项: A. 泰迪熊 B. 兔子 C. 猫 D. 狗
答案: 一只可爱的泰迪熊
输出: A
例 2:
问题: 图中最主要的物体是什么?
选项: A. 泰迪熊 B. 兔子 C. 猫 D. 狗
答案: 蜘蛛
输出: Z
例 3:
"""


@dataclass(frozen=True, slots=True)
class Choice:
    """A question with lettered options and the gold letter."""

    question: str
    options: Mapping[str, str]
    gold: str
    item_id: str = ""
    """Seeds the random fallback."""


def question_text(item: Item) -> str:
    """The question with its lettered options; without options, the question alone."""
    question = harness.text(item, "question")
    hint = None if harness.is_empty(item.get("hint")) else str(item["hint"])
    options = harness.options(item)
    if not options:
        return (f"Hint: {hint}\n" if hint else "") + f"Question: {question}\n"
    # An empty option in the middle keeps its letter, so its line is made and then dropped.
    count = prompts.LETTERS.index(max(options)) + 1
    texts = [options.get(letter, _GAP) for letter in prompts.LETTERS[:count]]
    lines = prompts.multiple_choice(question, texts, hint).splitlines(keepends=True)
    return "".join(line for line in lines if _GAP not in line)


def match_letter(prediction: str, options: Mapping[str, str], rules: HarnessRules) -> str | None:
    """The option letter that stands as a word of its own, Z for a refusal, or None."""
    if harness.API_FAILURE in prediction:
        return None
    if any(phrase in prediction for phrase in REFUSALS):
        return NONE_OF_THEM
    tokens = prediction.translate(_BLANKED).split()
    present = [letter for letter in options if letter in tokens]
    if len(present) == 1:
        index = tokens.index(present[0])
        if not rules.letter_near_end or index >= len(tokens) - LAST_TOKENS:
            return present[0]
    if not present and NONE_OF_THEM in tokens:
        return NONE_OF_THEM
    pattern = _ANSWER_IS_ALONE if rules.overrides.whole_letter else _ANSWER_IS
    if rules.answer_is and (match := pattern.search(prediction)):
        letter = match[1].upper()
        return letter if letter in options else None
    return None


def match_text(prediction: str, options: Mapping[str, str], rules: HarnessRules) -> str | None:
    """The one option whose text occurs in the prediction, ignoring case, or None."""
    max_length = 2 * sum(len(text) for text in options.values())
    if rules.bounded_length and len(prediction) > max_length:
        return None
    lowered = prediction.lower()
    present = [letter for letter, text in options.items() if text.lower() in lowered]
    return present[0] if len(present) == 1 else None


def match_option(prediction: str, options: Mapping[str, str], rules: HarnessRules) -> str | None:
    """The option a prediction means: a letter, Z (none of them), or None (the rule cannot say)."""
    return match_letter(prediction, options, rules) or match_text(prediction, options, rules)


def judge_prompt(question: str, options: Mapping[str, str], prediction: str) -> str:
    """The prompt that asks which option a prediction means."""
    lines = "".join(f"{letter}. {text}\n" for letter, text in options.items())
    listed = f"There are several options: \n{lines}"
    if any("\u4e00" <= letter <= "\u9fff" for letter in question):
        last = f"问题: {question}?\n选项: {listed}\n答案: {prediction}\n输出: "
        return _MATCH_OPTIONS_CHINESE + last
    last = f"Question: {question}?\nOptions: {listed}\nAnswer: {prediction}\nYour output: "
    return _MATCH_OPTIONS + last


def grade(prediction: str, choice: Choice, judge: Judge | None, rules: HarnessRules) -> ItemGrade:
    """1 if the option the prediction means is the gold one, else 0.

    Where the reference harness draws an option at random (three replies of the judge were of no
    use), this is undecided and wrong; with `overrides.fallback=random` the drawn letter counts. A
    judge that could not be reached gives no score.
    """

    def parse(text: str) -> str | None:
        return match_option(text, choice.options, rules)

    letter, graded_by = parse(prediction), GradedBy.rule
    if letter is None and judge is not None:
        prompt = judge_prompt(choice.question, choice.options, prediction)
        letter, replies = harness.first_usable(judge, prompt, harness.STEADY, parse)
        graded_by = GradedBy.judge
        if all(harness.API_FAILURE in reply for reply in replies):
            return ItemGrade(None, None, None, f"the judge failed: {harness.API_FAILURE}")
        if letter is None and rules.overrides.fallback is Fallback.random:
            letters = [*choice.options, NONE_OF_THEM]
            number = seeds.derive(0, "fallback", choice.item_id, choice.question)
            letter, graded_by = letters[number % len(letters)], None
    if letter is None:
        return harness.UNDECIDED
    return ItemGrade(float(letter == choice.gold), letter, graded_by)
