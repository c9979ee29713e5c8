"""The comparison of finished runs: which control each row is compared with, and the verdict.

A row of the table is a recipe, averaged over the seeds of its runs. A recipe is named after the
strata (classes of difficulty) that it trains on: mid (medium), hard, unsolved, full (all), or rand
and random (as many random samples). The measure of difficulty is PISM, CMAB or RAP's CDE.
"""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from difftrain.pipeline.parquet import MissingArtifact, SchemaError
from difftrain.report.compare import presets
from difftrain.report.compare.build import compare_runs, known_scores
from difftrain.report.compare.presets import NEEDS_OWN_CONTROL, PAPER_ROWS, PRESETS
from difftrain.report.compare.render import describe, format_difference, latex, verdict
from difftrain.report.compare.runs import (
    Comparison,
    ComparisonRow,
    ControlDifference,
    NotComparable,
    Run,
    read_runs,
)
from difftrain.report.compare.tokens import at_equal_tokens, held_out_curve
from difftrain.stats import Estimate

ROOT = Path(__file__).resolve().parents[3]
FinishRun = Callable[..., Path]  # finish_run(recipe, accuracy) writes a finished run


def launch_compare(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `launch/report.py compare` with these arguments."""
    command = [sys.executable, str(ROOT / "launch" / "report.py"), "compare", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def csv_rows(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    """compare.csv by row and benchmark."""
    rows = csv.DictReader(io.StringIO((folder / "compare.csv").read_text()))
    return {(row["row"], row["benchmark"]): row for row in rows}


def test_rows_are_in_the_order_of_the_paper_below_the_base_model(finish_run: FinishRun) -> None:
    names = ("grpo_hard", "my_recipe", "grpo_random", "grpo_full")
    runs = [finish_run(name, 0.5) for name in names]
    folder = compare_runs(runs)
    assert folder.parent.name == "compare"
    rows = list(dict.fromkeys(row for row, _ in csv_rows(folder)))
    assert rows == ["base", "grpo_full", "grpo_random", "grpo_hard", "my_recipe"]
    lines = (folder / "compare.md").read_text().splitlines()
    (head,) = [line for line in lines if line.startswith("| row |")]
    assert re.findall(r"shapes/(\w+)", head) == [
        *("MathVista", "MMVet", "OCRBench", "HallusionBench", "MMMU", "MMStar")
    ]


def test_a_row_is_compared_with_the_random_row_of_equal_size(finish_run: FinishRun) -> None:
    runs = [
        finish_run("grpo_mid_hard", 0.7),
        finish_run("grpo_random", 0.5),
        finish_run("sft_mid_grpo_hard", 0.6),
        finish_run("sft_rand_m_grpo_rand_h", 0.5),
        finish_run("grpo_unsolved", 0.5),
        finish_run("grpo_full", 0.5),
    ]
    rows = csv_rows(compare_runs(runs))
    controls = {row: line["control"] for (row, name), line in rows.items() if name == "mean"}
    # Controls are named by their titles in the tables of Qi et al. 2026.
    assert controls["grpo_mid_hard"] == "GRPO-only(random)"
    assert controls["sft_mid_grpo_hard"] == "SFT(rand m)+GRPO(rand h)"
    assert controls["grpo_random"] == controls["grpo_full"] == controls["grpo_unsolved"] == ""


def test_a_run_with_its_own_control_is_not_compared_with_the_random_row(
    finish_run: FinishRun,
) -> None:
    runs = [finish_run("grpo_mid_hard", 0.6, control=0.6), finish_run("grpo_random", 0.4)]
    folder = compare_runs(runs)
    rows = csv_rows(folder)
    row = rows["grpo_mid_hard", "mean"]
    assert row["control"] == "its own random control"
    assert abs(float(row["difference"])) < 0.05
    assert ("grpo_mid_hard control", "mean") in rows
    assert "random control of GRPO-only(mid+hard)" in (folder / "compare.md").read_text()


def test_a_difference_uses_only_seeds_that_the_row_and_its_control_share(
    finish_run: FinishRun,
) -> None:
    runs = [finish_run("grpo_mid_hard", 0.6, seed=seed) for seed in (1, 2, 3)]
    runs += [finish_run("grpo_random", 0.5, seed=seed) for seed in (1, 3)]
    runs.append(finish_run("grpo_random", 0.1, seed=9))
    rows = csv_rows(compare_runs(runs))
    row, control = rows["grpo_mid_hard", "mean"], rows["grpo_random", "mean"]
    assert (row["seeds"], control["seeds"]) == ("1 2 3", "1 3 9")
    row_scores, control_scores = (
        [float(score) for score in line["seed_scores"].split()] for line in (row, control)
    )
    # Both have seeds 1 and 3: indices 0 and 2 of row_scores, indices 0 and 1 of control_scores.
    paired = (row_scores[0] + row_scores[2] - control_scores[0] - control_scores[1]) / 2
    assert float(row["difference"]) == pytest.approx(paired, abs=1e-5)


def test_three_seeds_that_agree_show_a_difference(finish_run: FinishRun) -> None:
    runs = [finish_run(name, rate, seed=seed)
            for name, rate in (("grpo_mid_hard", 0.6), ("grpo_random", 0.5))
            for seed in (1, 2, 3)]  # fmt: skip
    row = csv_rows(compare_runs(runs))["grpo_mid_hard", "mean"]
    assert row["verdict"].startswith("better, +")
    assert "one seed" not in row["verdict"]


def test_a_verdict_from_one_seed_says_so(finish_run: FinishRun) -> None:
    folder = compare_runs([finish_run("grpo_mid_hard", 0.7), finish_run("grpo_random", 0.5)])
    assert csv_rows(folder)["grpo_mid_hard", "mean"]["verdict"].endswith(", one seed")
    assert "One seed: one training run for each row." in (folder / "compare.md").read_text()


def test_rows_with_equal_accuracy_get_the_verdict_no_difference_shown(
    finish_run: FinishRun,
) -> None:
    folder = compare_runs([finish_run("grpo_mid_hard", 0.5), finish_run("grpo_random", 0.5)])
    assert "no difference shown" in csv_rows(folder)["grpo_mid_hard", "mean"]["verdict"]
    content = (folder / "compare.md").read_text()
    assert "Of one row compared with an equal-size random control, for one no difference" in content


def test_mcnemar_is_used_only_for_independent_items_that_score_0_or_1(
    finish_run: FinishRun,
) -> None:
    rows = csv_rows(
        compare_runs([finish_run("grpo_mid_hard", 0.6), finish_run("grpo_random", 0.5)])
    )
    significance_tests = {
        name.removeprefix("shapes/"): row["test"]
        for (recipe, name), row in rows.items()
        if recipe == "grpo_mid_hard"
    }
    for name in ("MMStar", "MathVista", "MMMU"):
        assert significance_tests[name] == "McNemar, exact"
    # MMVet scores tenths; the items of HallusionBench are grouped by figure.
    for name in ("MMVet", "HallusionBench", "mean"):
        assert significance_tests[name] == "paired bootstrap"


def test_p_is_corrected_for_the_rows_that_are_tested(finish_run: FinishRun) -> None:
    runs = [finish_run(name, 0.55, control=0.5) for name in ("grpo_hard", "grpo_mid", "rap")]
    rows = csv_rows(compare_runs(runs))
    raw = {
        row: float(line["p"]) for (row, name), line in rows.items() if name == "mean" and line["p"]
    }
    corrected = {row: float(rows[row, "mean"]["p_corrected"]) for row in raw}
    smallest = min(raw, key=raw.__getitem__)
    assert len(raw) == 3
    # Holm multiplies the smallest of three p values by three.
    assert corrected[smallest] == pytest.approx(min(1, 3 * raw[smallest]))
    assert all(corrected[row] >= raw[row] for row in raw)


def estimate(mean: float, low: float, high: float, p_corrected: float) -> Estimate:
    """A difference with its interval; the uncorrected p is below 0.05 in every test."""
    return Estimate(mean=mean, low=low, high=high, p_corrected=p_corrected, p=0.01)


def test_better_needs_an_interval_without_zero_and_a_small_corrected_p() -> None:
    assert verdict(estimate(0.02, 0.004, 0.039, 0.03)) == "better"
    assert verdict(estimate(-0.02, -0.039, -0.004, 0.03)) == "worse"
    assert verdict(estimate(0.02, -0.001, 0.04, 0.03)) == "no difference shown"
    corrected = verdict(estimate(0.02, 0.004, 0.039, 0.05))
    assert corrected == "no difference shown after correction for the number of rows"
    no_item_differs = Estimate(mean=0.0, low=0.0, high=0.0, n=48, p=1.0, p_corrected=1.0)
    assert format_difference(no_item_differs) == "none of 48 items differs"
    assert format_difference(estimate(0.021, 0.004, 0.039, 0.03)) == "+2.1 [0.4, 3.9]"


def test_a_run_without_a_finished_report_is_named(finish_run: FinishRun, root: Path) -> None:
    finished = finish_run("grpo_hard", 0.5)
    (root / "run" / "grpo_mid-1").mkdir()
    with pytest.raises(MissingArtifact) as error_info:
        compare_runs([finished, root / "run" / "grpo_mid-1", root / "run" / "nowhere"])
    assert "grpo_mid-1: no finished report" in str(error_info.value)
    assert "nowhere: there is no such run" in str(error_info.value)
    result = launch_compare(finished, root / "run" / "grpo_mid-1")
    assert result.returncode == 2
    assert "grpo_mid-1: no finished report" in result.stderr
    assert not (root / "compare").exists()


def test_a_run_of_an_earlier_version_is_refused_and_named(
    finish_run: FinishRun, root: Path
) -> None:
    run = finish_run("grpo_hard", 0.5)
    # Earlier versions wrote made.json where this version writes manifest.json.
    (root / "evaluate" / "base" / "made.json").write_text("{}")
    with pytest.raises(SchemaError, match=f"{run} was written by an earlier version"):
        compare_runs([run])


def test_a_missing_evaluation_is_named(finish_run: FinishRun) -> None:
    run = read_runs([finish_run("grpo_hard", 0.5)])[0]
    (run.results_folder("tuned") / "manifest.json").unlink()
    with pytest.raises(MissingArtifact, match="no finished evaluation of tuned at"):
        read_runs([run.folder])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [  # the first value in a message is the default
        ("evaluate.max_new_tokens", 7, "evaluate.max_new_tokens: 2048 and 7"),
        ("evaluate.rules", "2026-08", "evaluate.rules: 2025-11 and 2026-08"),
        ("model.name", "org/other", "model.name: tiny and org/other"),
        ("data.num_samples", 80, "data.num_samples: 400 and 80"),
        ("grpo.learning_rate", 0.5, "grpo.learning_rate: 1e-06 and 0.5"),
    ],
)
def test_a_run_with_a_differing_setting_is_refused_and_the_error_names_the_setting(
    finish_run: FinishRun, key: str, value: object, message: str
) -> None:
    alike = [finish_run("grpo_hard", 0.5), finish_run("grpo_mid", 0.5)]
    different = finish_run("grpo_full", 0.5, settings={key: value})
    with pytest.raises(NotComparable) as error_info:
        compare_runs([different, *alike])
    assert str(error_info.value).count(str(different)) == 1
    assert message in str(error_info.value)
    assert not any(str(run) in str(error_info.value) for run in alike)


def test_with_force_a_table_is_written_that_names_differing_settings(finish_run: FinishRun) -> None:
    runs = [finish_run("grpo_hard", 0.5), finish_run("grpo_mid", 0.5)]
    different = finish_run("grpo_full", 0.5, settings={"data.num_samples": 80})
    result = launch_compare(*runs, different)
    assert result.returncode == 2
    assert "data.num_samples: 400 and 80" in result.stderr
    assert "Traceback" not in result.stderr
    result = launch_compare(*runs, different, "--force")
    assert result.returncode == 0
    folder = Path(result.stdout.strip().splitlines()[-1].removeprefix("output: "))
    for name in ("compare.md", "compare.html"):
        content = (folder / name).read_text()
        assert "has other settings: data.num_samples: 400 and 80." in content
        assert "GRPO-only(fullset) (other settings)" in content


def test_runs_may_differ_in_settings_of_recipes_and_in_settings_without_effect(
    finish_run: FinishRun,
) -> None:
    allowed = {"grpo.reward_workers": 2, "select.strata": ["easy"], "report_to": "wandb"}
    allowed |= {"sft": {"learning_rate": 1e-3}}  # has no effect, because these runs have no SFT
    compare_runs([finish_run("grpo_hard", 0.5), finish_run("my_recipe", 0.5, settings=allowed)])
    save_steps = {"sft.save_steps": 7}
    run = finish_run("sft_mid_grpo_hard", 0.5, settings=save_steps)
    compare_runs([run, finish_run("sft_rand_m_grpo_rand_h", 0.5)])


@pytest.mark.parametrize("name", ["grpo_mid_hard", "my_recipe"])
def test_seeds_of_one_row_with_different_settings_are_refused(
    finish_run: FinishRun, name: str
) -> None:
    random_runs = [finish_run("grpo_random", 0.5, seed=seed) for seed in (1, 2, 3)]
    different = {"select.strata": ["unsolved"], "select.random": True}
    typical = {"select.strata": ["medium", "hard"]}
    runs = [finish_run(name, 0.5, seed=seed, settings=typical) for seed in (1, 2)]
    runs.append(finish_run(name, 0.5, seed=3, settings=different))
    with pytest.raises(NotComparable) as error_info:
        compare_runs([*random_runs, *runs])
    message = str(error_info.value)
    assert str(runs[2]) in message
    assert not any(str(run) in message for run in (*random_runs, *runs[:2]))
    assert re.search(r"select\.strata: \['medium', 'hard'\] .*and \['unsolved'\]", message)
    assert re.search(r"select\.random: False .*and True", message)


def test_a_run_whose_settings_contradict_its_name_is_refused(finish_run: FinishRun) -> None:
    different = finish_run("grpo_mid_hard", 0.5, settings={"select.strata": ["easy"]})
    with pytest.raises(NotComparable) as error_info:
        compare_runs([different, finish_run("grpo_random", 0.5)])
    message = "select.strata: ['medium', 'hard'] according to its name, but ['easy']"
    assert message in str(error_info.value)
    folder = compare_runs([different, finish_run("grpo_random", 0.5)], force=True)
    for name in ("compare.md", "compare.tex"):
        content = (folder / name).read_text().replace("\\_", "_")
        assert "GRPO-only(mid+hard) (other settings)" in content
        assert message in content


def test_two_trainings_of_one_row_and_seed_are_refused(finish_run: FinishRun) -> None:
    runs = [finish_run("grpo_hard", 0.5), finish_run("grpo_hard", 0.6)]
    with pytest.raises(NotComparable, match="two runs of grpo_hard with seed 1"):
        compare_runs(runs)
    rows = {row for row, _ in csv_rows(compare_runs(runs, force=True))}
    assert len(rows) == 3  # base and both runs


def test_of_two_runs_with_the_same_model_the_table_shows_the_run_with_a_control(
    finish_run: FinishRun,
) -> None:
    runs = [finish_run("grpo_hard", 0.5), finish_run("grpo_hard", 0.5, control=0.5)]
    for order in (runs, runs[::-1]):
        assert (
            csv_rows(compare_runs(order))["grpo_hard", "mean"]["control"]
            == "its own random control"
        )


def test_runs_with_different_items_are_refused(
    finish_run: FinishRun, item_results_of: Callable[..., list]
) -> None:
    fewer = item_results_of(0.5, noise_seed=1, num_items=40)
    runs = [finish_run("grpo_mid_hard", 0.5, results=fewer), finish_run("grpo_random", 0.5)]
    result = launch_compare(*runs)
    assert result.returncode == 2
    assert "items are in only one result" in result.stderr


def test_each_measure_has_its_own_table(finish_run: FinishRun) -> None:
    cmab = {"difficulty.measure": "cmab"}
    runs = [finish_run("grpo_hard", 0.5), finish_run("grpo_hard", 0.5, settings=cmab)]
    content = (compare_runs(runs) / "compare.md").read_text()
    assert content.count("\n## ") == 2
    assert "## cmab, shapes" in content
    assert "## pism, shapes" in content


def test_a_random_set_has_no_cost_of_selection(finish_run: FinishRun) -> None:
    runs = [finish_run("grpo_mid_hard", 0.5), finish_run("grpo_random", 0.5)]
    by_difficulty, at_random = (read_runs([run])[0].cost() for run in runs)
    assert at_random.selection_seconds == at_random.selection_tokens == 0
    # The toy run's probe, which measures difficulty, takes 412 s.
    assert by_difficulty.selection_seconds > 400
    # finish_run() trains 20 steps of 1900 tokens and 3 s.
    assert (by_difficulty.steps, by_difficulty.samples) == (20, 96)
    assert by_difficulty.tokens == 20 * 1900
    assert by_difficulty.seconds == 20 * 3


def test_a_sampler_that_starts_from_the_probe_pays_for_it_in_both_arms(
    finish_run: FinishRun,
) -> None:
    learnable, skipping = (
        read_runs([finish_run("grpo_full", 0.5, settings={"grpo.sampler": sampler})])[0]
        for sampler in ("learnable", "skip_dead")
    )
    assert learnable.cost().selection_seconds > 400
    assert learnable.cost("control").selection_seconds > 400
    assert skipping.cost().selection_seconds == 0
    stages = learnable.report["cost"]["by_stage"]
    stages["probe, round 2"] = {"seconds": 1000.0}  # of the tuned model
    assert learnable.cost().selection_seconds > 1400
    assert learnable.cost("control").selection_seconds < 1000


def reduce_samples(run: Path) -> None:
    """Change report.json as if the run was trained on 80 samples instead of 96."""
    content = (run / "report.json").read_text()
    (run / "report.json").write_text(content.replace('"samples": 96', '"samples": 80'))


def test_a_control_of_another_size_is_noted(finish_run: FinishRun) -> None:
    runs = [finish_run("grpo_mid_hard", 0.5), finish_run("grpo_random", 0.5)]
    reduce_samples(runs[1])
    content = (compare_runs(runs) / "compare.md").read_text()
    assert "grpo_mid_hard, seed 1: 96 samples, but 80 of its control" in content


def test_a_row_whose_control_has_another_size_gets_no_verdict(finish_run: FinishRun) -> None:
    runs = [finish_run(name, rate, seed=seed)
            for name, rate in (("grpo_mid_hard", 0.6), ("grpo_random", 0.5))
            for seed in (1, 2, 3)]  # fmt: skip
    reduce_samples(runs[-1])  # the control of seed 3
    folder = compare_runs(runs)
    verdict_text = csv_rows(folder)["grpo_mid_hard", "mean"]["verdict"]
    assert verdict_text.startswith("no verdict: its control has another size, +")
    content = (folder / "compare.md").read_text()
    assert "one has a control of another size" in content
    assert not re.search(r"\]\*", content)  # an asterisk after an interval marks a difference
    assert "no verdict" in (folder / "compare.html").read_text()
    assert 'class="score better"' not in (folder / "compare.html").read_text()


def test_a_note_says_that_the_cost_of_selection_includes_the_whole_probe(
    finish_run: FinishRun,
) -> None:
    shared = "The cost of selection is the whole probe, which all measures share"
    selected = compare_runs([finish_run("grpo_mid_hard", 0.5), finish_run("grpo_random", 0.5)])
    assert shared in (selected / "compare.md").read_text()
    assert shared not in (compare_runs([finish_run("grpo_full", 0.5)]) / "compare.md").read_text()


def test_html_loads_nothing_and_all_formats_have_the_same_rows(
    finish_run: FinishRun,
) -> None:
    runs = [finish_run("grpo_mid_hard", 0.7, control=0.5), finish_run("grpo_random", 0.5)]
    folder = compare_runs(runs)
    html, tex = (folder / "compare.html").read_text(), (folder / "compare.tex").read_text()
    inline = re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", html)
    svgs = [b64decode(svg).decode() for svg in inline]
    assert len(svgs) == 3  # differences, means and costs
    for content in (html, *svgs):
        # w3.org is allowed: SVG files name their XML namespaces by such addresses.
        assert not re.findall(r"https?://(?!www\.w3\.org/)[^\s\"\'<]*", content)
        assert "<script" not in content
    assert tex.count(r"\begin") == tex.count(r"\end") == 2  # table and tabular
    assert "One seed: one training run for each row." in tex[tex.index(r"\parbox") :]
    body = tex[tex.index(r"\midrule") : tex.index(r"\bottomrule")]
    assert body.count(r" \\") == 4  # base, both runs and the own control of the first run
    # Eleven columns: title, six benchmarks, mean, verdict, p, corrected p.
    assert {line.count(" & ") for line in body.splitlines() if " & " in line} == {10}
    for title in ("GRPO-only(mid+hard)", "GRPO-only(random)", "base model, not trained"):
        assert title in html
        assert title in tex
        assert title in (folder / "compare.md").read_text()


def test_tex_contains_paper_scores_p_values_and_notes() -> None:
    score = Estimate(mean=0.586, low=0.55, high=0.621)
    base = ComparisonRow(
        name="base", title="base", seeds=(), scores={"MMStar": score, "mean": score}
    )
    mean = Estimate(mean=0.02, low=0.01, high=0.03, p=0.0123, p_corrected=0.0246)
    versus = ControlDifference(control="x", seeds=(1,), differences={"MMStar": mean, "mean": mean})
    row = replace(base, title="A&B", paper={"MMStar": 0.625}, versus_control=versus,
                  size_mismatches=("96 samples, but 80",))  # fmt: skip
    comparison = Comparison(model="m", data="d", measure="pism", benchmarks=("MMStar",), base=base,
                            rows=(row,), notes=("run_1 has other settings",))  # fmt: skip
    body, _, below = latex([comparison]).partition(r"\bottomrule")
    assert (
        r"A\&B & 58.6 {\scriptsize [55.0, 62.1] (62.5)} & 58.6 {\scriptsize [55.0, 62.1]}" in body
    )
    assert r" & 0.012 & 0.025 \\" in body
    assert r"run\_1 has other settings" in below
    assert "96 samples, but 80" in below


PERCEPTION = {
    "data": {
        "source": "orsta",
        "limit": None,
        "tasks": ["detection", "grounding", "counting", "ocr"],
    },
    "model": {"name": "Qwen/Qwen2.5-VL-7B-Instruct"},
}


def test_published_scores_are_shown_only_for_the_data_and_model_of_qi_et_al() -> None:
    scores = presets.paper_scores(PERCEPTION, "grpo_mid_hard", "pism")
    # From the table "PISM, perception" of Qi et al. 2026, as fractions.
    assert scores == pytest.approx(
        {
            "MathVista": 0.676, "MMVet": 0.52477, "OCRBench": 0.776,
            "HallusionBench": 0.69716, "MMMU": 0.544, "MMStar": 0.625,
        }
    )  # fmt: skip
    tiny = PERCEPTION | {"model": {"name": "tiny"}}
    limited = PERCEPTION | {"data": PERCEPTION["data"] | {"limit": 500}}
    one_task = PERCEPTION | {"data": PERCEPTION["data"] | {"tasks": ["ocr"]}}
    for settings in (tiny, limited, one_task):
        assert presets.paper_scores(settings, "grpo_mid_hard", "pism") == {}
    assert presets.paper_scores(PERCEPTION, "grpo_hard", "pism") == {}
    assert presets.paper_scores(PERCEPTION, "grpo_mid_hard", "cde") == {}


@pytest.mark.parametrize("measure", ["pism", "cmab"])
@pytest.mark.parametrize("task_set", ["perception", "reasoning"])
def test_every_row_has_published_scores_in_all_four_tables_of_the_paper(
    measure: str, task_set: str
) -> None:
    tasks = sorted(presets.TASK_SETS[task_set])
    settings = PERCEPTION | {"data": PERCEPTION["data"] | {"tasks": tasks}}
    for row in PAPER_ROWS:
        scores = presets.paper_scores(settings, row.recipe, measure)
        assert len(scores) == 6  # benchmarks
        # All scores in the paper are in this range; a percentage or a misread column is not.
        assert all(0.3 < value < 0.8 for value in scores.values()), (row, scores)


RAP_RATES = {
    "grpo_full": 0.5, "rap_random": 0.45, "rap": 0.6, "rap_cde": 0.5, "rap_ace": 0.45,
    "rap_cde_ace": 0.5,
}  # fmt: skip
"""The rows of RAP's Table 1 and ablation, with an accuracy for each."""


@pytest.fixture
def rap_table(finish_run: FinishRun) -> Path:
    """The folder of a comparison of RAP's rows, whose ablation trained its own controls."""
    ablation = ("rap_cde", "rap_ace", "rap_cde_ace")
    runs = [
        finish_run(name, rate, control=rate if name in ablation else None)
        for name, rate in RAP_RATES.items()
    ]
    return compare_runs(runs)


def rap_lines(folder: Path, section: str) -> list[list[str]]:
    """The cells of the lines of a markdown table: the first table after a text."""
    content = (folder / "compare.md").read_text().partition(section)[2].lstrip()
    table = content[content.index("|") :].partition("\n\n")[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]


def test_raps_rows_are_shown_in_the_form_and_order_of_its_table_1(rap_table: Path) -> None:
    head, _, base, *rows = rap_lines(rap_table, "### As RAP's Table 1 and its ablation")
    assert head[1:8] == ["samples", "share of the pool", "probe", "attention", "scoring",
                         "training", "together"]  # fmt: skip
    # RAP's order of benchmarks; those that it does not have come last.
    assert head[8:11] == ["shapes/MathVista", "shapes/MMStar", "shapes/MMVet"]
    assert [row[0] for row in rows] == [
        "full data", "random, as many as RAP selects", "RAP", "CDE only", "ACE only", "CDE + ACE",
    ]  # fmt: skip
    assert base[1:8] == [""] * 7
    by_title = {row[0]: row for row in rows}
    scores = csv_rows(rap_table)
    for name, title in presets.RAP_TITLES.items():
        assert by_title[title][-1] == f"{100 * float(scores[name, 'mean']['score']):.1f}"
    # Only rows that select are charged for the probe, which takes 412 s in the toy run.
    assert by_title["full data"][3] == by_title["random, as many as RAP selects"][3] == "none"
    assert by_title["RAP"][3] == by_title["CDE only"][3] == "7 min"
    html = (rap_table / "compare.html").read_text()
    assert "random, as many as RAP selects" in html
    assert "row minus full data" in html


def test_rap_is_compared_with_its_random_row_and_the_ablation_with_own_controls(
    rap_table: Path,
) -> None:
    rows = csv_rows(rap_table)
    assert rows["rap", "mean"]["control"] == "random set of RAP's size"
    for name in ("rap_cde", "rap_ace", "rap_cde_ace"):
        assert rows[name, "mean"]["control"] == "its own random control"
    assert rows["rap_random", "mean"]["control"] == rows["grpo_full", "mean"]["control"] == ""


def test_raps_rows_are_also_compared_with_training_on_all_samples(rap_table: Path) -> None:
    head, _, *rows = rap_lines(rap_table, "each row that selects is charged for all of it.")
    assert head[0] == "row minus full data"
    assert [row[0] for row in rows] == [
        title for name, title in presets.RAP_TITLES.items() if name != "grpo_full"
    ]
    scores = {row: float(line["score"]) for (row, name), line in csv_rows(rap_table).items()
              if name == "mean"}  # fmt: skip
    difference = 100 * (scores["rap"] - scores["grpo_full"])
    (mean,) = [row[-3] for row in rows if row[0] == "RAP"]
    assert mean.startswith(f"{difference:+.1f} [")
    # Holm's correction: the largest p of these five rows stays as it is, no p becomes smaller.
    assert all(float(corrected) >= float(p) for *_, p, corrected in rows if p[0].isdigit())
    assert "Full data is not a control of equal size" in (rap_table / "compare.md").read_text()


def test_a_table_without_a_row_of_rap_has_no_table_of_rap(finish_run: FinishRun) -> None:
    content = (compare_runs([finish_run("grpo_full", 0.5)]) / "compare.md").read_text()
    assert "RAP" not in content


def test_the_cost_of_selection_is_split_into_probe_attention_and_scoring() -> None:
    by_stage = {
        "probe": {"seconds": 100.0, "tokens": 7},
        "attention": {"seconds": 20.0},
        "score": {"seconds": 3.0},
        "select tuned": {"seconds": 0.5},
        "train tuned": {"seconds": 50.0, "steps": 5, "tokens": 9},
    }
    report = {
        "name": "rap",
        "train_stages": "grpo",
        "settings": {"select": {"random": False}},
        "counts": {"samples": 410, "quarantined": 10},
        "cost": {"by_stage": by_stage},
        "trained": {"tuned": {"samples": 40}},
    }
    cost = Run(Path("rap"), report).cost()
    assert (cost.probe_seconds, cost.attention_seconds, cost.scoring_seconds) == (100, 20, 3.5)
    assert cost.selection_seconds == 123.5
    assert cost.total_seconds == 173.5
    assert (cost.samples, cost.pool) == (40, 400)  # rejected rows are not in the pool
    full = Run(Path("full"), report | {"name": "grpo_full"}).cost()
    assert (full.probe_seconds, full.selection_seconds, full.total_seconds) == (0, 0, 50)


MM_EUREKA = {
    "data": {"source": "mm_eureka", "limit": None, "tasks": None},
    "model": {"name": "Qwen/Qwen2.5-VL-7B-Instruct"},
    "evaluate": {"limit": None, "judge": "endpoint"},
}


def test_raps_figures_are_known_only_for_its_data_and_model() -> None:
    figures = presets.rap_figures(MM_EUREKA, "rap")
    assert (figures["samples"], figures["hours"]) == (5159, 52.8)
    scores = [figures[name] for name in presets.RAP_BENCHMARKS]
    # RAP prints 56.04, the mean of the six scores that it prints.
    assert sum(scores) / 6 == pytest.approx(figures["mean"], abs=1e-4) == 0.5604
    full = presets.rap_figures(MM_EUREKA, "grpo_full")
    assert (full["samples"], full["hours"], full["mean"]) == (54931, 93.2, 0.5432)
    assert presets.rap_figures(MM_EUREKA, "rap_cde") == {}  # its ablation is not known here
    for section, key, value, reason in (
        ("model", "name", "tiny", "the model is tiny, not Qwen2.5-VL-7B-Instruct"),
        ("data", "source", "shapes", "the data are shapes, not all of MM-Eureka"),
        ("data", "limit", 500, "not all of MM-Eureka"),
        ("evaluate", "limit", 100, "evaluate.limit=100 leaves out benchmark items"),
        ("evaluate", "judge", "none", "no model judged the answers (evaluate.judge=none"),
    ):
        settings = MM_EUREKA | {section: MM_EUREKA[section] | {key: value}}
        assert presets.rap_figures(settings, "rap") == {}
        (mismatch,) = presets.rap_mismatches(settings)
        assert reason in mismatch


def test_the_average_of_rap_is_shown_only_beside_an_average_of_its_six_benchmarks() -> None:
    figures = presets.rap_figures(MM_EUREKA, "rap")
    assert known_scores(figures, [*presets.RAP_BENCHMARKS]) == figures
    three = ["MathVista", "MMStar", "MMVet"]
    assert known_scores(figures, three).keys() == {*three, "samples", "hours"}
    miniatures = known_scores(figures, [f"shapes/{name}" for name in presets.RAP_BENCHMARKS])
    assert miniatures.keys() == {"samples", "hours"}


def test_raps_figures_stand_in_brackets_beside_ours_or_the_table_says_why_not(
    finish_run: FinishRun, rap_table: Path
) -> None:
    content = (rap_table / "compare.md").read_text()
    assert "figures of RAP's Table 1 are left out, because they are of other runs: the " in content
    assert "5,159" not in content
    same = {"data.source": "mm_eureka", "data.path": "x", "model.name": PERCEPTION["model"]["name"]}
    same["evaluate.judge"] = "endpoint"
    runs = [finish_run(name, 0.5, settings=same) for name in ("grpo_full", "rap")]
    folder = compare_runs(runs)
    _, _, _, full, rap = rap_lines(folder, "### As RAP's Table 1 and its ablation")
    assert full[1] == "96 (54,931)"
    assert full[7] == "60 s (93.2 h)"
    assert rap[1] == "96 (5,159)"
    content = (folder / "compare.md").read_text()
    assert "RAP selects from 54,931 samples, this table from 9:" in content


def test_a_row_that_selects_by_difficulty_is_never_the_control_of_another_row() -> None:
    """Dynamic sampling is not a selection: its control trains on the same samples without it."""
    for row in PRESETS.values():
        is_random = row.control is None or not PRESETS[row.control].selects
        assert is_random == (row.recipe != "grpo_dynamic")
    without_control = {
        "grpo_unsolved",
        "grpo_hard",
        "grpo_mid",
        "rap_cde",
        "rap_ace",
        "rap_cde_ace",
    }
    assert set(NEEDS_OWN_CONTROL) >= without_control
    assert presets.preset_of("rap").control == "rap_random"
    assert not presets.preset_of("rap_random").selects


def test_the_table_says_why_a_row_has_no_control(finish_run: FinishRun) -> None:
    folder = compare_runs([finish_run("grpo_full", 0.5), finish_run("grpo_hard", 0.5)])
    content = (folder / "compare.md").read_text()
    assert "none: a random set of this size is the full set" in content
    assert "none: control=random was not trained" in content
    assert "so no selection can be judged" in content


def test_describe_returns_the_reason_if_a_row_has_no_control() -> None:
    row = ComparisonRow(name="x", title="x", seeds=(1,), scores={}, no_control="none: because")
    assert describe(row) == "none: because"


def test_a_verdict_says_that_a_row_generated_more_tokens_than_its_control(
    finish_run: FinishRun,
) -> None:
    runs = [finish_run("grpo_mid_hard", 0.7), finish_run("grpo_random", 0.5)]
    equal = compare_runs(runs)
    assert "control's tokens" not in csv_rows(equal)["grpo_mid_hard", "mean"]["verdict"]
    content = (runs[1] / "report.json").read_text()
    assert content.count('"tokens": 38000') > 0  # 20 steps of 1900 tokens
    (runs[1] / "report.json").write_text(content.replace('"tokens": 38000', '"tokens": 19000'))
    folder = compare_runs(runs, output=equal.parent / "unequal")
    verdict_text = csv_rows(folder)["grpo_mid_hard", "mean"]["verdict"]
    assert verdict_text.endswith(", 2 times its control's tokens, one seed")
    for name in ("compare.html", "compare.tex", "compare.md"):
        assert "2 times its control" in (folder / name).read_text(), name
    (line,) = [
        line
        for line in (folder / "compare.md").read_text().splitlines()
        if line.startswith("| GRPO-only(mid+hard) | 38,000 | 19,000 |")
    ]
    assert line.split(" | ")[3:5] == ["2.00", "none"]  # no evaluations on held-out samples
    for number, run in enumerate(read_runs(runs), 1):
        (train,) = run.train_folders("tuned")
        shutil.rmtree(train)
        write_log(train, 100 * number, {2: 0.25, 4: 0.5})
    text = (compare_runs(runs, output=equal.parent / "held out") / "compare.md").read_text()
    # The row ends after 400 tokens at 50 %, where its control has been evaluated at 25 %.
    assert "| 2.00 | 400 tokens | 50.0 | 25.0 |" in text


def test_dynamic_sampling_is_compared_with_the_same_selection_without_it(
    finish_run: FinishRun,
) -> None:
    refill = {"grpo.dynamic_sampling": True}
    runs = [finish_run("grpo_dynamic", 0.7, settings=refill), finish_run("grpo_mid_hard", 0.5)]
    report = json.loads((runs[0] / "report.json").read_text())
    report["recipe_difference"].append("grpo.dynamic_sampling=true")  # the recipe file sets it
    (runs[0] / "report.json").write_text(json.dumps(report))
    folder = compare_runs(runs)
    row = csv_rows(folder)["grpo_dynamic", "mean"]
    assert row["control"] == "GRPO-only(mid+hard)"
    assert row["verdict"].startswith("better")
    for name in ("compare.md", "compare.html"):
        text = (folder / name).read_text()
        assert "Rows against their controls" in text
        assert "Of one row compared with an equal-size control, one is better" in text
        assert "against its random control" not in text


def write_log(folder: Path, tokens: int, accuracies: dict[int, float]) -> Path:
    """A training of four steps with these held-out accuracies by step."""
    folder.mkdir(parents=True)
    rows = [{"step": step, "generated_tokens": tokens} for step in range(1, 5)]
    evaluations = [
        {"step": step, "eval_rewards/accuracy/mean": value} for step, value in accuracies.items()
    ]
    for name, lines in (("train_log", rows), ("eval_log", evaluations)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
    return folder


def test_held_out_accuracy_is_compared_where_the_cheaper_run_was_last_evaluated(
    tmp_path: Path,
) -> None:
    refill = held_out_curve([write_log(tmp_path / "refill", 300, {2: 0.4, 4: 0.8})])
    plain = held_out_curve([write_log(tmp_path / "plain", 200, {2: 0.3, 4: 0.5})])
    assert refill == [(600, 0.4), (1200, 0.8)]
    # After 800 tokens plain ends, and refill is a third of the way from 0.4 to 0.8.
    assert at_equal_tokens(refill, plain) == (800, pytest.approx(0.4 + 0.4 / 3), 0.5)
    late = held_out_curve([write_log(tmp_path / "late", 900, {4: 0.9})])
    assert at_equal_tokens(late, plain) is None  # not evaluated until then
    assert held_out_curve([tmp_path / "refill", tmp_path / "plain"]) == []  # two rounds
