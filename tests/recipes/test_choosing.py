"""What SFT rows give to their two stages, without a model: scores on disk, picks out."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from difftrain.cli.overrides import compose_config
from difftrain.config.run_config import RunConfig, resolve
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import FirstRankFailed, World
from difftrain.pipeline.paths import CONTROL, TUNED, Places
from difftrain.probe import state
from difftrain.probe.state import FailedRequest
from difftrain.recipes import choosing, difficulty
from difftrain.records import Measure, Sample, Score, Selection, Stratum, TrainStage, View
from difftrain.select.strata import EmptySelectionError

STRATA = [Stratum.medium, Stratum.medium, Stratum.hard, Stratum.unsolved]


def row(folder: Path, name: str, samples: list[Sample], *words: str) -> tuple[RunConfig, Places]:
    """A row's settings and places, with samples and scores in them."""
    small = ("sft.samples_per_step=2", "grpo.prompts_per_step=2", f"output_dir={folder}")
    config = resolve(compose_config([f"recipe={name}", *small, *words]))
    places = Places(config)
    if manifest.read_manifest(places.score) is None:
        parquet.write_all(places.data, samples)
        scores = [
            Score(sample_id=each.sample_id, measure=Measure.pism, value=0.3, stratum=STRATA[n % 4])
            for n, each in enumerate(samples)
        ]
        parquet.write_all(places.score, scores)
        told = {"easy": 0, "medium": 12, "hard": 6, "unsolved": 6}
        manifest.write_manifest(places.score, settings={}, inputs={}, seconds=0.0, counts=told)
    return config, places


def picked(
    config: RunConfig, places: Places, arm: str = TUNED
) -> dict[TrainStage, list[Selection]]:
    return {stage: choosing.CHOOSE[stage](config, places, World(), arm) for stage in config.stages}


def ids(picks: list[Selection]) -> set[str]:
    return {pick.sample_id for pick in picks}


def test_each_stage_gets_its_stratum_and_random_sets_have_its_size(
    tmp_path: Path, shapes_samples: list[Sample]
) -> None:
    plain = picked(*row(tmp_path, "sft_mid_grpo_hard", shapes_samples))
    drawn = picked(*row(tmp_path, "sft_rand_m_grpo_rand_h", shapes_samples))
    assert [len(plain[TrainStage.sft]), len(plain[TrainStage.grpo])] == [12, 6]
    assert [len(drawn[TrainStage.sft]), len(drawn[TrainStage.grpo])] == [12, 6]
    assert all(pick.stage is arm for arm, picks in drawn.items() for pick in picks)
    assert ids(plain[TrainStage.sft]) == {each.sample_id for n, each in enumerate(shapes_samples)
                                   if STRATA[n % 4] is Stratum.medium}  # fmt: skip
    assert ids(drawn[TrainStage.sft]) != ids(plain[TrainStage.sft])


def test_rows_that_name_the_same_set_share_it_and_its_training(
    tmp_path: Path, shapes_samples: list[Sample]
) -> None:
    rows = {name: row(tmp_path, name, shapes_samples) for name in (
        "sft_rand_m_grpo_hard", "sft_rand_m_grpo_rand_h", "sft_mid_grpo_rand_h", "grpo_hard",
        "sft_mid_grpo_hard",
    )}  # fmt: skip
    places = {name: places for name, (_, places) in rows.items()}
    one, two, three, alone, four = places.values()
    assert one.sft(TUNED) == two.sft(TUNED) != three.sft(TUNED) == four.sft(TUNED)
    assert two.select(TUNED) == three.select(TUNED)
    assert one.select(TUNED) == alone.select(TUNED) == four.select(TUNED)
    assert len({each.train(TUNED) for each in places.values()}) == 5
    other = row(tmp_path, "sft_rand_m_grpo_hard", shapes_samples, "seed=2")
    assert ids(picked(*other)[TrainStage.sft]) != ids(
        picked(*rows["sft_rand_m_grpo_hard"])[TrainStage.sft]
    )


