"""Do the scorers give the scores of VLMEvalKit's own functions, on random predictions?

    git clone https://github.com/open-compass/VLMEvalKit VLMEVALKIT_FOLDER
    python benchmarks/scorers_fuzz.py VLMEVALKIT_FOLDER [--predictions 100000] [--seed 0] [--json]
                                      [--benchmarks MathVerse WeMath ...]

VLMEvalKit is the reference harness. The clone must have the two commits in COMMITS, one for each
date of the rules; `git show` reads the files there, so that no version has to be checked out.
Only the functions in FUNCTIONS are taken from them and run unchanged, and VLMEvalKit and the
libraries that it needs are not installed. Their files are read and written through FILE_STUBS.

Each benchmark gets the same predictions on both dates: correct and incorrect answers in many
forms, changed at random. About half of them (none in OCRBench) have a judge that gives scripted
replies. Equal means the same score and the same temperatures of the judge's calls. Three
differences are intended and counted as explained (see `explanation`). The judge's prompts are not
compared: difftrain's differ from VLMEvalKit's in line breaks and in the Chinese wording.

In WeMath, predictions without a judge are not compared: the reference's rule for them works on
whole tables. MathVerse, WeMath and LogicVista are compared as the reference's tables leave their
texts (harness.table_text).

Prints the counts and writes benchmarks/results/scorers_fuzz.json; with --benchmarks, the others'
counts stay in it. 100,000 predictions for each of
the nine benchmarks take about ten minutes on one core.
"""

import argparse
import ast
import copy
import json
import math
import os
import random
import re
import string
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from difftrain.evaluate import score_item
from difftrain.evaluate.benchmarks import ocrbench
from difftrain.evaluate.harness import API_FAILURE, RULES, table_text
from difftrain.pipeline import manifest

RESULT = Path(__file__).parent / "results" / "scorers_fuzz.json"
COMMITS = {
    "2025-11": "19c0e386c0967936b5ab4357abdabd670ba5d361",
    "2026-08": "e8e78f05f3080fe28154f2130321f17951c3be94",
}
"""Date of the rules -> commit of VLMEvalKit."""
FUNCTIONS = {
    "utils/matching_util.py": (
        *("_VERBOSE_ANSWER_RE", "can_infer_option", "can_infer_text", "can_infer"),
    ),
    "smp/misc.py": ("process_punctuation", "cn_string"),
    "smp/vlm.py": ("build_option_str",),
    "dataset/utils/multiple_choice.py": (
        *(
            "MMMU_preproc",
            "build_prompt",
            "build_prompt_cn",
            "build_choices",
            "build_prompt_wemath",
        ),
        *("extract_answer_from_item", "eval_vanilla", "mcq_vanilla_eval"),
    ),
    "dataset/utils/yorn.py": ("YOrN_match_prompt", "YOrN_Extraction", "YOrN_auxeval"),
    "dataset/utils/mathvista.py": (
        *("FAIL_MSG", "get_gpt4_ICE", "build_mathvista_gpt4_prompt", "list_to_dict"),
        *("post_check", "MathVista_auxeval"),
    ),
    "dataset/utils/mmvet.py": ("build_mmvet_gpt4_prompt", "MMVet_auxeval"),
    "dataset/image_vqa.py": ("OCRBench.evaluate",),
    "dataset/utils/mathverse.py": (
        *("get_gpt4_extract_ICE", "get_gpt4_score_ICE", "build_mathverse_gpt4_extract_prompt"),
        *("build_mathverse_gpt4_score_prompt", "post_check_score", "MathVerse_auxeval_extract"),
        "MathVerse_auxeval_score",
    ),
    "dataset/utils/logicvista.py": ("build_prompt_logicvista", "LogicVista_auxeval"),
}
"""File in the folder vlmeval -> the functions, constants and methods that are run."""
BATCH = 2000  # predictions in one table
MAX_EXAMPLES = 5  # per benchmark and date, of predictions that score differently


@dataclass
class Case:
    """One prediction for an item, and the judge's replies; without any there is no judge."""

    item: dict[str, Any]
    prediction: str
    replies: list[str]


@dataclass
class ScriptedJudge:
    """Gives its replies in turn, and the last one from then on. The reference calls `generate`."""

    replies: list[str]
    temperatures: list[float] = field(default_factory=list)

    def __call__(self, prompt: str, temperature: float) -> str:
        self.temperatures.append(temperature)
        return self.replies[min(len(self.temperatures), len(self.replies)) - 1]

    def generate(self, prompt: str, temperature: float = 0.0) -> str:
        return self(prompt, temperature)


