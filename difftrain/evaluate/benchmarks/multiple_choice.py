"""Grades multiple choice as the harness (VLMEvalKit) does, by matching options, else by a judge.

Shared by MathVista, MMMU, MMStar and WeMath. The harness's faults are repeated on purpose. For
example, the prediction "$70" matches the option "$7".
"""

import re
from collections.abc import Callable, Mapping

from difftrain import seeds
from difftrain.config.evaluate import Fallback
from difftrain.data import prompts
from difftrain.evaluate import harness
from difftrain.evaluate.harness import HarnessRules, Item, ItemGrade, Judge
from difftrain.records import GradedBy

NONE_OF_THEM = "Z"  # the harness's letter for "no option"
NUM_LAST_TOKENS = 4  # by rules with `letter_near_end`, a letter counts only among these
REFUSALS = (  # phrases that the harness takes for a refusal
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
BuildPrompt = Callable[[str, Mapping[str, str], str], str]
"""(question, options, prediction) -> the judge's prompt."""
_PUNCTUATION_TO_BLANKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))


def question_text(item: Item) -> str:
    """The question with its lettered options, if it has any."""
    question, options = harness.text(item, "question"), harness.options(item)
    hint = None if harness.is_empty(item.get("hint")) else str(item["hint"])
    if not options:
        return (f"Hint: {hint}\n" if hint else "") + f"Question: {question}\n"
    # If option B is empty, C keeps its letter: B gets the text "\0", and then its line is removed.
    num_letters = prompts.LETTERS.index(max(options)) + 1
    texts = [options.get(letter, "\0") for letter in prompts.LETTERS[:num_letters]]
    lines = prompts.multiple_choice(question, texts, hint).splitlines(keepends=True)
    return "".join(line for line in lines if "\0" not in line)


def _match_letter(prediction: str, options: Mapping[str, str], rules: HarnessRules) -> str | None:
    """The option letter that occurs as a separate word, Z for a refusal, or None."""
    if harness.API_FAILURE in prediction:  # the harness's text for a failed call
        return None
    if any(phrase in prediction for phrase in REFUSALS):
        return NONE_OF_THEM
    tokens = prediction.translate(_PUNCTUATION_TO_BLANKS).split()
    present = [letter for letter in options if letter in tokens]
    if len(present) == 1:
        index = tokens.index(present[0])
        if not rules.letter_near_end or index >= len(tokens) - NUM_LAST_TOKENS:
            return present[0]
    if not present and NONE_OF_THEM in tokens:
        return NONE_OF_THEM
    # `whole_letter`: the A of "answer is Apple" is no option letter.
    pattern = r"answer\s+is\s+\**([A-D])" + (r"(?!\w)" if rules.overrides.whole_letter else "")
    if rules.answer_is and (match := re.search(pattern, prediction, re.IGNORECASE)):
        letter = match[1].upper()
        return letter if letter in options else None
    return None


def _is_short(prediction: str, options: Mapping[str, str], rules: HarnessRules) -> bool:
    """Whether the texts of the options are looked for in a prediction of this length."""
    max_length = 2 * sum(len(text) for text in options.values())
    # The harness lowers only the prediction before it compares the lengths. `İ` becomes two
    # characters, and no other character changes the length.
    return not rules.bounded_length or len(prediction.lower()) <= max_length


def match_option(prediction: str, options: Mapping[str, str], rules: HarnessRules) -> str | None:
    """The letter of the option that a prediction names, Z if it refuses, None if unclear."""
    if letter := _match_letter(prediction, options, rules):
        return letter
    if not _is_short(prediction, options, rules):
        return None
    lowered = prediction.lower()
    present = [letter for letter, text in options.items() if text.lower() in lowered]
    return present[0] if len(present) == 1 else None


def judge_prompt(question: str, options: Mapping[str, str], prediction: str) -> str:
    """The harness's prompt to find the option that is meant, translated for a Chinese question."""
    return match_prompt("multiple_choice", question, options, prediction)


def match_prompt(name: str, question: str, options: Mapping[str, str], prediction: str) -> str:
    """The prompt judge/prompts/NAME.txt, or NAME_chinese.txt, with this item."""
    listed = option_list(options)
    if any("\u4e00" <= character <= "\u9fff" for character in question):  # Chinese
        text = f"问题: {question}?\n选项: {listed}\n答案: {prediction}\n输出: "
        return harness.judge_prompt(f"{name}_chinese", text)
    text = f"Question: {question}?\nOptions: {listed}\nAnswer: {prediction}\nYour output: "
    return harness.judge_prompt(name, text)


def option_list(options: Mapping[str, str]) -> str:
    """The options as the harness lists them in a judge's prompt."""
    lines = "".join(f"{letter}. {text}\n" for letter, text in options.items())
    return f"There are several options: \n{lines}"


def grade(
    prediction: str,
    item: Item,
    options: Mapping[str, str],
    gold: str,
    judge: Judge | None,
    rules: HarnessRules,
    build_prompt: BuildPrompt = judge_prompt,
) -> ItemGrade:
    """The score is 1 if the prediction means the option with the gold letter, else 0.

    After three replies of the judge that name no option, the harness picks an option at random.
    difftrain does so only with overrides.fallback=random; by default the item is undecided and
    counts as wrong. If all replies are the harness's text for a failed call, there is no score.
    """
    texts = dict(options)

    def parse(text: str) -> str | None:
        letter = match_option(text, texts, rules)
        if _is_short(text, texts, rules):  # the harness lowers its options in place
            texts.update({key: option.lower() for key, option in texts.items()})
        return letter

    def parse_reply(reply: str) -> str | None:
        return None if harness.API_FAILURE in reply else parse(reply)

    letter, graded_by = parse(prediction), GradedBy.rule
    if letter is None and judge is not None:
        question = str(item.get("question", ""))
        prompt = build_prompt(question, options, prediction)
        letter, replies = harness.first_usable(
            judge, prompt, harness.EQUAL_TEMPERATURES, parse_reply
        )
        graded_by = GradedBy.judge
        if all(harness.API_FAILURE in reply for reply in replies):
            return ItemGrade(score=None, error=f"the judge failed: {harness.API_FAILURE}")
        if letter is None and rules.overrides.fallback is Fallback.random:
            letters, item_id = [*options, NONE_OF_THEM], str(item.get("id") or item.get("index"))
            random_number = seeds.derive(0, "fallback", item_id, question)  # the same in every run
            letter, graded_by = letters[random_number % len(letters)], None
    if letter is None:
        return harness.UNDECIDED
    return ItemGrade(float(letter == gold), letter, graded_by)