def test_the_control_of_an_sft_row_has_random_sets_of_both_sizes(
    tmp_path: Path, shapes_samples: list[Sample]
) -> None:
    given = row(tmp_path, "sft_mid_grpo_hard", shapes_samples)
    control = picked(*given, CONTROL)
    assert [len(control[TrainStage.sft]), len(control[TrainStage.grpo])] == [12, 6]
    assert ids(control[TrainStage.sft]) != ids(picked(*given)[TrainStage.sft])


def test_samples_without_a_target_are_dropped_and_the_random_set_shrinks_alike(
    tmp_path: Path, shapes_samples: list[Sample], capsys: pytest.CaptureFixture[str]
) -> None:
    bare = [replace(each, rationale=None) if n % 4 == 0 else each
            for n, each in enumerate(shapes_samples)]  # fmt: skip
    for name in ("sft_mid_grpo_hard", "sft_rand_m_grpo_hard"):
        config, places = row(tmp_path, name, bare)
        picks = picked(config, places)[TrainStage.sft]
        assert len(picks) == 6
        assert not ids(picks) & {each.sample_id for each in bare if each.rationale is None}
        made = manifest.read_manifest(places.select(TUNED, TrainStage.sft))
        assert made["counts"]["dropped"] == {"no_rationale": 6}
        told = "chosen for SFT, tuned: 6 samples (6 more were dropped: the data gives no rationale"
        assert capsys.readouterr().out.startswith(told)


def test_a_probe_that_grows_for_another_run_changes_no_choice(
    tmp_path: Path, shapes_samples: list[Sample]
) -> None:
    for name in ("sft_mid_grpo_hard", "sft_rand_m_grpo_rand_h"):
        before = picked(*row(tmp_path / "before", name, shapes_samples))
        config, places = row(tmp_path / "after", name, shapes_samples)
        refused = [
            FailedRequest(
                sample_id=each.sample_id,
                view=View.full_image,
                mask_percent=0,
                draw=9,
                reason="too long",
            )
            for each in shapes_samples[:12]
        ]
        state.write_failures(places.probe, 0, refused)
        assert picked(config, places) == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["select.sft_strata=[easy]"], r"sft_keep leaves 0 samples.*easy 0, medium 12"),
        (
            ["sft.samples_per_step=13"],
            r"leaves 12 samples, but a step needs 13 samples;",
        ),
        (
            ["grpo.prompts_per_step=7"],
            r"keep leaves 6 samples, but a step needs 7 diff",
        ),
    ],
)
def test_a_stratum_that_is_empty_or_too_small_is_told_with_the_counts(
    tmp_path: Path, shapes_samples: list[Sample], words: list[str], told: str
) -> None:
    with pytest.raises(EmptySelectionError, match=told):
        picked(*row(tmp_path, "sft_mid_grpo_hard", shapes_samples, *words))


def test_the_other_ranks_are_told_at_once_that_a_stratum_holds_nothing(
    tmp_path: Path, shapes_samples: list[Sample]
) -> None:
    config, places = row(tmp_path, "grpo_hard", shapes_samples, "select.strata=[easy]")
    with pytest.raises(EmptySelectionError):
        difficulty.select(config, places, World(0, 2), TUNED)
    started = time.time()
    with pytest.raises(FirstRankFailed, match=r"rank 0 stopped: NothingChosen: .*easy 0"):
        difficulty.select(config, places, World(1, 2), TUNED)
    assert time.time() - started < 5


def test_the_other_ranks_are_told_at_once_that_the_samples_cannot_be_read_for_scoring(
    tmp_path: Path, shapes_samples: list[Sample]
) -> None:
    config, places = row(tmp_path, "grpo_hard", shapes_samples)
    (places.score / "manifest.json").unlink()
    next(places.data.glob("part-*")).write_bytes(b"cut")
    with pytest.raises((OSError, ValueError)):
        difficulty.score(config, places, World(0, 2))
    with pytest.raises(FirstRankFailed, match="rank 0 stopped: "):
        difficulty.score(config, places, World(1, 2))