@dataclass
class StrippingJudge:
    """As the reference's client: it strips a reply, and an empty one is a failed call."""

    judge: ScriptedJudge

    def generate(self, prompt: str, temperature: float = 0.0) -> str:
        return self.judge(prompt, temperature).strip() or f"{API_FAILURE}."


# --- The reference ---


class Table(list):
    """Rows with the two parts of pandas' DataFrame that the scorer of OCRBench uses."""

    @property
    def iloc(self) -> "Table":
        return self


FILE_STUBS = {
    "load": lambda path: path if isinstance(path, Table) else {},
    "dump": lambda data, path: None,
    "get_intermediate_file_path": lambda *parts: "",
    "tqdm": lambda rows: rows,
}
"""Replacements of the functions with which the reference reads and writes files."""


def extract(source: str, names: Sequence[str]) -> ast.Module:
    """The definitions of these names in a source file; a method (Class.name) as a function."""
    found = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
            for method in methods:
                if f"{node.name}.{method.name}" in names:
                    method.decorator_list = []
                    method.name = node.name
                    found.append(method)
        elif isinstance(node, ast.FunctionDef):
            found += [node] * (node.name in names)
        elif isinstance(node, ast.Assign):
            found += [node] * any(getattr(target, "id", None) in names for target in node.targets)
    return ast.Module(found, [])


class Reference:
    """VLMEvalKit's functions at one commit. `drawn` has the cases that got a random option."""

    def __init__(self, clone: Path, date: str) -> None:
        commit, self.rules = COMMITS[date], RULES[date]
        self.drawn: set[int] = set()
        self._judges: Sequence[ScriptedJudge | None] = ()
        self._current = -1  # number of the case that is scored
        self.names: dict[str, Any] = {
            **{"pd": pd, "np": np, "re": re, "string": string, "os": os, "osp": os.path},
            **{"cp": copy, "defaultdict": defaultdict, "rd": self},
            **FILE_STUBS,
            "track_progress_rich": self._each,
            "logger": self,
            "print": self.info,  # LogicVista's scorer prints every prompt
            "get_logger": lambda name: self,
        }
        for path, names in FUNCTIONS.items():
            command = ["git", "-C", str(clone), "show", f"{commit}:vlmeval/{path}"]
            source = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            exec(compile(extract(source, names), path, "exec"), self.names)

    def info(self, *parts: object) -> None:
        """Stands in for the logger."""

    warning = info

    def choice(self, options: Sequence[str]) -> str:
        """Stands in for the module random: notes that the reference draws an option."""
        self.drawn.add(self._current)
        return "random"

    def _each(self, function: Callable, calls: list[dict], keys: list[int], **_: Any) -> list:
        """Stands in for the reference's parallel map; gives each item its own judge."""
        results = []
        for key, call in zip(keys, calls, strict=True):
            self._current = key
            results.append(function(**(call | {"model": self._judges[key]})))
        return results

    def scores(
        self, benchmark: str, cases: list[Case], judges: Sequence[ScriptedJudge | None]
    ) -> list[float]:
        """The reference's score of each case."""
        self.drawn, self._judges = set(), judges
        if benchmark in ("MathVerse", "WeMath", "LogicVista"):
            cases = [self._from_table(case) for case in cases]
        if benchmark in ("MMMU", "MMStar", "WeMath"):
            return self._multiple_choice(benchmark, cases)
        score = {
            "MathVista": self._mathvista,
            "MMVet": self._mmvet,
            "OCRBench": self._ocrbench,
            "HallusionBench": self._hallusionbench,
            "MathVerse": self._mathverse,
            "LogicVista": self._logicvista,
        }[benchmark]
        lines = [{**case.item, "prediction": case.prediction} for case in cases]
        return [float(score(line, judge)) for line, judge in zip(lines, judges, strict=True)]

    def _from_table(self, case: Case) -> Case:
        """The case as the reference reads it from its tables."""
        item = {name: table_text(value, self.rules) for name, value in case.item.items()}
        # An option such as "None" vanishes.
        item = {name: text for name, text in item.items() if len(name) > 1 or text != "nan"}
        return replace(case, item=item, prediction=table_text(case.prediction, self.rules))

    def _multiple_choice(self, benchmark: str, cases: list[Case]) -> list[float]:
        rows = [
            {**dict.fromkeys("AB"), **case.item, "index": i, "prediction": case.prediction}
            for i, case in enumerate(cases)
        ]
        data = pd.DataFrame(rows, dtype=object)
        name = "MMMU_DEV_VAL" if benchmark == "MMMU" else benchmark
        evaluate = self.names["mcq_vanilla_eval"]
        table = evaluate(None, data, data.copy(), 1, "/nonexistent", name)
        return [float(hit) for hit in table["hit"]]

    def _hallusionbench(self, line: dict, judge: ScriptedJudge | None) -> bool:
        answer = self.names["YOrN_Extraction"](line["prediction"])
        if answer == "Unknown" and judge is not None:
            answer = self.names["YOrN_auxeval"](judge, line)
        return answer == line["answer"]

    def _mathvista(self, line: dict, judge: ScriptedJudge | None) -> bool:
        """The reference needs a judge; without one, the item is scored as if all calls failed."""
        judge = judge or ScriptedJudge([f"{API_FAILURE}."])
        extracted = self.names["MathVista_auxeval"](judge, line)
        return self.names["post_check"](line | extracted)

    def _mmvet(self, line: dict, judge: ScriptedJudge | None) -> float:
        judge = judge or ScriptedJudge([f"{API_FAILURE}."])
        return self.names["MMVet_auxeval"](judge, line)["score"]

    def _mathverse(self, line: dict, judge: ScriptedJudge | None) -> float:
        """Both stages; between them, the extraction passes the reference's table."""
        if judge is None:
            return 0.0
        client = StrippingJudge(judge)
        extraction = self.names["MathVerse_auxeval_extract"](client, line)["extract"]
        seen = table_text(extraction, self.rules)
        return float(
            self.names["MathVerse_auxeval_score"](client, line | {"extract": seen})["score"]
        )

    def _logicvista(self, line: dict, judge: ScriptedJudge | None) -> float:
        if judge is None:
            return 0.0
        return self.names["LogicVista_auxeval"](StrippingJudge(judge), line)["hit"]

    def _ocrbench(self, line: dict, judge: ScriptedJudge | None) -> float:
        return self.names["OCRBench"](None, Table([line]))["Final Score"]


