r"""How often do published accuracy rewards pay for a wrong answer, or refuse a right one?

    python benchmarks/reward_sets.py CASES.jsonl [--swift FILE] [--vlm-r1 FILE] [--json]

Each line of CASES.jsonl is a response whose correctness is known: `kind` (number, choice, count,
text or boxes), `question`, `gold`, `options`, `response`, `expected` (right or wrong) and `source`.
Every reward set judges every case. A reward of at least one half counts as paid; None and an
exception do not.

Prints the tables of docs/grading.md (--json: the result instead) and writes
benchmarks/results/reward_sets.json. About two minutes on one core.

This repository holds no code of the other sets. Download it to a folder outside:

* TRL is installed with difftrain.
* ms-swift, github.com/modelscope/ms-swift at 3602360a562313afbf2ef6065fdf61f271a2c5b9:
  swift/rewards/orm.py. Give this file as --swift.
* VLM-R1, github.com/om-ai-lab/VLM-R1 at 90052f478646e38bc67363862f699b7afca6b337:
  the folder src/open-r1-multimodal/src/open_r1. Give its file grpo_jsonl.py as --vlm-r1. It needs
  two packages: `pip install --no-deps --target FOLDER Levenshtein pycocotools`, found by
  PYTHONPATH=FOLDER.

A set that cannot be loaded is left out, with the reason.

The row "as it is" gets response and gold answer unchanged (VLM-R1: the gold answer in answer tags,
as its training script writes it). A set's other row gets the form that its documentation, tests or
scripts use:

* TRL: answer and gold answer as `\boxed{…}`. The whole answer is boxed, words included.
* ms-swift: the gold answer as `\boxed{…}`.
* VLM-R1: the reward method of METHODS for each kind; boxes in a fenced JSON block.
"""

import argparse
import ast
import contextlib
import hashlib
import importlib.util
import io
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from trl.rewards import accuracy_reward

from difftrain.grade import extract, grade
from difftrain.pipeline import manifest
from difftrain.records import AnswerKind, Sample, TaskSet, Verdict

RESULT = Path(__file__).parent / "results" / "reward_sets.json"
PAID_MIN = 0.5
"""Smallest reward that counts as paid."""
COMMITS = {
    "6748bb32b5bc6f6e795c42875eb02c26da621c8a84d4ae9287cf01d4c2317dc8": "3602360a5623",
    "967112cd0987ff9bcfb9c7ea1e7206ce85a156d4e01d1a330f5853f90b8c31b6": "90052f478646",
}
"""The commit of a downloaded file, by the file's SHA-256."""
METHODS = {
    AnswerKind.number: "math",
    AnswerKind.choice: "mcq",
    AnswerKind.count: "math",
    AnswerKind.text: "all_match",
    AnswerKind.boxes: "odLength",
}
"""VLM-R1's reward method for each kind. Its README names `odLength` for detection, a script uses
`all_match` for labels; for the other kinds the method's name is all that it says."""
VLM_R1_UNUSED = (
    "babel",
    "babel.numbers",
    "json_repair",
    "openai",
    "open_r1.trainer",
    "open_r1.vlm_modules",
    "open_r1.qwen2_5vl_monkey_patch",
)
"""Modules that VLM-R1's file imports and its accuracy rewards do not use."""
ORIGINS = ("test suites", "invented", "rewritten")
"""Cases come from test suites of other projects, were invented to mislead a grader, or are gold
answers of public data sets in another notation."""
DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\[", r"\]"), (r"\(", r"\)"), ("**", "**"))
"""What may surround a whole answer and does not belong into its box."""


@dataclass(frozen=True, slots=True)
class Case:
    """A response whose correctness is known."""

    kind: AnswerKind
    question: str
    gold: str
    options: tuple[str, ...]
    response: str
    is_right: bool
    origin: str


@dataclass(frozen=True, slots=True)
class RewardSet:
    """A row of the table. `reward` returns the reward of a case, None if the set skips it."""

    name: str
    version: str
    reward: Callable[[Case], float | None]


def read_cases(path: Path) -> list[Case]:
    """Every line of the file as a Case."""
    rows = [json.loads(line) for line in path.read_text().split("\n") if line]
    return [
        Case(
            kind=AnswerKind(row["kind"]),
            question=row["question"],
            gold=row["gold"],
            options=tuple(row["options"]),
            response=row["response"],
            is_right=row["expected"] == "right",
            origin=origin(row["source"]),
        )
        for row in rows
    ]


def origin(source: str) -> str:
    """Where a case comes from (see ORIGINS)."""
    first_word = re.split(r"[ :]", source)[0]
    return {"attack": "invented", "metamorphic": "rewritten"}.get(first_word, "test suites")


# ---- the reward sets


