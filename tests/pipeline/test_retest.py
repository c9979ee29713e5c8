"""The retest compares the scores of a second probe with the first scores (no model needed).

A probe samples responses of the model. From these, measures such as PISM score the difficulty of
each sample. The retest reports how often both scores agree, and how many samples both would select.
"""

from pathlib import Path

from difftrain.cli.overrides import compose_config
from difftrain.config.run_config import resolve
from difftrain.pipeline import manifest, parquet, retest
from difftrain.pipeline.paths import RunPaths
from difftrain.probe.schedule import FAILED_FOLDER, FailedRequest
from difftrain.records import Measure, Rollout, Sample, Score, Stratum, Verdict, View


def test_a_scored_sample_is_compared_even_if_another_run_marks_it_as_failed_later(
    tmp_path: Path, shapes_samples: list[Sample]
) -> None:
    overrides = (
        "difficulty.extra_measures=[]",
        "probe.retest_samples=6",
        "probe.mask_percents=[0]",
        "probe.draws=1",
    )
    config = resolve(compose_config([f"output_dir={tmp_path}", *overrides]))
    paths, second = RunPaths(config), RunPaths(config, retest=True)
    samples = shapes_samples[:6]
    scores = [
        Score(sample_id=sample.sample_id, measure=Measure.pism, value=0.0, stratum=Stratum.unsolved)
        for sample in samples
    ]
    parquet.write_all(paths.score, scores[1:])  # the first sample failed, so it has no score
    failures = [
        FailedRequest(
            sample_id=sample.sample_id, view=View.full_image, mask_percent=0, draw=0, reason="no"
        )
        for sample in samples[:3]
    ]
    parquet.write_part(paths.probe / FAILED_FOLDER, "r000-00000", failures)
    rollouts = [
        Rollout(
            sample_id=sample.sample_id, view=View.full_image, mask_percent=0, draw=0, seed=1,
            response="?", num_tokens=1, token_ids=(), hit_eos=True, verdict=Verdict.incorrect,
        )
        for sample in samples
    ]  # fmt: skip
    parquet.write_all(second.probe, rollouts)
    counts = {"generations": 6, "tokens": 6}
    manifest.write_manifest(second.probe, settings={}, inputs={}, seconds=1.0, counts=counts)
    retest.write_scores_and_agreement(config, paths, second, samples)
    agreement = manifest.read_json(paths.reliability / retest.RESULT)
    # Five samples have a first score; two of these are in `failures` too. Both the agreement of
    # scores ("measures") and the overlap of selections ("chosen") are computed from all five.
    assert agreement["measures"]["pism"]["n"] == 5
    assert agreement["chosen"]["pool"] == 5
