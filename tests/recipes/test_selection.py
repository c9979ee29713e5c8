"""Which samples the recipes select for each training stage, from scores on disk; no model.

A recipe's name tells its sets: sft_rand_m_grpo_hard trains by SFT on random samples, as many as are
medium, and then by GRPO on the hard samples. An arm is a model that a run trains: tuned by the
recipe, or control, which trains on random samples.
"""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from difftrain.cli.overrides import compose_config
from difftrain.config.run_config import RunConfig, resolve
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.chain import SELECT
from difftrain.pipeline.coordination import FirstRankFailed, World
from difftrain.pipeline.paths import RunPaths
from difftrain.probe.schedule import FAILED_FOLDER, FailedRequest
from difftrain.recipes import difficulty
from difftrain.records import Arm, Measure, Sample, Score, Selection, Stratum, TrainStage, View
from difftrain.select import EmptySelectionError

# The 24 samples have these strata (difficulty classes) in turn: 12 medium, 6 hard, 6 unsolved.
STRATA = [Stratum.medium, Stratum.medium, Stratum.hard, Stratum.unsolved]
NUM_MEDIUM, NUM_HARD = 12, 6


def prepare(
    folder: Path, recipe: str, samples: list[Sample], *overrides: str
) -> tuple[RunConfig, RunPaths]:
    """Write samples and scores to disk; returns a recipe's settings and paths."""
    small = ("sft.samples_per_step=2", "grpo.prompts_per_step=2", f"output_dir={folder}")
    config = resolve(compose_config([f"recipe={recipe}", *small, *overrides]))
    paths = RunPaths(config)
    if manifest.read_manifest(paths.score) is None:
        parquet.write_all(paths.data, samples)
        scores = [
            Score(sample_id=s.sample_id, measure=Measure.pism, value=0.3, stratum=STRATA[n % 4])
            for n, s in enumerate(samples)
        ]
        parquet.write_all(paths.score, scores)
        counts = {"easy": 0, "medium": NUM_MEDIUM, "hard": NUM_HARD, "unsolved": 6}
        manifest.write_manifest(paths.score, settings={}, inputs={}, seconds=0.0, counts=counts)
    return config, paths


def select_for_all_stages(
    config: RunConfig, paths: RunPaths, arm: str = Arm.tuned
) -> dict[TrainStage, list[Selection]]:
    """Select for every training stage of an arm; returns the selected samples."""
    return {stage: SELECT[stage](config, paths, World(), arm) for stage in config.stages}


def ids(selected: list[Selection]) -> set[str]:
    return {selection.sample_id for selection in selected}


def test_each_stage_gets_its_stratum_and_random_sets_have_the_size_of_the_stratum(
    tmp_path: Path, shapes_samples: list[Sample]
) -> None:
    by_stratum = select_for_all_stages(*prepare(tmp_path, "sft_mid_grpo_hard", shapes_samples))
    random = select_for_all_stages(*prepare(tmp_path, "sft_rand_m_grpo_rand_h", shapes_samples))
    assert [len(by_stratum[TrainStage.sft]), len(by_stratum[TrainStage.grpo])] == [
        NUM_MEDIUM,
        NUM_HARD,
    ]
    assert [len(random[TrainStage.sft]), len(random[TrainStage.grpo])] == [NUM_MEDIUM, NUM_HARD]
    assert all(row.stage is stage for stage, rows in random.items() for row in rows)
    medium = [s for n, s in enumerate(shapes_samples) if STRATA[n % 4] is Stratum.medium]
    assert ids(by_stratum[TrainStage.sft]) == {sample.sample_id for sample in medium}
    assert ids(random[TrainStage.sft]) != ids(by_stratum[TrainStage.sft])