def our_reward(case: Case) -> float:
    """1 if difftrain's grader finds the response correct."""
    sample = Sample(
        sample_id="0" * 16,
        images=(),
        question=case.question,
        answer=case.gold,
        answer_kind=case.kind,
        options=case.options,
        task="reward_sets",
        task_set=TaskSet.perception,
        source="reward_sets",
    )
    return float(grade(case.response, sample) is Verdict.correct)


def as_message(text: str) -> list[dict[str, str]]:
    """The completion of a conversation."""
    return [{"role": "assistant", "content": text}]


def trl_reward(case: Case) -> float | None:
    """TRL's reward for the case as it is."""
    return accuracy_reward([as_message(case.response)], [case.gold])[0]


def trl_box_reward(case: Case) -> float | None:
    r"""TRL's reward for answer and gold answer in `\boxed{}`."""
    response = replace_answer(case.response, in_box)
    return accuracy_reward([as_message(response)], [in_box(case.gold)])[0]


def in_box(text: str) -> str:
    r"""The text as `\boxed{text}`, unless it has a box; without DELIMITERS and final period."""
    if r"\boxed" in text:
        return text
    text = text.strip().removesuffix(".")
    for opening, closing in DELIMITERS:
        inner = text.removeprefix(opening).removesuffix(closing)
        is_surrounded = len(inner) == len(text) - len(opening + closing)
        if is_surrounded and opening not in inner and not inner.endswith("\\"):
            return rf"\boxed{{{inner}}}"
    return rf"\boxed{{{text}}}"


def in_json_fence(text: str) -> str:
    """The text as a fenced JSON block, unless it has one."""
    return text if "```json" in text else f"```json\n{text.strip()}\n```"


def replace_answer(response: str, change: Callable[[str], str]) -> str:
    """The response with another content of its last answer tags; unchanged if it has none."""
    content = extract.tag_content(response)
    if content is None:
        return response
    start = response.rindex(content + extract.CLOSE_TAG)
    return response[:start] + change(content) + response[start + len(content) :]


def swift_sets(path: Path) -> list[RewardSet]:
    """Both rows of ms-swift, from its file orm.py."""
    module = load_file(path, "swift_orm", unused=("swift", "swift.infer_engine"))
    accuracy, version = module.MathAccuracy(), file_version(path)
    return [
        RewardSet(
            "ms-swift, as it is",
            version,
            lambda case: accuracy([case.response], [case.gold])[0],
        ),
        RewardSet(
            "ms-swift, gold answer in a box",
            version,
            lambda case: accuracy([case.response], [in_box(case.gold)])[0],
        ),
    ]


def vlm_r1_sets(path: Path) -> list[RewardSet]:
    """Both rows of VLM-R1, from its file grpo_jsonl.py and the folder `utils` beside it."""
    packages = {"utils": path.parent / "utils", "open_r1": path.parent}
    module = load_file(path, "vlm_r1_rewards", VLM_R1_UNUSED, packages)
    version = file_version(path)

    def reward(response: str, gold: str, method: str) -> float:
        solution = f"<answer> {gold} </answer>"
        return module.accuracy_reward(
            [as_message(response)], [solution], accu_reward_method=[method]
        )[0]

    def method_reward(case: Case) -> float:
        method = METHODS[case.kind]
        if case.kind is not AnswerKind.boxes:
            return reward(case.response, case.gold, method)
        gold = in_json_fence(json.dumps(ast.literal_eval(case.gold)))
        return reward(replace_answer(case.response, in_json_fence), gold, method)

    return [
        RewardSet(
            "VLM-R1, as it is (`default`)",
            version,
            lambda case: reward(case.response, case.gold, "default"),
        ),
        RewardSet("VLM-R1, method of each kind", version, method_reward),
    ]


# ---- loading a file of another project


class UnusedModule(ModuleType):
    """Stands in for a module: any name in it is a class that accepts any arguments."""

    __path__: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *args, **kwargs: None})


@contextlib.contextmanager
def modules_replaced(modules: dict[str, ModuleType]) -> Iterator[None]:
    """Let `import` find these modules, and afterwards what it found before."""
    previous = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in previous.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def load_file(
    path: Path, name: str, unused: tuple[str, ...], packages: dict[str, Path] | None = None
) -> ModuleType:
    """Import one file, with stand-ins for `unused` modules and with `packages` in these folders."""
    modules: dict[str, ModuleType] = {module: UnusedModule(module) for module in unused}
    for package, folder in (packages or {}).items():
        modules[package] = ModuleType(package)
        modules[package].__path__ = [str(folder)]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, "the name ends with .py"
    assert spec.loader is not None, "a file has a loader"
    module = importlib.util.module_from_spec(spec)
    with modules_replaced({**modules, name: module}):
        spec.loader.exec_module(module)
    return module


