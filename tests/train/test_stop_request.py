"""A training that gets the request to stop saves after its step and ends with equal weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from difftrain.cli.overrides import compose_config
from difftrain.config.run_config import resolve
from difftrain.pipeline.stop_request import STOP_VARIABLE, StopRequested
from difftrain.train import checkpointing
from tests.train.test_resume import SMALL, fit_grpo, fit_sft

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("fit", [fit_sft, fit_grpo])
def test_a_stopped_training_continues_from_its_step_to_the_same_weights(
    fit: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = resolve(compose_config([*SMALL, "sft.save_steps=100", "grpo.save_steps=100"]))
    expected, stopped, stop_file = tmp_path / "expected", tmp_path / "stopped", tmp_path / "stop"
    fit(config, expected, interrupted=False)
    monkeypatch.setenv(STOP_VARIABLE, str(stop_file))
    stop_file.touch()
    for step in (1, 2):  # each start stops after one step
        with pytest.raises(StopRequested, match=rf"stopped on request after {step} of 4 steps"):
            fit(config, stopped, interrupted=False)
        stop_file.with_suffix(".saved").unlink()  # for the job: it may start again
        checkpoint = checkpointing.last_checkpoint(stopped)
        assert checkpoint is not None
        assert checkpoint.name == f"checkpoint-{step}"
    stop_file.unlink()
    fit(config, stopped, interrupted=False)
    first, second = (
        load_file(folder / "checkpoint" / "model.safetensors") for folder in (expected, stopped)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