# --- Random predictions ---

SENTENCES = (
    *("The left bar is taller than the right one.", "The axis starts at zero, not at 10.5"),
    *("There is no label on it.", "A dog sits in the 2nd row", "It costs $1,200 in total."),
    *("Option A looks right", "So the answer is clearly visible.", "Yes, the line ends at 3.5."),
    *("图中有一只猫。", "The ratio is 3.0:1", "I do not know", "e.g. in No. 4", "See (B)."),
)
PIECES = (
    *".,:;!?*#(){}[]/\\\"'`-_=+<>@$%~|& \n\t\r0123459AaBbCcDdZzSs",
    *("İ", "ı", "ſ", "ß", "Σ", "é", "Ａ", "Ｂ", "２", "．", "，", "。", "²", "½", "😀"),
    *("\u00a0", "\u200b", "\u3000", "\x1c", "\x85", "\u2028", "\u0307", "1.", "2.5", "1,000"),
    *(" . ", "...", " yes", " no", " A", " B ", " Z ", "answer is ", "</think>", "**", ", "),
    *(" yes.", ".no", "1.Yes", " 7.", "\n2. "),
)
REFUSALS = (
    *("Sorry, I can't help with images of people yet.", "I can't process this file."),
    *("I'm sorry, but without the image provided", "Cannot determine the answer"),
    *(f"{API_FAILURE}.", API_FAILURE, f"{API_FAILURE}. B", f"Yes. {API_FAILURE}."),
)
EMPTY = ("", " ", "\n", "nan", "None", "N/A", "null", ".", "?", "\x00", "\u200b")
OPTION_SETS = (
    *(["red", "blue", "green", "orange"], ["$6", "$7", "$8", "$9", "$70"], ["Yes", "No"]),
    *(["quarter", "quarter past", "half past five"], ["6cm", "7cm", "4cm", "5cm"]),
    *(["A red kite.", "A blue kite.", "A green kite.", "A drum."], ["1/2", "0.5", "50%", "5"]),
    *(["answer", "no answer", "via", "API", "Failed"], ["İstanbul", "İzmir", "Iğdır", "ΟΔΟΣ"]),
    *(["６ cm", "6 cm", "60 cm", "0.6 m"], ["None of the above", "nan", "null", "All"]),
    *(["A", "B", "C", "D"], ["e", "an", "it", "the", "is", "of", "no"], ["猫", "狗", "这是猫"]),
    *(["D", "C", "B", "A"], ["the long side of a triangle " * 3, "the short one " * 4, "none"]),
    ["1", "2", "3", "4", "10", "12", "20", "21", "100"],
)
CHOICE_FORMS = (
    *("{L}", "({L})", "{L}.", "**{L}**", "{L}: {t}", "{L}. {t}", "Answer: {L}", "{t}", "{T}"),
    *("The answer is {L}", "The correct answer is **{L}**. {s}", "answer is {l}", "{t}.", "{s}"),
    *("The answer  is\n{L}, since {M} is not", "ANSWER IS **{L}", "answer is ** {L}", "{s} {L}"),
    *("<think>{s} {M}</think>{L}", "<answer>{L}</answer>", "\\boxed{{{L}}}", "Option {L}"),
    *("{L} or {M}", "{L} {s}", "{L}, because {s} {s}", "It is {t}", "{t}, not {u}", "{l}"),
    *("**The correct answer is** {L} because {M} and {s}", "My answer is {t}", "Z", "{n}\n{L}"),
    *("{n}\nThe answer is {L}.", "The answer is {L}, since {M} {s} {s}", "answeris{L}", "$ {L} $"),
    *(
        "The anſwer is {L} here, not {M}",
        "the answer iſ {L} {s} {s}",
        "answer\u00a0is\u3000{L} {s}",
    ),
)
YES_NO_FORMS = (
    *(
        "Yes",
        "No",
        "yes.",
        "No,",
        "**Yes**",
        "YES!",
        "{n}\nYes.",
        "{n}\nno.",
        "Yes. {s}",
        "{s} No.",
    ),
    *(
        "No, {s}",
        "<answer>{y}</answer>",
        "{s}",
        "Answer: {y}",
        "1. {y}",
        "{y}.5",
        "2.{y}.",
        "{y}-{s}",
    ),
    *("{n}\n{n}\n{y}.", "{y}...", "yes and no", "It is not.", "'{y}'", "1,000 {y}, 2", "{s}/{y}/"),
    *("a. b. {y}.", "{y}:", "no-one", "There is no such thing.", "{y}\u00a0", "{d}{y}.", "{y}.{d}"),
)
NUMBER_FORMS = (
    *("{x}", " {x}\n", "{x}.", "{x}.0", "{x}0", "-{x}", "+{x}", "{x} cm", "{x}e0", "1_2", "１２"),
    *("The answer is {x}", "{x}%", "[{x}, 4]", "[3, 4]", "0", "0.0", "-0", "nan", "inf", "1,000"),
    *("12", "12.0", "1.5", "15e-1", "1e400", "0x10", "{n}\n{x}", "٣", "²", "1__2", "9" * 5000),
)
READING_FORMS = (
    *("{g}", "{l}", "It says {g}!", "{g}\n", "\n {T} \n", "{s}", "{s} {l} {s}", "$ {g} $", "\t{g}"),
    *("{g}{g}", "{p}", "{n}\n{g}", "'{T}'", "{g}．", "\x1c{g}\x85"),
)
GOLD_TEXTS = (
    *("CENTRE", "Grand Hotel", "57431", "$506 million", "y _ { 2 } = - 1\n", "ΑΣ", "İZMİR"),
    *("straße", "12,5", " padded ", "two\nlines", "x^{2}\t+ 1", "２５９０", "kg", "a", "É", "ﬁn"),
)
SCORES = (
    *("0.5", "1", "0.0", "1.0", " 0.7\n", ".5", "1e-1", "0.5.", "nan", "inf", "-1", "1.5", "-0.0"),
    *("1.0 |", "score: 0.5", "０.５", "0_1", "", "one", "0.55", "1e-400", "NaN", "+0.3"),
)