def file_version(path: Path) -> str:
    """The commit that the file comes from; its hash, if that is not known."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return COMMITS.get(digest, f"unknown commit, sha256 {digest[:12]}")


def reward_sets(swift: Path | None, vlm_r1: Path | None) -> tuple[list[RewardSet], dict[str, str]]:
    """The sets that can be loaded, and why others are left out."""
    git, trl = str(manifest.git_revision()), metadata.version("trl")
    sets = [
        RewardSet("difftrain", git, our_reward),
        RewardSet("TRL, as it is", trl, trl_reward),
        RewardSet("TRL, answers in a box", trl, trl_box_reward),
    ]
    left_out = {}
    for name, path, load in (("ms-swift", swift, swift_sets), ("VLM-R1", vlm_r1, vlm_r1_sets)):
        if path is None:
            left_out[name] = "no file was given"
            continue
        try:
            sets += load(path)
        except Exception as error:  # noqa: BLE001  (importing another project's file runs its code)
            left_out[name] = f"{type(error).__name__}: {error}"
    return sets, left_out


# ---- counting


def reward_of(reward_set: RewardSet, case: Case) -> tuple[float, bool]:
    """The reward (0 for None and for an exception), and whether there was an exception."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # VLM-R1 prints COCO's tables
            reward = reward_set.reward(case)
    except Exception:  # noqa: BLE001  (code of another project; counted in the result)
        return 0.0, True
    return float(reward or 0.0), False


def count_mistakes(cases: list[Case], outcomes: list[tuple[float, bool]]) -> dict[str, int]:
    """The counts of one cell. `wrong_partly_paid` are rewards between 0 and PAID_MIN."""
    pairs = list(zip(cases, outcomes, strict=True))
    wrong = [reward for case, (reward, _) in pairs if not case.is_right]
    right = [reward for case, (reward, _) in pairs if case.is_right]
    return {
        "wrong": len(wrong),
        "wrong_paid": sum(reward >= PAID_MIN for reward in wrong),
        "wrong_partly_paid": sum(0 < reward < PAID_MIN for reward in wrong),
        "right": len(right),
        "right_refused": sum(reward < PAID_MIN for reward in right),
        "exceptions": sum(has_failed for _, has_failed in outcomes),
    }


def judge(reward_set: RewardSet, cases: list[Case]) -> dict[str, Any]:
    """One reward set's version and counts."""
    outcomes = [reward_of(reward_set, case) for case in cases]

    def counts(field: str, value: str) -> dict[str, int]:
        members = [i for i, case in enumerate(cases) if getattr(case, field) == value]
        return count_mistakes([cases[i] for i in members], [outcomes[i] for i in members])

    return {
        "version": reward_set.version,
        "kinds": {kind.value: counts("kind", kind) for kind in AnswerKind},
        "origins": {name: counts("origin", name) for name in ORIGINS},
        "total": count_mistakes(cases, outcomes),
    }


# ---- the table


def markdown_table(sets: dict[str, Any], part: str) -> str:
    """The table of one part of the counts (kinds or origins): wrong paid / right refused."""
    first = next(iter(sets.values()))
    sizes = {**first[part], "total": first["total"]}
    header = [f"{name}: {count['wrong']} / {count['right']}" for name, count in sizes.items()]
    lines = ["| reward set | " + " | ".join(header) + " |", "|---|" + "---:|" * len(header)]
    for name, counts in sets.items():
        columns = [*counts[part].values(), counts["total"]]
        cells = [f"{count['wrong_paid']} / {count['right_refused']}" for count in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Judge the cases by every set, write the result, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", type=Path)
    parser.add_argument("--swift", type=Path, help="ms-swift's file swift/rewards/orm.py")
    parser.add_argument("--vlm-r1", type=Path, help="VLM-R1's file grpo_jsonl.py")
    parser.add_argument("--json", action="store_true", help="print the result, not the tables")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # math-verify warns of each answer that it cannot parse
    cases = read_cases(arguments.cases)
    sets, left_out = reward_sets(arguments.swift, arguments.vlm_r1)
    result = {
        "cases": len(cases),
        "cases_sha256": hashlib.sha256(arguments.cases.read_bytes()).hexdigest(),
        "paid_min": PAID_MIN,
        "sets": {reward_set.name: judge(reward_set, cases) for reward_set in sets},
        "left_out": left_out,
        "math_verify": metadata.version("math-verify"),
        "versions": manifest.versions(),
    }
    manifest.write_json(RESULT, result)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    print(markdown_table(result["sets"], "kinds"), end="\n\n")
    print(markdown_table(result["sets"], "origins"))
    for name, reason in left_out.items():
        print(f"\nLeft out: {name} ({reason}).")


if __name__ == "__main__":
    main()
