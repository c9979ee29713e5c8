"""A rank keeps sending heartbeats in every stage while it spends a long time loading a model.

The stages are the probe (sampling responses), the attention pass (measuring the attention of these
responses) and the evaluation on benchmarks.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from difftrain.config.run_config import RunConfig
from difftrain.evaluate import generate
from difftrain.pipeline import coordination, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.stage import Heartbeat
from difftrain.probe import attention_pass, run
from difftrain.records import Measure, Rollout, Sample, Verdict, View

FIRST, SECOND = World(0, 2), World(1, 2)  # the two ranks of a launch


class HeartbeatObserved(Exception):
    """Ends the load once a heartbeat has been sent meanwhile."""


def slow_loader(folder: Path) -> Callable[..., Any]:
    """A function that loads no model, but waits until the heartbeat file is touched twice."""

    def load(*_pixels: int) -> Any:
        path, deadline = coordination.heartbeat_path(folder, SECOND.rank), time.time() + 10
        for _ in range(2):
            before = path.stat().st_mtime_ns
            while path.stat().st_mtime_ns == before:
                assert time.time() < deadline, "no heartbeat while the model was loaded"
                time.sleep(0.01)
        raise HeartbeatObserved

    return load


@pytest.mark.parametrize("stage", ["probe", "attention", "evaluate"])
def test_a_rank_sends_heartbeats_while_it_loads_a_model(
    stage: str, shapes_samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordination, "BEAT_SECONDS", 0.05)
    config, folder = RunConfig(), tmp_path / stage
    config.difficulty.measure = Measure.cmab  # needs attention, unlike the default measure
    rows = [
        Rollout(
            sample_id=sample.sample_id, view=View.full_image, mask_percent=0, draw=0, seed=0,
            response="x", num_tokens=1, token_ids=(7,), hit_eos=True, verdict=Verdict.correct,
        )
        for sample in shapes_samples[:4]
    ]  # fmt: skip
    parquet.write_part(tmp_path, "r000-00000", rows)

    def run_stage_on_second_rank() -> None:
        load = slow_loader(folder)
        if stage == "probe":
            run.run_probe(load, shapes_samples, folder, SECOND, inputs={}, config=config, seed=1)
        elif stage == "attention":
            folders = tmp_path, folder
            attention_pass.run_attention_pass(
                load, shapes_samples, *folders, SECOND, config, seed=1
            )
        else:
            store, heart = generate.ResponseStore(folder), Heartbeat(folder, SECOND)
            pixel_limits = config.data.min_pixels, config.data.max_pixels
            generate.generate_responses(
                load, [], store, config.evaluate, pixel_limits, heart, rows_per_part=1
            )

    # The second rank may enter a stage only after the first rank has entered it.
    lock, name = (tmp_path, stage) if stage == "attention" else (folder, "")
    with coordination.stage_lock(lock, FIRST, stage=name):
        pass
    with pytest.raises(HeartbeatObserved):
        run_stage_on_second_rank()
    assert coordination.failure_reason(folder) is None
