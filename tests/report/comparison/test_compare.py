"""Finished runs side by side: which row is held against what, and what may be said of it."""

import csv
import io
import re
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from difftrain.pipeline.parquet import MissingArtifact
from difftrain.recipes.compare import compare
from difftrain.report.compare import (paper, runs)
from difftrain.report.compare import text
from difftrain.report.compare.compatibility import NotComparable
from difftrain.report.compare.types import Against, Comparison, Difference, Estimate, Line
from difftrain.report.compare.presets import ROWS, UNCONTROLLED
from difftrain.report.compare.render import latex

ROOT = Path(__file__).resolve().parents[3]
MakeRun = Callable[..., Path]


def launched(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "launch" / "report.py"), "compare", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def table(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    """compare.csv by row and benchmark."""
    rows = csv.DictReader(io.StringIO((folder / "compare.csv").read_text()))
    return {(row["row"], row["benchmark"]): row for row in rows}


def test_rows_come_in_the_paper_s_order_below_the_base_model(finished: MakeRun) -> None:
    made = [finished(name, 0.5) for name in ("grpo_hard", "mine", "grpo_random", "grpo_full")]
    folder = compare(made)
    assert folder.parent.name == "compare"
    names = list(dict.fromkeys(row for row, _ in table(folder)))
    assert names == ["base", "grpo_full", "grpo_random", "grpo_hard", "mine"]
    head = (folder / "compare.md").read_text().splitlines()[6]
    assert re.findall(r"shapes/(\w+)", head) == [
        *("MathVista", "MMVet", "OCRBench", "HallusionBench", "MMMU", "MMStar")
    ]


def test_a_row_is_held_against_the_table_s_random_row_of_its_size(finished: MakeRun) -> None:
    made = [
        finished("grpo_mid_hard", 0.7),
        finished("grpo_random", 0.5),
        finished("sft_mid_grpo_hard", 0.6),
        finished("sft_rand_m_grpo_rand_h", 0.5),
        finished("grpo_unsolved", 0.5),
        finished("grpo_full", 0.5),
    ]
    found = table(compare(made))
    controls = {row: each["control"] for (row, name), each in found.items() if name == "mean"}
    assert controls["grpo_mid_hard"] == "GRPO-only(random)"
    assert controls["sft_mid_grpo_hard"] == "SFT(rand m)+GRPO(rand h)"
    assert controls["grpo_random"] == controls["grpo_full"] == controls["grpo_unsolved"] == ""


def test_a_run_s_own_control_goes_before_the_table_s(finished: MakeRun) -> None:
    made = [finished("grpo_mid_hard", 0.6, control=0.6), finished("grpo_random", 0.4)]
    folder = compare(made)
    found = table(folder)
    row = found["grpo_mid_hard", "mean"]
    assert row["control"] == "its own random control"
    assert abs(float(row["difference"])) < 0.05
    assert ("grpo_mid_hard control", "mean") in found
    assert "random control of GRPO-only(mid+hard)" in (folder / "compare.md").read_text()


def test_items_are_paired_within_the_seeds_that_both_have(finished: MakeRun) -> None:
    made = [finished("grpo_mid_hard", 0.6, seed=seed) for seed in (1, 2, 3)]
    made += [finished("grpo_random", 0.5, seed=seed) for seed in (1, 3)]
    made.append(finished("grpo_random", 0.1, seed=9))
    found = table(compare(made))
    row, control = found["grpo_mid_hard", "mean"], found["grpo_random", "mean"]
    assert (row["seeds"], control["seeds"]) == ("1 2 3", "1 3 9")
    ours, theirs = (
        [float(score) for score in each["seed_scores"].split()] for each in (row, control)
    )
    paired = (ours[0] + ours[2] - theirs[0] - theirs[1]) / 2
    assert float(row["difference"]) == pytest.approx(paired, abs=1e-5)


def test_three_seeds_that_agree_show_a_difference(finished: MakeRun) -> None:
    made = [finished(name, rate, seed=seed)
            for name, rate in (("grpo_mid_hard", 0.6), ("grpo_random", 0.5))
            for seed in (1, 2, 3)]  # fmt: skip
    row = table(compare(made))["grpo_mid_hard", "mean"]
    assert row["said"].startswith("better, +")
    assert "one seed" not in row["said"]


def test_one_seed_is_told_as_one_seed(finished: MakeRun) -> None:
    folder = compare([finished("grpo_mid_hard", 0.7), finished("grpo_random", 0.5)])
    assert table(folder)["grpo_mid_hard", "mean"]["said"].endswith(", one seed")
    assert "One seed: one training run for each row." in (folder / "compare.md").read_text()


def test_equal_rows_are_not_called_different(finished: MakeRun) -> None:
    folder = compare([finished("grpo_mid_hard", 0.5), finished("grpo_random", 0.5)])
    assert "no difference shown" in table(folder)["grpo_mid_hard", "mean"]["said"]
    told = (folder / "compare.md").read_text()
    assert "Of one row held against an equal-size random control, for one no difference" in told


def test_the_test_of_a_benchmark_suits_its_items(finished: MakeRun) -> None:
    found = table(compare([finished("grpo_mid_hard", 0.6), finished("grpo_random", 0.5)]))
    tests = {
        name.removeprefix("shapes/"): row["test"]
        for (who, name), row in found.items()
        if who == "grpo_mid_hard"
    }
    assert tests["MMStar"] == tests["MathVista"] == tests["MMMU"] == "McNemar, exact"
    assert tests["MMVet"] == tests["HallusionBench"] == tests["mean"] == "paired bootstrap"


def test_p_is_corrected_for_the_rows_that_are_tested(finished: MakeRun) -> None:
    made = [finished(name, 0.55, control=0.5) for name in ("grpo_hard", "grpo_mid", "rap")]
    found = table(compare(made))
    raw = {
        row: float(each["p"]) for (row, name), each in found.items() if name == "mean" and each["p"]
    }
    fixed = {row: float(found[row, "mean"]["p_corrected"]) for row in raw}
    least = min(raw, key=raw.__getitem__)
    assert len(raw) == 3
    assert fixed[least] == pytest.approx(min(1, 3 * raw[least]))
    assert all(fixed[row] >= raw[row] for row in raw)


def difference(mean: float, low: float, high: float, corrected: float) -> Difference:
    return Difference(mean=mean, low=low, high=high, corrected=corrected, p=0.01)


def test_better_needs_an_interval_without_zero_and_a_corrected_p() -> None:
    assert text.verdict(difference(0.02, 0.004, 0.039, 0.03)) == "better"
    assert text.verdict(difference(-0.02, -0.039, -0.004, 0.03)) == "worse"
    assert text.verdict(difference(0.02, -0.001, 0.04, 0.03)) == "no difference shown"
    corrected = text.verdict(difference(0.02, 0.004, 0.039, 0.05))
    assert corrected == "no difference shown once corrected for the number of rows"
    alike = Difference(mean=0.0, low=0.0, high=0.0, n=48, p=1.0, corrected=1.0)
    assert text.much(alike) == "none of 48 items differs"
    assert text.much(difference(0.021, 0.004, 0.039, 0.03)) == "+2.1 [0.4, 3.9]"


def test_a_run_without_a_finished_report_is_named(finished: MakeRun, root: Path) -> None:
    good = finished("grpo_hard", 0.5)
    (root / "run" / "grpo_mid-1").mkdir()
    with pytest.raises(MissingArtifact) as refused:
        compare([good, root / "run" / "grpo_mid-1", root / "run" / "nowhere"])
    assert "grpo_mid-1: no finished report" in str(refused.value)
    assert "nowhere: there is no such run" in str(refused.value)
    done = launched(good, root / "run" / "grpo_mid-1")
    assert done.returncode == 2
    assert "grpo_mid-1: no finished report" in done.stderr
    assert not (root / "compare").exists()


def test_marks_that_are_gone_are_named(finished: MakeRun) -> None:
    run = runs.read([finished("grpo_hard", 0.5)])[0]
    (run.marks("tuned") / "manifest.json").unlink()
    with pytest.raises(MissingArtifact, match="no finished marks of tuned at"):
        runs.read([run.folder])


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("evaluate.max_new_tokens", 7, "evaluate.max_new_tokens: 2048 and 7"),
        ("evaluate.rules", "2026-08", "evaluate.rules: 2025-11 and 2026-08"),
        ("model.name", "org/other", "model.name: tiny and org/other"),
        ("data.num_samples", 80, "data.num_samples: 400 and 80"),
        ("grpo.learning_rate", 0.5, "grpo.learning_rate: 1e-06 and 0.5"),
    ],
)
def test_a_run_made_under_other_settings_is_refused_with_the_keys(
    finished: MakeRun, key: str, value: object, told: str
) -> None:
    same = [finished("grpo_hard", 0.5), finished("grpo_mid", 0.5)]
    odd = finished("grpo_full", 0.5, settings={key: value})
    with pytest.raises(NotComparable) as refused:
        compare([odd, *same])
    assert str(refused.value).count(str(odd)) == 1
    assert told in str(refused.value)
    assert not any(str(each) in str(refused.value) for each in same)


