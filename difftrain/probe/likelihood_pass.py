"""Measures how likely gold answers are, in two teacher-forced passes: with the image and without.

The answer is scored where a response has it, in the format that the prompt asks for. With
image_gain.target=answer the thought is empty, and the tokens of the answer and of the closing tag,
which ends it, are scored. With target=rationale the thought is the data's rationale, and its tokens
are scored too: given this thought, the answer alone would say nothing about the image.
Axes: B batch, S sequence.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from difftrain import images
from difftrain.config.difficulty import BoxCoordinates
from difftrain.config.run_config import RunConfig
from difftrain.difficulty.evidence import AnswerLikelihood
from difftrain.difficulty.image_gain import ImageGainConfig, LikelihoodTarget, WithoutImage
from difftrain.grade import extract
from difftrain.grade.boxes import boxes_in_model_coordinates
from difftrain.model import attention, chat_format
from difftrain.model.engines import kv_cache
from difftrain.model.engines.types import Request
from difftrain.model.loading import LoadedModel
from difftrain.pipeline import parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.stage import Heartbeat, run_shared_stage
from difftrain.probe.attention_pass import append_responses, measure_halving
from difftrain.probe.run import engine_request
from difftrain.probe.schedule import ProbeRequest
from difftrain.records import AnswerKind, Measure, Sample

ALL_HIDDEN = 100  # percent: every kind of mask makes the whole image black


def target_text(
    sample: Sample, target: LikelihoodTarget, boxes: BoxCoordinates | None = None
) -> tuple[str, int] | None:
    """The response to score, with boxes as the model counts them, and the position of its first
    scored character.

    None if the target is the rationale and the sample has none.
    """
    answer = sample.answer
    is_boxes = sample.answer_kind is AnswerKind.boxes
    if boxes is BoxCoordinates.relative and is_boxes and sample.images:
        answer = boxes_in_model_coordinates(answer, images.png_size(sample.images[0]))
    if target is LikelihoodTarget.answer:
        text = extract.in_tags("", answer)
        return text, text.index(extract.OPEN_TAG) + len(extract.OPEN_TAG)
    if not (rationale := (sample.rationale or "").strip()):
        return None
    return extract.in_tags(rationale, answer), len(extract.TAGS[0])


def without_prefix(text: str, start: int, prefix: str) -> tuple[str, int]:
    """The response without the tag that the prompt already has, and its first scored character."""
    rest = text.removeprefix(prefix)
    return rest, max(0, start - (len(text) - len(rest)))


def target_tokens(loaded: LoadedModel, text: str, start: int) -> tuple[tuple[int, ...], int]:
    """The tokens of a response, and how many of them, the last ones, are scored.

    These are the tokens that have a character at `start` or after it.
    """
    encoded = loaded.processor.tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
    )
    ends = [end for _, end in encoded["offset_mapping"]]
    return tuple(encoded["input_ids"]), sum(end > start for end in ends)


@torch.inference_mode()
def log_probabilities(
    loaded: LoadedModel,
    requests: Sequence[Request],
    responses: Sequence[tuple[int, ...]],
    num_scored: Sequence[int],
) -> list[float]:
    """For each prompt, the log-probability of its response's last `num_scored` tokens, in nats."""
    pad_id = loaded.processor.tokenizer.pad_token_id
    inputs = append_responses(kv_cache.encode(loaded, requests), responses, pad_id)
    ids_BS = inputs["input_ids"]
    from_end_S = torch.arange(ids_BS.shape[1], 0, -1, device=ids_BS.device)
    scored_BS = from_end_S[None] <= torch.tensor(list(num_scored), device=ids_BS.device)[:, None]
    padded, (scored_BS,) = attention.pad_right(loaded.model, inputs, (scored_BS,))
    hidden_BSD = loaded.model.base_model(**padded, use_cache=False).last_hidden_state
    totals = []
    for row, scored_S in enumerate(scored_BS):
        position = scored_S.nonzero()[:, 0]
        # The logits of a position predict the next token.
        logits = loaded.model.get_output_embeddings()(hidden_BSD[row, position - 1]).float()
        targets = padded["input_ids"][row, position, None]
        totals.append(float(logits.log_softmax(dim=-1).gather(1, targets).sum()))
    return totals


def measure_batch(
    loaded: LoadedModel, samples: Sequence[Sample], config: RunConfig
) -> list[AnswerLikelihood]:
    """The likelihoods of one batch of samples; None for samples without an image or a target."""
    settings: ImageGainConfig = config.difficulty.section(Measure.image_gain)
    boxes, prefix = config.grade.box_coordinates, chat_format.thought_prefix(loaded.processor)
    targets = {sample.sample_id: target_text(sample, settings.target, boxes) for sample in samples}
    tokens = {
        id_: target_tokens(loaded, *without_prefix(*pair, prefix))
        for id_, pair in targets.items()
        if pair
    }
    usable = [sample for sample in samples if sample.images and sample.sample_id in tokens]
    rows = [tokens[sample.sample_id] for sample in usable]

    def measured(percent: int = 0, text_only: bool = False) -> dict[str, float]:
        views = [ProbeRequest(sample, percent, 0, text_only) for sample in usable]
        requests = [engine_request(view, config.probe, run_seed=0) for view in views]
        responses, num_scored = [ids for ids, _ in rows], [count for _, count in rows]
        values = log_probabilities(loaded, requests, responses, num_scored) if usable else []
        return dict(zip((sample.sample_id for sample in usable), values, strict=True))

    with_image = measured()
    is_blank = settings.without_image is WithoutImage.blank
    without_image = measured(percent=ALL_HIDDEN) if is_blank else measured(text_only=True)
    return [
        AnswerLikelihood(
            sample_id=sample.sample_id,
            num_tokens=tokens.get(sample.sample_id, ((), 0))[1],
            with_image=with_image.get(sample.sample_id),
            without_image=without_image.get(sample.sample_id),
        )
        for sample in samples
    ]


def run_likelihood_pass(
    load: Callable[[], LoadedModel],
    samples: Sequence[Sample],
    folder: Path,
    world: World,
    config: RunConfig,
    inputs: dict[str, str],
) -> None:
    """Write a row for every sample into `folder`; resumable, shared by all ranks."""
    batch_size = config.model.attention_batch_size
    sample_ids = {sample.sample_id for sample in samples}
    measured: set[str] = set()
    parts_read: set[Path] = set()

    def all_measured() -> bool:
        for part in {*parquet.parts(folder)} - parts_read:
            measured.update(*parquet.read_columns(part, ["sample_id"]))
            parts_read.add(part)
        return measured >= sample_ids

    def work(heart: Heartbeat) -> None:
        all_measured()  # reads what has been measured already
        share = [sample for sample in world.share(samples) if sample.sample_id not in measured]
        if not share:
            return
        with heart.in_background():
            loaded = load()
        measure = partial(measure_batch, loaded, config=config)
        share.sort(key=lambda sample: len(sample.question))  # to pad less
        starts = range(0, len(share), batch_size)
        for start in tqdm(starts, desc="likelihood", unit="batch", disable=not world.is_first):
            rows = measure_halving(measure, share[start : start + batch_size])
            parquet.write_part(folder, parquet.next_part_name(folder, world.rank), rows)
            heart.beat()

    settings: ImageGainConfig = config.difficulty.section(Measure.image_gain)
    run_shared_stage(
        folder,
        world,
        work,
        is_complete=all_measured,
        close=lambda: {"samples": len(samples)},  # the counts for the manifest
        settings=asdict(settings),
        inputs=inputs,
        is_finished=lambda _: all_measured(),
    )
