"""What the benchmarks ask a judge model, and how its replies are tried again.

A judge is any function (prompt, temperature) -> reply. One that talks to a server over HTTP
belongs in this file; it must raise JudgeDown when the server cannot be reached, so that the item
has no score instead of a zero.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

import httpx

from difftrain.evaluate.graded import Judge
from difftrain.evaluate.rules import API_FAILURE

T = TypeVar("T")

RISING = (0.0, 0.5, 1.0, 1.5, 2.0)
"""Temperatures of successive tries for MathVista, MM-Vet and HallusionBench."""
STEADY = (0.0, 0.0, 0.0)
"""Temperatures of successive tries for multiple choice."""


class JudgeDown(RuntimeError):
    """Nobody answers where the judge should be."""


def ask(judge: Judge, prompt: str, temperature: float) -> str:
    """One reply. Raises JudgeDown for whatever a judge raises when its server cannot be reached."""
    try:
        return judge(prompt, temperature)
    except (OSError, RuntimeError, httpx.HTTPError) as gone:
        # RuntimeError too: client libraries wrap a lost connection in errors of their own.
        raise JudgeDown(f"the judge failed: {gone}") from gone


def first_usable(
    judge: Judge,
    prompt: str,
    temperatures: tuple[float, ...],
    read: Callable[[str], T | None],
) -> tuple[T | None, list[str]]:
    """The first reply that `read` makes something of (None if none), and every reply."""
    replies: list[str] = []
    for temperature in temperatures:
        replies.append(ask(judge, prompt, temperature))
        if (found := read(replies[-1])) is not None:
            return found, replies
    return None, replies


def all_failed(replies: list[str]) -> bool:
    """Whether every reply is the harness's text for a call that never succeeded."""
    return bool(replies) and all(API_FAILURE in reply for reply in replies)


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


def match_options(question: str, options: Mapping[str, str], prediction: str) -> str:
    """The prompt that asks which option a prediction means (MMMU, MMStar)."""
    lines = "".join(f"{letter}. {text}\n" for letter, text in options.items())
    listed = f"There are several options: \n{lines}"
    if any("\u4e00" <= letter <= "\u9fff" for letter in question):
        asked = f"问题: {question}?\n选项: {listed}\n答案: {prediction}\n输出: "
        return _MATCH_OPTIONS_CHINESE + asked
    asked = f"Question: {question}?\nOptions: {listed}\nAnswer: {prediction}\nYour output: "
    return _MATCH_OPTIONS + asked