def test_force_compares_all_the_same_and_notes_it(finished: MakeRun) -> None:
    made = [finished("grpo_hard", 0.5), finished("grpo_mid", 0.5)]
    odd = finished("grpo_full", 0.5, settings={"data.num_samples": 80})
    done = launched(*made, odd)
    assert done.returncode == 2
    assert "data.num_samples: 400 and 80" in done.stderr
    assert "Traceback" not in done.stderr
    done = launched(*made, odd, "--force")
    assert done.returncode == 0
    folder = Path(done.stdout.strip().splitlines()[-1].removeprefix("output: "))
    for name in ("compare.md", "compare.html"):
        text = (folder / name).read_text()
        assert "was made under other settings: data.num_samples: 400 and 80." in text
        assert "GRPO-only(fullset) (other settings)" in text


def test_settings_that_change_nothing_or_belong_to_rows_may_differ(finished: MakeRun) -> None:
    free = {"grpo.reward_workers": 2, "select.strata": ["easy"], "report_to": "wandb"}
    free |= {"sft": {"learning_rate": 1e-3}}  # of runs that have no SFT
    compare([finished("grpo_hard", 0.5), finished("mine", 0.5, settings=free)])
    saved = {"sft.save_steps": 7}
    rare = finished("sft_mid_grpo_hard", 0.5, settings=saved)
    compare([rare, finished("sft_rand_m_grpo_rand_h", 0.5)])


