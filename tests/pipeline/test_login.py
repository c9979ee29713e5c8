"""A missing login of the experiment tracker is reported before any stage of a run starts."""

from collections.abc import Callable
from pathlib import Path

import pytest
import wandb

from difftrain.cli.overrides import compose_config
from difftrain.config.run_config import ConfigError, resolve
from difftrain.pipeline import chain
from difftrain.pipeline.coordination import World


@pytest.mark.parametrize("command", [chain.train, chain.report])
def test_wandb_without_a_login_is_refused_and_nothing_is_written(
    command: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("NETRC", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.teardown()  # ends the session of an earlier test, which may be offline
    config = resolve(compose_config(["report_to=wandb", f"output_dir={tmp_path / 'artifacts'}"]))
    with pytest.raises(ConfigError, match=r"report_to=wandb: no login"):
        command(config, World(), recipe_settings=[])
    assert not (tmp_path / "artifacts").exists()