def numbered_list(rng: random.Random) -> str:
    """Up to 45 numbered sentences."""
    lines = (f"{i + 1}. {rng.choice(SENTENCES)}" for i in range(rng.randint(1, 45)))
    return "\n".join(lines)


def mutated(rng: random.Random, text: str, limit: int | None = None) -> str:
    """The text after up to three changes. `limit`: a length that decides how it is scored."""
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
        at = rng.randint(0, len(text))
        end = min(len(text), at + rng.randint(1, 8))
        change = rng.randrange(9)
        if change < 4:
            text = text[:at] + rng.choice(PIECES) + text[at:]
        elif change == 4:
            text = text[:at] + text[end:]
        elif change == 5:
            text = text[:end] + text[at:]
        elif change == 6:
            text = rng.choice((str.upper, str.lower, str.swapcase, str.title))(text)
        elif change == 7:
            text = rng.choice(
                (f"{text} {rng.choice(SENTENCES)}", f"{rng.choice(SENTENCES)} {text}")
            )
        elif limit is not None:  # just below, at or above the limit
            padding = max(0, limit + rng.randint(-2, 2) - len(text))
            text = rng.choice(("x", " ", "İ", "é")) * padding + text
    return text * 300 if rng.random() < 0.001 else text


def filled(rng: random.Random, forms: Sequence[str], **parts: str) -> str:
    """A random form with its parts: {s} a sentence, {n} a numbered list, {d} a digit, others."""
    form = rng.choice(forms)
    common = {"s": rng.choice(SENTENCES), "d": rng.choice(string.digits)}
    if "{n}" in form:
        common["n"] = numbered_list(rng)
    return form.format(**common, **parts)