@pytest.mark.parametrize("name", ["grpo_mid_hard", "mine"])
def test_seeds_of_one_row_under_other_settings_are_not_averaged(
    finished: MakeRun, name: str
) -> None:
    others = [finished("grpo_random", 0.5, seed=seed) for seed in (1, 2, 3)]
    odd = {"select.strata": ["unsolved"], "select.random": True}
    kept = {"select.strata": ["medium", "hard"]}
    made = [finished(name, 0.5, seed=seed, settings=kept) for seed in (1, 2)]
    made.append(finished(name, 0.5, seed=3, settings=odd))
    with pytest.raises(NotComparable) as refused:
        compare([*others, *made])
    told = str(refused.value)
    assert str(made[2]) in told
    assert not any(str(each) in told for each in (*others, *made[:2]))
    assert re.search(r"select\.keep: \['medium', 'hard'\] .*and \['unsolved'\]", told)
    assert re.search(r"select\.random: False .*and True", told)


def test_a_run_bears_a_row_s_title_only_where_it_is_that_row(finished: MakeRun) -> None:
    odd = finished("grpo_mid_hard", 0.5, settings={"select.strata": ["easy"]})
    with pytest.raises(NotComparable) as refused:
        compare([odd, finished("grpo_random", 0.5)])
    told = "select.strata: ['medium', 'hard'] by its name and ['easy']"
    assert told in str(refused.value)
    folder = compare([odd, finished("grpo_random", 0.5)], force=True)
    for name in ("compare.md", "compare.tex"):
        text = (folder / name).read_text().replace("\\_", "_")
        assert "GRPO-only(mid+hard) (other settings)" in text
        assert told in text


def test_two_trainings_of_one_row_and_seed_are_refused(finished: MakeRun) -> None:
    made = [finished("grpo_hard", 0.5), finished("grpo_hard", 0.6)]
    with pytest.raises(NotComparable, match="two runs of grpo_hard with seed 1"):
        compare(made)
    rows = {row for row, _ in table(compare(made, force=True))}
    assert len(rows) == 3