def test_recipes_with_equal_selections_share_their_folders(
    tmp_path: Path, shapes_samples: list[Sample]
) -> None:
    prepared = {name: prepare(tmp_path, name, shapes_samples) for name in (
        "sft_rand_m_grpo_hard", "sft_rand_m_grpo_rand_h", "sft_mid_grpo_rand_h", "grpo_hard",
        "sft_mid_grpo_hard",
    )}  # fmt: skip
    all_paths = [paths for _, paths in prepared.values()]
    rand_hard, rand_rand, mid_rand, grpo_hard, mid_hard = all_paths
    tuned = Arm.tuned
    # SFT of the same selection gives the same folder; GRPO after another stage does not.
    assert rand_hard.sft(tuned) == rand_rand.sft(tuned)
    assert mid_rand.sft(tuned) == mid_hard.sft(tuned) != rand_rand.sft(tuned)
    assert rand_rand.selection(tuned) == mid_rand.selection(tuned)
    assert rand_hard.selection(tuned) == grpo_hard.selection(tuned) == mid_hard.selection(tuned)
    assert len({paths.grpo(tuned) for paths in all_paths}) == 5
    other_seed = prepare(tmp_path, "sft_rand_m_grpo_hard", shapes_samples, "seed=2")
    assert ids(select_for_all_stages(*other_seed)[TrainStage.sft]) != ids(
        select_for_all_stages(*prepared["sft_rand_m_grpo_hard"])[TrainStage.sft]
    )


def test_the_control_trains_both_stages_on_random_sets_of_the_recipes_sizes(
    tmp_path: Path, shapes_samples: list[Sample]
) -> None:
    config_and_paths = prepare(tmp_path, "sft_mid_grpo_hard", shapes_samples)
    control = select_for_all_stages(*config_and_paths, Arm.control)
    assert [len(control[TrainStage.sft]), len(control[TrainStage.grpo])] == [NUM_MEDIUM, NUM_HARD]
    assert ids(control[TrainStage.sft]) != ids(
        select_for_all_stages(*config_and_paths)[TrainStage.sft]
    )


def test_samples_without_a_target_are_dropped_and_the_random_set_shrinks_equally(
    tmp_path: Path, shapes_samples: list[Sample], caplog: pytest.LogCaptureFixture
) -> None:
    """SFT's target is the sample's rationale, which every second medium sample lacks here."""
    samples = [replace(sample, rationale=None) if n % 4 == 0 else sample
               for n, sample in enumerate(shapes_samples)]  # fmt: skip
    caplog.set_level("INFO")
    for name in ("sft_mid_grpo_hard", "sft_rand_m_grpo_hard"):
        config, paths = prepare(tmp_path, name, samples)
        selected = select_for_all_stages(config, paths)[TrainStage.sft]
        assert len(selected) == NUM_MEDIUM // 2
        assert not ids(selected) & {s.sample_id for s in samples if s.rationale is None}
        content = manifest.read_manifest(paths.selection(Arm.tuned, TrainStage.sft))
        assert content is not None
        assert content["counts"]["dropped"] == {"no_rationale": NUM_MEDIUM // 2}
        message = (
            "selected for SFT, tuned: 6 samples (6 more were dropped: the data has no rationale"
        )
        assert message in caplog.text
        caplog.clear()


def test_requests_that_another_run_fails_after_the_scoring_change_no_selection(
    tmp_path: Path, shapes_samples: list[Sample]
) -> None:
    for name in ("sft_mid_grpo_hard", "sft_rand_m_grpo_rand_h"):
        before = select_for_all_stages(*prepare(tmp_path / "before", name, shapes_samples))
        config, paths = prepare(tmp_path / "after", name, shapes_samples)
        failures = [
            FailedRequest(
                sample_id=sample.sample_id,
                view=View.full_image,
                mask_percent=0,
                draw=9,
                reason="too long",
            )
            for sample in shapes_samples[:12]
        ]
        parquet.write_part(paths.probe / FAILED_FOLDER, "r000-00000", failures)
        assert select_for_all_stages(config, paths) == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["select.sft_strata=[easy]"], r"select.sft_strata leaves 0 samples.*easy 0, medium 12"),
        (
            ["sft.samples_per_step=13"],
            r"leaves 12 samples, but a step needs 13 samples;",
        ),
        (
            ["grpo.prompts_per_step=7"],
            r"select.strata leaves 6 samples, but a step needs 7 diff",
        ),
    ],
)
def test_a_stratum_that_is_empty_or_too_small_is_reported_with_the_counts(
    tmp_path: Path, shapes_samples: list[Sample], overrides: list[str], message: str
) -> None:
    with pytest.raises(EmptySelectionError, match=message):
        select_for_all_stages(*prepare(tmp_path, "sft_mid_grpo_hard", shapes_samples, *overrides))


