"""SFT on some samples, then GRPO on others (P, section 4, "SFT(a)+GRPO(b)")."""

from collections.abc import Iterable
from pathlib import Path

from difftrain.config.run_config import RunConfig
from difftrain.config.train import Dropped, SftTargets
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World, stage_lock
from difftrain.pipeline.paths import Places
from difftrain.probe.state import requirements
from difftrain.recipes import grpo
from difftrain.records import Rollout, Sample, Selection, TrainStage
from difftrain.select import strata
from difftrain.train import checkpointing, dataset, sft, sft_targets
from difftrain.train.trl_args import TrainJob

PROBE = "python launch/probe.py"


def targets(
    config: RunConfig, places: Places, samples: Iterable[Sample]
) -> dict[str, str | Dropped]:
    """What each sample would be taught, or why it cannot be made."""
    if config.sft.targets is SftTargets.rationale:
        return {each.sample_id: sft_targets.from_rationale(each) for each in samples}
    wanted = requirements(config)
    asked = config.probe.draws if wanted.full else wanted.whole
    rollouts = parquet.read_finished(places.probe, Rollout, PROBE)
    right = sft_targets.correct_rollouts(rollouts, asked)
    return {
        each.sample_id: sft_targets.from_rollouts(right.get(each.sample_id, []), config.seed)
        for each in samples
    }


def warm_up(config: RunConfig, places: Places, world: World, arm: str) -> Path:
    """SFT of one arm; returns its checkpoint. Raises NothingChosen if too little can be taught."""
    folder = places.sft(arm)
    if (checkpoint := checkpointing.finished_checkpoint(folder)) is not None:
        return checkpoint
    folder.mkdir(parents=True, exist_ok=True)
    # 4.1  The samples of the SFT stage: some strata, or a random set of the same size.
    picks = parquet.read(places.select(arm, TrainStage.sft), Selection)
    samples = dataset.selected(parquet.read(places.data, Sample), picks)

    # 4.2  What they teach: thought and answer in the very layout that GRPO's reward expects.
    made = targets(config, places, samples)
    told = {key: text for key, text in made.items() if not isinstance(text, Dropped)}
    able = [each for each in samples if each.sample_id in told]
    job = TrainJob(
        folder=folder,
        world=world,
        title=f"sft {arm}",
        model=config.model,
        data=config.data,
        seed=config.seed,
        inputs={"select": places.select(arm, TrainStage.sft).name, "model": places.model},
    )
    learned = sft.prepare(job, config.sft, config.grade, config.grpo, able, told)
    counts = (manifest.read_manifest(places.score) or {})["counts"]
    least, lost = config.sft.samples_per_step, sft_targets.dropped_text(learned.dropped)
    strata.require_min(picks[: len(learned.samples)], least, counts, TrainStage.sft, lost)

    # 4.3  Supervised fine-tuning, loss on the answer alone. Below this line it is TRL's loop.
    return sft.fit(job, config.sft, learned)


def run(config: RunConfig, places: Places, world: World, arm: str) -> Path:
    """Train one arm, both stages; returns its checkpoint."""
    with stage_lock(places.sft(arm), world):
        start = warm_up(config, places, world, arm)
    # 4.4  GRPO as in the other rows, from that checkpoint.
    return grpo.run(config, places, world, arm, start)