def test_of_two_runs_of_one_training_the_controlled_one_is_shown(finished: MakeRun) -> None:
    made = [finished("grpo_hard", 0.5), finished("grpo_hard", 0.5, control=0.5)]
    for order in (made, made[::-1]):
        assert table(compare(order))["grpo_hard", "mean"]["control"] == "its own random control"


def test_other_items_are_refused(finished: MakeRun, marks_of: Callable[..., list]) -> None:
    fewer = marks_of(0.5, 1, items=40)
    made = [finished("grpo_mid_hard", 0.5, marks=fewer), finished("grpo_random", 0.5)]
    done = launched(*made)
    assert done.returncode == 2
    assert "items are on one side only" in done.stderr


def test_measures_have_tables_of_their_own(finished: MakeRun) -> None:
    cmab = {"difficulty.measure": "cmab"}
    made = [finished("grpo_hard", 0.5), finished("grpo_hard", 0.5, settings=cmab)]
    text = (compare(made) / "compare.md").read_text()
    assert text.count("\n## ") == 2
    assert "## cmab, shapes" in text
    assert "## pism, shapes" in text


def test_a_random_set_pays_nothing_for_choosing(finished: MakeRun) -> None:
    made = [finished("grpo_mid_hard", 0.5), finished("grpo_random", 0.5)]
    random, chosen = (runs.read([each])[0].cost() for each in made[::-1])
    assert random.choosing_seconds == random.choosing_tokens == 0
    assert chosen.choosing_seconds > 400
    assert (chosen.steps, chosen.samples, chosen.tokens) == (20, 96, 38000)
    assert chosen.seconds == 60


def test_an_unequal_control_is_told(finished: MakeRun, root: Path) -> None:
    made = [finished("grpo_mid_hard", 0.5), finished("grpo_random", 0.5)]
    text = (made[1] / "report.json").read_text()
    (made[1] / "report.json").write_text(text.replace('"samples": 96', '"samples": 80'))
    told = (compare(made) / "compare.md").read_text()
    assert "grpo_mid_hard, seed 1: 96 samples, but 80 of its control" in told


def test_a_row_whose_control_has_another_size_gets_no_verdict(finished: MakeRun) -> None:
    made = [finished(name, rate, seed=seed)
            for name, rate in (("grpo_mid_hard", 0.6), ("grpo_random", 0.5))
            for seed in (1, 2, 3)]  # fmt: skip
    text = (made[-1] / "report.json").read_text()
    (made[-1] / "report.json").write_text(text.replace('"samples": 96', '"samples": 80'))
    folder = compare(made)
    said = table(folder)["grpo_mid_hard", "mean"]["said"]
    assert said.startswith("no verdict, as its control is not of its size, +")
    told = (folder / "compare.md").read_text()
    assert "one was not of its control's size" in told
    assert not re.search(r"\]\*", told)
    assert "no verdict" in (folder / "compare.html").read_text()
    assert 'class="score better"' not in (folder / "compare.html").read_text()


def test_what_choosing_is_said_to_cost_is_told_as_the_shared_probe(finished: MakeRun) -> None:
    shared = "Choosing is the whole probe, which measures share"
    chosen = compare([finished("grpo_mid_hard", 0.5), finished("grpo_random", 0.5)])
    assert shared in (chosen / "compare.md").read_text()
    assert shared not in (compare([finished("grpo_full", 0.5)]) / "compare.md").read_text()


def test_html_needs_nothing_else_and_tex_and_markdown_hold_the_same_rows(
    finished: MakeRun,
) -> None:
    made = [finished("grpo_mid_hard", 0.7, control=0.5), finished("grpo_random", 0.5)]
    folder = compare(made)
    html, tex = (folder / "compare.html").read_text(), (folder / "compare.tex").read_text()
    inline = re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", html)
    svgs = [b64decode(each).decode() for each in inline]
    assert len(svgs) == 3
    for text in (html, *svgs):
        assert not re.findall(r"https?://(?!www\.w3\.org/)[^\s\"'<]*", text)
        assert "<script" not in text
    assert tex.count(r"\begin") == tex.count(r"\end") == 2
    assert "One seed: one training run for each row." in tex[tex.index(r"\parbox") :]
    body = tex[tex.index(r"\midrule") : tex.index(r"\bottomrule")]
    assert body.count(r" \\") == 4
    assert {line.count(" & ") for line in body.splitlines() if " & " in line} == {10}
    for title in ("GRPO-only(mid+hard)", "GRPO-only(random)", "base model, not trained"):
        assert title in html
        assert title in tex
        assert title in (folder / "compare.md").read_text()