def test_an_export_needs_no_samples_for_a_step_of_training(
    tmp_path: Path, shapes_samples: list[Sample]
) -> None:
    config, paths = prepare(tmp_path, "grpo_hard", shapes_samples, "grpo.prompts_per_step=8")
    with pytest.raises(EmptySelectionError, match="leaves 6 samples, but a step needs 8"):
        difficulty.select(config, paths, World(), Arm.tuned)
    assert len(difficulty.select(config, paths, World(), Arm.tuned, minimum=1)) == NUM_HARD


def test_the_other_ranks_stop_at_once_if_a_stratum_is_empty(
    tmp_path: Path, shapes_samples: list[Sample]
) -> None:
    config, paths = prepare(tmp_path, "grpo_hard", shapes_samples, "select.strata=[easy]")
    with pytest.raises(EmptySelectionError):
        difficulty.select(config, paths, World(0, 2), Arm.tuned)
    started = time.time()
    with pytest.raises(FirstRankFailed, match=r"rank 0 stopped: EmptySelectionError: .*easy 0"):
        difficulty.select(config, paths, World(1, 2), Arm.tuned)
    assert time.time() - started < 5


def test_the_other_ranks_stop_at_once_if_the_samples_cannot_be_read_for_scoring(
    tmp_path: Path, shapes_samples: list[Sample]
) -> None:
    config, paths = prepare(tmp_path, "grpo_hard", shapes_samples)
    (paths.score / "manifest.json").unlink()
    next(paths.data.glob("part-*")).write_bytes(b"cut")
    with pytest.raises((OSError, ValueError)):
        difficulty.score(config, paths, World(0, 2))
    with pytest.raises(FirstRankFailed, match="rank 0 stopped: "):
        difficulty.score(config, paths, World(1, 2))


def test_select_ids_trains_on_the_listed_samples_and_says_so(
    tmp_path: Path, shapes_samples: list[Sample]
) -> None:
    listed = [sample.sample_id for sample in shapes_samples[:8]]  # of three strata
    file = tmp_path / "ids.txt"
    file.write_text("\n".join([*reversed(listed), listed[0], ""]))
    config, paths = prepare(tmp_path, "grpo_hard", shapes_samples, f"select.ids={file}")
    selected = select_for_all_stages(config, paths)[TrainStage.grpo]
    assert ids(selected) == {*listed}
    assert len(selected) == len(listed)
    assert selected[0].reason.startswith("listed in select.ids: medium by pism")
    assert len(select_for_all_stages(config, paths, Arm.control)[TrainStage.grpo]) == len(listed)


def test_the_folder_of_listed_samples_follows_from_the_ids_not_from_the_files_name(
    tmp_path: Path, shapes_samples: list[Sample]
) -> None:
    listed = [sample.sample_id for sample in shapes_samples]
    contents = {"a": listed[:8], "b": listed[7::-1], "c": listed[:7]}
    for name, lines in contents.items():
        (tmp_path / name).write_text("\n".join(lines))
    a, b, c = (
        prepare(tmp_path, "grpo_hard", shapes_samples, f"select.ids={tmp_path / name}")[1]
        for name in contents
    )
    without = prepare(tmp_path, "grpo_hard", shapes_samples)[1]
    assert a.selection(Arm.tuned) == b.selection(Arm.tuned)
    assert a.run == b.run
    others = [c.selection(Arm.tuned), without.selection(Arm.tuned)]
    assert a.selection(Arm.tuned) not in others
    assert a.run not in (c.run, without.run)


def test_an_id_that_is_not_a_scored_sample_is_refused_by_name(
    tmp_path: Path, shapes_samples: list[Sample]
) -> None:
    file = tmp_path / "ids.txt"
    file.write_text(f"{shapes_samples[0].sample_id}\nfeedbeef00000000\n")
    config, paths = prepare(tmp_path, "grpo_hard", shapes_samples, f"select.ids={file}")
    with pytest.raises(EmptySelectionError, match=r"1 of 2 ids .*'feedbeef00000000'"):
        select_for_all_stages(config, paths)
