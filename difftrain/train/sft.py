"""SFT with TRL's SFTTrainer, and its targets: the response to learn for each sample."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from trl.data_utils import apply_chat_template, prepare_multimodal_messages
from trl.trainer.sft_trainer import SFTTrainer

from difftrain import images, seeds
from difftrain.config.difficulty import BoxCoordinates
from difftrain.config.train import DROP_REASONS, Dropped
from difftrain.grade import extract, grade_batch
from difftrain.grade.boxes import boxes_in_model_coordinates
from difftrain.grade.pool import GradeFailure, GraderPool
from difftrain.model import chat_format, family, resolve
from difftrain.pipeline import coordination, manifest
from difftrain.records import AnswerKind, Rollout, Sample, Verdict, View
from difftrain.train import callbacks, checkpointing, image_cache, param_groups, trl_args
from difftrain.train.dataset import chat_prompt, with_images
from difftrain.train.trl_args import TrainJob

logger = logging.getLogger(__name__)

TARGETS = "sft_targets.json"  # each sample's target, and how many samples were dropped and why


@dataclass(frozen=True, slots=True)
class SftData:
    """Samples in the order of their selection, the target of each, counts of dropped samples."""

    samples: Sequence[Sample]
    targets: Mapping[str, str]
    dropped: Mapping[str, int]


def prepare(job: TrainJob, samples: Sequence[Sample], targets: Mapping[str, str]) -> SftData:
    """The data of SFT: the first process checks and writes the targets, all processes read them.

    Samples whose target is too long, or is not correct for the reward's graders, are dropped and
    counted. On the other processes, raises FirstRankFailed if the first process fails.
    """
    path, config = job.folder / TARGETS, job.config
    if job.world.is_first and not path.is_file():
        with coordination.report_failure(job.folder, job.world):
            texts = [targets[sample.sample_id] for sample in samples]
            with GraderPool(config.grpo.reward_workers, config.grpo.grading_timeout_s) as graders:
                results = grade_batch(graders, texts, samples, config.grade)
            processor = job.load_processor()
            checked: dict[str, str | Dropped] = {**targets}
            for sample, target, result in zip(samples, texts, results, strict=True):
                if isinstance(result, GradeFailure) or result.credit < 1:
                    checked[sample.sample_id] = Dropped.not_correct
                elif token_count(processor, sample, target) > config.sft.cutoff_tokens:
                    checked[sample.sample_id] = Dropped.too_long
        usable = {key: text for key, text in checked.items() if not isinstance(text, Dropped)}
        dropped = count_dropped(checked)
        manifest.write_json(path, {"targets": usable, "dropped": dropped})
        if dropped:
            logger.info("SFT trains on %d samples%s", len(usable), dropped_text(dropped))
    coordination.wait_for_first_rank(job.folder, job.world, path.is_file)
    written = manifest.read_json(path)
    with_target = [sample for sample in samples if sample.sample_id in written["targets"]]
    return SftData(with_target, written["targets"], written["dropped"])


def build_trainer(job: TrainJob, data: SftData) -> Any:
    """TRL's SFTTrainer for these targets."""
    sft, model = job.config.sft, job.start_model
    # peft_config builds a model. With ZeRO-3 it would be sharded once TRL's arguments exist.
    adapter = param_groups.peft_config("sft", sft.lora, model)
    processor = job.load_processor()
    rows = [trl_row(sample, data.targets[sample.sample_id], processor) for sample in data.samples]
    trainer: Any = SFTTrainer(
        model=resolve.source(model.name),
        args=trl_args.sft_arguments(job),
        train_dataset=with_images(rows, data.samples),
        processing_class=processor,
        peft_config=adapter,
    )
    if sft.freeze_vision:
        param_groups.freeze_vision(trainer.model)
    if cache := image_cache.attach(trainer, job.folder / image_cache.FOLDER):
        trainer.add_callback(image_cache.StartBatch(cache))
    return trainer


def fit(job: TrainJob, load_data: Callable[[], SftData]) -> Path:
    """Train on the targets; returns the checkpoint's folder (see `checkpointing.run_training`)."""

    def train() -> tuple[Any, float, dict[str, Any]]:
        data = load_data()
        trainer = build_trainer(job, data)
        seconds = checkpointing.train(trainer, job, data.samples)
        log = callbacks.read_log(job.folder)
        counts = {
            "steps": len(log),
            "samples": len(data.samples),
            "dropped": dict(data.dropped),
            "first_loss": log[0]["loss"],
            "last_loss": log[-1]["loss"],
        }
        return trainer, seconds, counts

    return checkpointing.run_training(job, train)


def _is_formatted(text: str) -> bool:  # would get the format reward, and has an answer to grade
    return extract.has_expected_format(text) and extract.answer(text) is not None


def _in_tags(thought: str, answer: str) -> str | Dropped:
    """Thought and answer in their tags; tags inside either of them are removed."""
    text = extract.in_tags(thought, answer)
    return text if _is_formatted(text) else Dropped.no_format