def reply_to_choice(rng: random.Random, options: dict[str, str]) -> str:
    """A prediction, or a judge's reply, for these options."""
    (letter, text), (other, other_text) = (rng.choice(list(options.items())) for _ in range(2))
    parts = {"L": letter, "M": other, "l": letter.lower()}
    parts |= {"t": text, "u": other_text, "T": rng.choice((text.upper(), text.lower()))}
    limit = 2 * sum(map(len, options.values()))
    return mutated(rng, filled(rng, CHOICE_FORMS, **parts), limit)


def or_special(rng: random.Random, text: str) -> str:
    """The text, or seldom a refusal, a failed call or an empty prediction."""
    return rng.choice((*REFUSALS, *EMPTY)) if rng.random() < 0.04 else text


def scripted(rng: random.Random, reply: Callable[[], str]) -> list[str]:
    """Replies of a judge; for about half of the cases none, which means that there is no judge."""
    if rng.random() < 0.5:
        return []
    replies = [rng.choice(REFUSALS) if rng.random() < 0.25 else reply() for _ in range(5)]
    return replies[: rng.randint(1, 5)]


def lettered(rng: random.Random) -> dict[str, str]:
    """Options with their letters; one letter may be missing, as if its option were empty."""
    texts = rng.choice(OPTION_SETS)
    texts = rng.sample(texts, rng.randint(2, len(texts)))
    options = dict(zip(string.ascii_uppercase, texts, strict=False))
    if len(options) > 2 and rng.random() < 0.1:
        del options[rng.choice(list(options))]
    return options


def multiple_choice_case(rng: random.Random, is_mmmu: bool) -> Case:
    """A case of MMStar or MMMU. A fifth of MMMU's items are open, without options."""
    options = lettered(rng)
    item: dict[str, Any] = {"question": rng.choice(("What is it?", "这是什么"))}
    shown = options
    if is_mmmu and rng.random() < 0.2:
        item["answer"] = rng.choice(("8.4", "C", "A", "IV", "30.0", "[1, 2]", "8", "İ", "B"))
        shown = {"A": item["answer"], "B": "Other Answers"}
        options = {}
    else:
        item["answer"] = rng.choice(list(options))
    prediction = or_special(rng, reply_to_choice(rng, shown))
    return Case(item | options, prediction, scripted(rng, lambda: reply_to_choice(rng, shown)))


def mathvista_case(rng: random.Random) -> Case:
    """A case of MathVista, with options or with a number or list as the gold answer."""
    item: dict[str, Any] = {"question": "Hint: h\nQuestion: q", "answer_type": "text"}
    if rng.random() < 0.5:
        options = dict(zip(string.ascii_uppercase, lettered(rng).values(), strict=False))
        letter = rng.choice(list(options))
        item |= {"question_type": "multi_choice", "choices": str(list(options.values()))}
        item |= {"answer": options[letter], "answer_option": letter}

        def reply() -> str:
            return reply_to_choice(rng, options)
    else:
        kind = rng.choice(("integer", "integer", "float", "float", "list"))
        golds = {
            "integer": ("12", "0", "-3", "1000", "4", "4.0", "3"),
            "float": ("1.5", "0.0", "0.25", "12.0", "1e3"),
            "list": ("[3, 4]", "[12]", "[1.5, 2.5]"),
        }[kind]
        item |= {"question_type": "free_form", "answer_type": kind, "answer": rng.choice(golds)}

        def reply() -> str:
            return mutated(rng, filled(rng, NUMBER_FORMS, x=item["answer"]))

    return Case(item, or_special(rng, reply()), scripted(rng, reply))