def test_tex_holds_the_papers_figures_p_values_and_notes() -> None:
    score = Estimate(mean=0.586, low=0.55, high=0.621)
    base = Line(name="base", title="base", seeds=(), scores={"MMStar": score, "mean": score})
    mean = Difference(mean=0.02, low=0.01, high=0.03, p=0.0123, corrected=0.0246)
    against = Against(control="x", seeds=(1,), differences={"MMStar": mean, "mean": mean})
    row = replace(base, title="A&B", paper={"MMStar": 0.625}, against=against,
                  notes=("96 samples, but 80",))  # fmt: skip
    made = Comparison(model="m", data="d", measure="pism", benchmarks=("MMStar",), base=base,
                      lines=(row,), notes=("run_1 was made otherwise",), settings={})  # fmt: skip
    body, _, below = latex([made]).partition(r"\bottomrule")
    assert (
        r"A\&B & 58.6 {\scriptsize [55.0, 62.1] (62.5)} & 58.6 {\scriptsize [55.0, 62.1]}" in body
    )
    assert r" & 0.012 & 0.025 \\" in body
    assert r"run\_1 was made otherwise" in below
    assert "96 samples, but 80" in below


PERCEPTION = {
    "data": {
        "source": "orsta",
        "limit": None,
        "tasks": ["detection", "grounding", "counting", "ocr"],
    },
    "model": {"name": "Qwen/Qwen2.5-VL-7B-Instruct"},
}


def test_the_paper_s_figures_stand_beside_only_its_own_data_and_model() -> None:
    found = paper.figures(PERCEPTION, "grpo_mid_hard", "pism")
    assert found == pytest.approx(
        {
            "MathVista": 0.676, "MMVet": 0.52477, "OCRBench": 0.776,
            "HallusionBench": 0.69716, "MMMU": 0.544, "MMStar": 0.625,
        }
    )  # fmt: skip
    tiny = PERCEPTION | {"model": {"name": "tiny"}}
    part = PERCEPTION | {"data": PERCEPTION["data"] | {"limit": 500}}
    one = PERCEPTION | {"data": PERCEPTION["data"] | {"tasks": ["ocr"]}}
    for other in (tiny, part, one):
        assert paper.figures(other, "grpo_mid_hard", "pism") == {}
    assert paper.figures(PERCEPTION, "grpo_hard", "pism") == {}
    assert paper.figures(PERCEPTION, "grpo_mid_hard", "cde") == {}


@pytest.mark.parametrize("measure", ["pism", "cmab"])
@pytest.mark.parametrize("task_set", ["perception", "reasoning"])
def test_every_row_has_its_figures_in_each_of_the_four_tables(measure: str, task_set: str) -> None:
    tasks = sorted(paper.TASK_SETS[task_set])
    settings = PERCEPTION | {"data": PERCEPTION["data"] | {"tasks": tasks}}
    for row in ROWS:
        found = paper.figures(settings, row.recipe, measure)
        assert len(found) == 6
        assert all(0.3 < value < 0.8 for value in found.values()), (row, found)


def test_every_control_is_a_row_that_chooses_nothing() -> None:
    known = {row.recipe: row for row in ROWS}
    for row in ROWS:
        assert row.control is None or not known[row.control].chooses
    assert set(UNCONTROLLED) >= {"grpo_unsolved", "grpo_hard", "grpo_mid", "rap"}


def test_a_row_without_a_control_says_why(finished: MakeRun) -> None:
    folder = compare([finished("grpo_full", 0.5), finished("grpo_hard", 0.5)])
    text = (folder / "compare.md").read_text()
    assert "none: a random set of this size is the full set" in text
    assert "none: control=random was not trained" in text
    assert "so nothing is said of any choice" in text


def test_words_of_a_line_without_a_score_say_why() -> None:
    line = Line(name="x", title="x", seeds=(1,), scores={}, control="none: because")
    assert text.said(line) == "none: because"