def from_rationale(sample: Sample, boxes: BoxCoordinates | None = None) -> str | Dropped:
    """A target from the data's own rationale and answer; boxes as the model counts them."""
    rationale, answer = (sample.rationale or "").strip(), sample.answer
    if boxes is BoxCoordinates.relative and sample.answer_kind is AnswerKind.boxes:
        answer = boxes_in_model_coordinates(answer, images.png_size(sample.images[0]))
    return _in_tags(rationale, answer) if rationale else Dropped.no_rationale


def from_response(response: str, prefix: str = "") -> str | Dropped:
    """A target made of a correct response: unchanged if it has the format, else put into tags.

    `prefix` is the tag that the prompt had already; the target has it.
    """
    response = prefix + response
    if _is_formatted(response):
        return response.strip()
    answer = extract.tag_content(response)
    if answer is None:
        return Dropped.no_format
    thought = response[: response.rfind(extract.OPEN_TAG, 0, response.rfind(extract.CLOSE_TAG))]
    return _in_tags(thought, answer)


def correct_rollouts(rollouts: Iterable[Rollout], num_draws: int) -> dict[str, list[Rollout]]:
    """Each sample's correct responses to the full image, in the order of their draws.

    A draw is the number of a response to one prompt. Correct responses count if their draw is below
    `num_draws`; so does the first one. Draws that other runs add to the probe change no target.
    """
    by_sample: dict[str, list[Rollout]] = defaultdict(list)
    for rollout in sorted(rollouts, key=lambda rollout: rollout.draw):
        if rollout.view is View.full_image and rollout.verdict is Verdict.correct:
            rows = by_sample[rollout.sample_id]
            if not rows or rollout.draw < num_draws:
                rows.append(rollout)
    return by_sample


def from_rollouts(rollouts: Sequence[Rollout], seed: int, prefix: str = "") -> str | Dropped:
    """A target made of one correct response, chosen by seed among those that fit the format."""
    if not rollouts:
        return Dropped.no_correct_rollout
    targets = [from_response(rollout.response, prefix) for rollout in rollouts]
    texts = [target for target in targets if not isinstance(target, Dropped)]
    if not texts:
        return Dropped.no_format
    return min(texts, key=lambda text: seeds.derive(seed, "target", rollouts[0].sample_id, text))


def count_dropped(targets: Mapping[str, str | Dropped]) -> dict[str, int]:
    """How many samples each reason dropped; reasons that dropped none are left out."""
    dropped = [target for target in targets.values() if isinstance(target, Dropped)]
    return {str(reason): dropped.count(reason) for reason in Dropped if reason in dropped}


def dropped_text(dropped: Mapping[str, int]) -> str:
    """The counts as text to append to a number of samples; empty if none was dropped."""
    parts = [f"{n} more were dropped: {DROP_REASONS[Dropped(name)]}" for name, n in dropped.items()]
    return f" ({'; '.join(parts)})" if parts else ""


def trl_row(sample: Sample, target: str, processor: Any) -> dict[str, Any]:
    """A prompt-completion row for TRL, without images: prompt as generated from, then the target.

    It is conversational if the template writes just that. Other templates change the response (they
    drop the thought, or write another), so for these the row has rendered text.
    """
    row = {"prompt": chat_prompt(sample), "sample_id": sample.sample_id}
    conversation = row | {"completion": [{"role": "assistant", "content": target}]}
    blanks = [Image.new("1", (1, 1)) for _ in sample.images]  # the template only counts images
    prompt_turns = prepare_multimodal_messages(row["prompt"], images=blanks)
    prompt = processor.apply_chat_template(prompt_turns, add_generation_prompt=True, tokenize=False)
    expected = {"prompt": prompt, "completion": chat_format.completion_text(processor, target)}
    turns = {
        "prompt": prompt_turns,
        "completion": prepare_multimodal_messages(conversation["completion"]),
    }
    return conversation if apply_chat_template(turns, processor) == expected else row | expected


def token_count(processor: Any, sample: Sample, target: str) -> int:
    """Tokens of a whole training example; image tokens are computed from the images' sizes."""
    row = trl_row(sample, target, processor)
    sizes = [images.png_size(png) for png in sample.images]
    if isinstance(row["prompt"], str):
        texts = row
    else:
        blanks = [Image.new("1", (1, 1)) for _ in sizes]
        messages = {
            "prompt": prepare_multimodal_messages(row["prompt"], images=blanks),
            "completion": prepare_multimodal_messages(row["completion"]),
        }
        texts = apply_chat_template(messages, processor)
    both = [texts["prompt"], texts["completion"]]
    token_ids = processor.tokenizer(both, add_special_tokens=False)["input_ids"]
    count = family.image_token_counter(processor)
    # The template holds one placeholder per image, which the processor repeats.
    return sum(map(len, token_ids)) + sum(count(size) - 1 for size in sizes)
