"""Multiple choice as MMMU and MMStar put it and score it: by the rule, else by a judge."""

from collections.abc import Mapping
from dataclasses import dataclass

from difftrain import seeds
from difftrain.config.evaluate import Fallback
from difftrain.data import prompts
from difftrain.evaluate import items, judge_prompts, rules
from difftrain.evaluate.graded import UNDECIDED, Graded, Item, Judge
from difftrain.evaluate.rules import Switches
from difftrain.records import GradedBy

_GAP = "\0"


@dataclass(frozen=True, slots=True)
class Choice:
    """A question with lettered options and the letter that is right."""

    question: str
    options: Mapping[str, str]
    gold: str
    identity: str = ""
    """What a drawn fallback depends on."""


def words(item: Item) -> str:
    """The question with its lettered options; without options, the question alone."""
    question = items.text(item, "question")
    hint = None if items.is_empty(item.get("hint")) else str(item["hint"])
    options = items.options(item)
    if not options:
        return (f"Hint: {hint}\n" if hint else "") + f"Question: {question}\n"
    # An empty option in the middle keeps its letter, so its line is made and then dropped.
    upto = prompts.LETTERS.index(max(options)) + 1
    texts = [options.get(letter, _GAP) for letter in prompts.LETTERS[:upto]]
    lines = prompts.multiple_choice(question, texts, hint).splitlines(keepends=True)
    return "".join(line for line in lines if _GAP not in line)


def drawn(choice: Choice) -> str:
    """One of the option letters or Z: the reference's guess, but the same on every machine."""
    letters = [*choice.options, rules.NONE_OF_THEM]
    return letters[seeds.derive(0, "fallback", choice.identity, choice.question) % len(letters)]


def grade(prediction: str, choice: Choice, asked: Judge | None, how: Switches) -> Graded:
    """1 if the option the prediction means is the gold one, else 0.

    Where the reference harness draws an option at random (the judge gave three replies of no
    use), this is wrong. If the deviations say that it be drawn, the drawn letter counts. The path
    is `failed` both times: nothing was decided. A judge that could not be reached gives no score.
    """

    def infer(text: str) -> str | None:
        return rules.infer(text, choice.options, how)

    letter, path = infer(prediction), GradedBy.rule
    if letter is None and asked is not None:
        prompt = judge_prompts.match_options(choice.question, choice.options, prediction)
        letter, replies = judge_prompts.first_usable(asked, prompt, judge_prompts.STEADY, infer)
        path = GradedBy.judge
        if judge_prompts.all_failed(replies):
            return Graded(None, None, GradedBy.failed)
        if letter is None and how.deviations.fallback is Fallback.random:
            letter, path = drawn(choice), GradedBy.failed
    if letter is None:
        return UNDECIDED
    return Graded(float(letter == choice.gold), letter, path)