def hallusionbench_case(rng: random.Random) -> Case:
    """A case of HallusionBench."""

    def reply() -> str:
        return mutated(rng, filled(rng, YES_NO_FORMS, y=rng.choice(("yes", "no", "Yes", "NO"))))

    item = {"question": "Is it?", "answer": rng.choice(("Yes", "No"))}
    return Case(item, or_special(rng, reply()), scripted(rng, reply))


def ocrbench_case(rng: random.Random) -> Case:
    """A case of OCRBench; a third of them are formulas, for which blanks do not count."""
    golds = rng.sample(GOLD_TEXTS, rng.randint(1, 4))
    gold = rng.choice(golds)
    kinds = [kind for group in ocrbench.GROUPS.values() for kind in group]
    kind = rng.choice((ocrbench.FORMULA_TYPE, rng.choice(kinds), rng.choice(kinds)))
    parts = {"g": gold, "l": gold.lower(), "T": gold.upper(), "p": gold.replace(" ", "")}
    text = mutated(rng, filled(rng, READING_FORMS, **parts))
    return Case({"answer": str(golds), "category": kind}, or_special(rng, text), [])


def mmvet_case(rng: random.Random) -> Case:
    """A case of MM-Vet, whose score is the judge's."""
    item = {"question": "What is it?", "answer": "a cat<AND>a hat"}
    prediction = or_special(
        rng, mutated(rng, filled(rng, READING_FORMS, g="a", l="b", T="C", p=""))
    )
    return Case(item, prediction, scripted(rng, lambda: mutated(rng, rng.choice(SCORES))))


def mathverse_case(rng: random.Random) -> Case:
    """A case of MathVerse: the judge's replies are an extraction and verdicts."""
    gold = rng.choice(
        ("B", "(B)", "A\nC", " 14 ", "21\\pi", "=\\frac{7}{4}", "0", "nan", "[-2, 5)")
    )

    def text() -> str:
        return or_special(rng, mutated(rng, filled(rng, NUMBER_FORMS, x=gold.strip())))

    replies = [rng.choice((gold, text(), "null", "=1")) for _ in range(rng.choice((1, 1, 1, 3)))]
    replies += [rng.choice(("0", "1", "1.", " 1 ", "yes", "01", text())) for _ in range(4)]
    item = {"question_for_eval": "How long?", "answer": gold}
    return Case(item, text(), [] if rng.random() < 0.1 else replies)


def wemath_case(rng: random.Random) -> Case:
    """A case of WeMath, always with a judge."""
    case = multiple_choice_case(rng, is_mmmu=False)
    options = {letter: case.item[letter] for letter in case.item if len(letter) == 1}
    return replace(case, replies=case.replies or [reply_to_choice(rng, options)])


def logicvista_case(rng: random.Random) -> Case:
    """A case of LogicVista, whose judge replies with letters."""
    gold = rng.choice(("A", "B", "b", "A, C", "C, A", "A,C", "3", "ABC"))
    forms = (
        "A",
        "B",
        "AC",
        "CA",
        "Z",
        "ABC",
        "A, C",
        "b",
        "B.",
        "É",
        "Ⅱ",
        "NONE",
        "3",
        "ß",
        "İ",
        "",
    )
    replies = [
        mutated(rng, rng.choice(forms)) if rng.random() < 0.5 else rng.choice(forms)
        for _ in range(rng.randint(1, 5))
    ]
    item = {"question": "Which?", "answer": gold}
    return Case(item, or_special(rng, rng.choice(SENTENCES)), replies)


CASES: dict[str, Callable[[random.Random], Case]] = {
    "MathVista": mathvista_case,
    "MMVet": mmvet_case,
    "OCRBench": ocrbench_case,
    "HallusionBench": hallusionbench_case,
    "MMMU": lambda rng: multiple_choice_case(rng, is_mmmu=True),
    "MMStar": lambda rng: multiple_choice_case(rng, is_mmmu=False),
    "MathVerse": mathverse_case,
    "WeMath": wemath_case,
    "LogicVista": logicvista_case,
}


