"""Second draws against first scores, without a model: rows on disk, the comparison out."""

from pathlib import Path

from difftrain.cli.overrides import compose_config
from difftrain.config.run_config import resolve
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.paths import Places
from difftrain.probe import state
from difftrain.probe.state import FailedRequest
from difftrain.recipes import reliability
from difftrain.records import Measure, Rollout, Sample, Score, Stratum, Verdict, View


def test_what_the_probe_sets_aside_for_another_run_after_scoring_is_compared_all_the_same(
    tmp_path: Path, shapes_samples: list[Sample]
) -> None:
    words = (
        "difficulty.extra_measures=[]",
        "probe.retest_samples=6",
        "probe.mask_percents=[0]",
        "probe.draws=1",
    )
    config = resolve(compose_config([f"output_dir={tmp_path}", *words]))
    places, second, pool = Places(config), reliability.again(config), shapes_samples[:6]
    scores = [
        Score(sample_id=each.sample_id, measure=Measure.pism, value=0.0, stratum=Stratum.unsolved)
        for each in pool
    ]
    parquet.write_all(places.score, scores[1:])  # the first had no answer when it was scored
    refused = [
        FailedRequest(
            sample_id=each.sample_id, view=View.full_image, mask_percent=0, draw=0, reason="no"
        )
        for each in pool[:3]
    ]
    state.write_failures(places.probe, 0, refused)
    there = Places(second)
    answers = [
        Rollout(
            sample_id=each.sample_id, view=View.full_image, mask_percent=0, draw=0, seed=1,
            response="?", num_tokens=1, token_ids=(), hit_eos=True, verdict=Verdict.incorrect,
        )
        for each in pool
    ]  # fmt: skip
    parquet.write_all(there.probe, answers)
    spent = {"generations": 6, "tokens": 6}
    manifest.write_manifest(there.probe, settings={}, inputs={}, seconds=1.0, counts=spent)
    reliability.close(config, places, second, pool, tmp_path / "steady")
    found = manifest.read_json(tmp_path / "steady" / reliability.RESULT)
    assert found["measures"]["pism"]["n"] == found["chosen"]["pool"] == 5
