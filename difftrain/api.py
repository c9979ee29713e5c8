"""The functions of `import difftrain`: the pipeline's stages, on samples in memory.

`settings` are overrides as on the command line, such as "difficulty=all" or "probe.draws=4". The
probe (the stage that generates and grades responses) stores them in output_dir (default `outputs`):
a second call with the same samples, model and settings generates nothing.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from difftrain.cli import expand_evaluate
from difftrain.cli.overrides import compose_config
from difftrain.config.data import ALL_SUFFIXES
from difftrain.config.run_config import RunConfig, resolve, to_config, with_family_settings
from difftrain.data import dataset
from difftrain.data.quarantine import EmptyDatasetError
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.model_session import ModelSession
from difftrain.pipeline.paths import RunPaths
from difftrain.probe.schedule import without_failed
from difftrain.recipes import difficulty
from difftrain.records import Rollout, Sample, Score, Selection

logger = logging.getLogger(__name__)


def load_dataset(data: str = "shapes", *settings: str) -> list[Sample]:
    """The usable samples of a data set: a name under conf/data, or the path of a file of rows.

    Other formats: load_dataset("orsta_reasoning", "data.path=FOLDER"). Rejected rows are logged
    with their reasons. Raises ConfigError for bad settings, EmptyDatasetError if no row is usable.
    """
    is_file = data.endswith(ALL_SUFFIXES)
    overrides = ["data=auto", f"data.path={data}"] if is_file else [f"data={data}"]
    config = resolve(compose_config([*overrides, *settings])).data
    samples: list[Sample] = []
    for row in dataset.load_samples(config):
        if isinstance(row, Sample):
            samples.append(row)
        else:
            logger.warning("rejected: %s: %s", row.source, row.reason)
    if not samples:
        raise EmptyDatasetError(f"no row of {config.path or data} can be used")
    return samples


def load_model(model: str = "tiny", *settings: str) -> ModelSession:
    """A model by name under conf/model, by folder or by hub id; its weights load at first use."""
    # As for `difftrain evaluate`, a folder or hub id becomes the setting model.name.
    overrides, _ = expand_evaluate([f"model={model}", *settings])
    config = resolve(compose_config(overrides))
    return ModelSession(config.model, config.data)


def probe_samples(samples: Sequence[Sample], model: ModelSession, *settings: str) -> list[Rollout]:
    """Graded responses to each sample as more and more of its image is masked."""
    _, paths = _probe(samples, model, settings)
    ids = {sample.sample_id for sample in samples}
    rows = parquet.read_finished(paths.probe, Rollout, difficulty.PROBE_COMMAND)  # named in errors
    return [row for row in rows if row.sample_id in ids]


def score_samples(samples: Sequence[Sample], model: ModelSession, *settings: str) -> list[Score]:
    """One Score for each sample and measure; samples whose requests failed have none."""
    config, paths = _probe(samples, model, settings)
    sample_ids = [sample.sample_id for sample in without_failed(samples, paths.probe)]
    evidence = difficulty.read_evidence(config, paths)
    scores, _without_chance_correction = difficulty.score_samples(config, evidence, sample_ids)
    return scores


def select_samples(scores: Sequence[Score], *settings: str) -> list[Selection]:
    """The samples of select.strata, or of the paper RAP's method if select.rap names measures."""
    selected, _rap = difficulty.select_samples(resolve(compose_config([*settings])), list(scores))
    return selected


def read_report(run_folder: str | Path) -> dict[str, Any]:
    """The report.json of a finished run. Raises MissingArtifact if there is none."""
    folder = Path(run_folder).expanduser()
    manifest.refuse_old_layout(folder)
    try:
        return json.loads((folder / "report.json").read_text())
    except FileNotFoundError:
        raise parquet.MissingArtifact(f"no report.json at {folder}: run  difftrain train") from None


def _probe(
    samples: Sequence[Sample], model: ModelSession, settings: Sequence[str]
) -> tuple[RunConfig, RunPaths]:
    """Probe the samples as a run would; returns the resolved settings and the run's folders."""
    composed = to_config(compose_config([*settings]))  # the family's settings are still null
    config = with_family_settings(replace(composed, model=model.config, data=model.data))
    paths = RunPaths(config, samples=manifest.fingerprint([sample.sample_id for sample in samples]))
    difficulty.probe(config, paths, World(), model, list(samples))
    return config, paths