def batches(benchmark: str, predictions: int, seed: int) -> Iterator[list[Case]]:
    """The cases of a benchmark, the same for every date."""
    rng = random.Random(f"{seed}/{benchmark}")
    for start in range(0, predictions, BATCH):
        yield [CASES[benchmark](rng) for _ in range(min(BATCH, predictions - start))]


# --- The comparison ---


def explanation(score: float | None, expected: float, is_drawn: bool) -> str | None:
    """Why a score differs on purpose from the reference's, or None."""
    if is_drawn and score == 0.0:
        return "three unusable replies: score 0, the reference draws a random option"
    if is_drawn and score is None:
        return "three failed calls: no score, the reference draws a random option"
    if score is None and math.isnan(expected):
        return "the judge's score is nan: no score, in the reference the mean is nan"
    return None


@dataclass
class Counts:
    """The counts of one benchmark and date."""

    predictions: int = 0
    equal: int = 0
    different: int = 0
    explained: Counter = field(default_factory=Counter)
    judged: int = 0  # predictions for which the judge was called
    score_above_0: int = 0  # as the reference scores them
    examples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, case: Case, ours: tuple, expected: tuple, is_drawn: bool) -> None:
        """Count one comparison of (score, temperatures of the judge's calls)."""
        self.predictions += 1
        self.judged += bool(expected[1])
        self.score_above_0 += expected[0] > 0
        if ours[1] == expected[1] and (reason := explanation(ours[0], expected[0], is_drawn)):
            self.explained[reason] += 1
        elif ours == expected:
            self.equal += 1
        else:
            self.different += 1
            if len(self.examples) < MAX_EXAMPLES:
                shown = {"prediction": case.prediction[:300], "replies": case.replies}
                shown |= {"item": case.item, "ours": ours, "reference": expected}
                self.examples.append(shown)


def compare(benchmark: str, date: str, reference: Reference, cases: list[Case]) -> Iterator[tuple]:
    """Our and the reference's (score, temperatures) of each case, and whether it drew an option."""
    pairs = [[ScriptedJudge(c.replies) if c.replies else None for c in cases] for _ in range(2)]
    expected = reference.scores(benchmark, cases, pairs[1])
    for i, case in enumerate(cases):
        judge, reference_judge = pairs[0][i], pairs[1][i]
        score = score_item(benchmark, case.prediction, case.item, judge, date)
        ours = (score, judge.temperatures if judge else [])
        theirs = (expected[i], reference_judge.temperatures if reference_judge else [])
        yield case, ours, theirs, i in reference.drawn


def main() -> None:
    """Compare all scorers, print and write the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("vlmevalkit", type=Path, help="folder of the clone")
    parser.add_argument("--predictions", type=int, default=100_000, help="for each benchmark")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--benchmarks", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    arguments = parser.parse_args()
    os.environ.pop("VERBOSE", None)  # changes how the reference reads the letter A
    references = {date: Reference(arguments.vlmevalkit, date) for date in COMMITS}
    counts = {date: {name: Counts() for name in arguments.benchmarks} for date in COMMITS}
    for name in arguments.benchmarks:
        for cases in batches(name, arguments.predictions, arguments.seed):
            for date, reference in references.items():
                for comparison in compare(name, date, reference, cases):
                    counts[date][name].add(*comparison)
        for date in COMMITS:
            print(date, name, counts[date][name], flush=True)
    before = json.loads(RESULT.read_text())["counts"] if RESULT.exists() else {}
    origin = {"git": manifest.git_revision(), "seed": arguments.seed}
    origin["versions"] = {"numpy": np.__version__, "pandas": pd.__version__}
    result = {
        "command": "python benchmarks/scorers_fuzz.py VLMEVALKIT_FOLDER",
        "vlmevalkit": COMMITS,
        "counts": {
            date: before.get(date, {})
            | {name: vars(count) | origin for name, count in rows.items()}
            for date, rows in counts.items()
        },
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    if arguments.json:
        different = {
            f"{date} {name}": count.different
            for date, rows in counts.items()
            for name, count in rows.items()
        }
        print(json.dumps({"predictions": arguments.predictions, "different": different}))


if __name__ == "__main__":
    main()
