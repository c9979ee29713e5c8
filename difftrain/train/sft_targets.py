"""SFT targets: a thought and an answer in the format that the reward expects.

Which samples are asked for is the recipe's choice (recipes/sft_then_grpo.py).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from PIL import Image
from trl.data_utils import apply_chat_template, prepare_multimodal_messages

from difftrain import images, seeds
from difftrain.config.train import DROP_REASONS, Dropped
from difftrain.grade import extract
from difftrain.records import Rollout, Sample, Verdict, View
from difftrain.train.dataset import chat_prompt


def in_tags(thought: str, answer: str) -> str:
    """Thought and answer in their tags; tags inside either are removed."""
    for tag in extract.TAGS:
        thought, answer = thought.replace(tag, ""), answer.replace(tag, "")
    return f"<think>{thought.strip()}</think><answer>{answer.strip()}</answer>"


def is_formatted(text: str) -> bool:
    """Whether the format reward would be paid and the grader would find an answer."""
    return extract.has_expected_format(text) and extract.answer(text) is not None


def from_rationale(sample: Sample) -> str | Dropped:
    """The data's own rationale and answer."""
    if not (sample.rationale or "").strip():
        return Dropped.no_rationale
    text = in_tags(sample.rationale or "", sample.answer)
    return text if is_formatted(text) else Dropped.no_format


def from_response(response: str) -> str | Dropped:
    """A correct response of the model: as it is if it has the format, else put into tags."""
    if is_formatted(response):
        return response.strip()
    answer = extract.tag_content(response)
    if answer is None:
        return Dropped.no_format
    thought = response[: response.rfind(extract.OPEN_TAG, 0, response.rfind(extract.CLOSE_TAG))]
    text = in_tags(thought, answer)
    return text if is_formatted(text) else Dropped.no_format


def correct_rollouts(rollouts: Iterable[Rollout], draws: int) -> dict[str, list[Rollout]]:
    """By sample: correct responses to the full image, in the order of their draws.

    Only draws that these settings request count: those up to the first correct one, and the first
    `draws` in any case. A probe that has grown since for another run changes nothing.
    """
    by_sample: dict[str, list[Rollout]] = {}
    for rollout in rollouts:
        if rollout.view is View.full_image and rollout.verdict is Verdict.correct:
            by_sample.setdefault(rollout.sample_id, []).append(rollout)
    for rows in by_sample.values():
        rows.sort(key=lambda row: row.draw)
        first = rows[0].draw
        rows[:] = [row for row in rows if row.draw == first or row.draw < draws]
    return by_sample


def from_rollouts(rollouts: Sequence[Rollout], seed: int) -> str | Dropped:
    """One of a sample's correct responses, drawn by seed among those that can be formatted."""
    if not rollouts:
        return Dropped.no_correct_rollout
    targets = [from_response(rollout.response) for rollout in rollouts]
    texts = [target for target in targets if not isinstance(target, Dropped)]
    if not texts:
        return Dropped.no_format
    return min(texts, key=lambda text: seeds.derive(seed, "target", rollouts[0].sample_id, text))


def count_dropped(targets: Mapping[str, str | Dropped]) -> dict[str, int]:
    """How many samples each reason dropped; reasons that dropped none are left out."""
    reasons = [target for target in targets.values() if isinstance(target, Dropped)]
    return {reason.value: reasons.count(reason) for reason in Dropped if reason in reasons}


def dropped_text(dropped: Mapping[str, int]) -> str:
    """The counts as text behind a number of samples; empty if none was dropped."""
    parts = [f"{n} more were dropped: {DROP_REASONS[Dropped(name)]}" for name, n in dropped.items()]
    return f" ({'; '.join(parts)})" if parts else ""


def trl_row(sample: Sample, target: str) -> dict[str, Any]:
    """A conversational prompt-completion row for TRL, without images."""
    return {
        "prompt": chat_prompt(sample),
        "completion": [{"role": "assistant", "content": target}],
        "sample_id": sample.sample_id,
    }


def token_count(processor: Any, sample: Sample, target: str) -> int:
    """Tokens of the whole example as training sees it, image tokens included.

    The text is tokenized; the number of an image's tokens follows from its size.
    """
    row = trl_row(sample, target)
    sizes = [images.png_size(png) for png in sample.images]
    blanks = [Image.new("1", (1, 1)) for _ in sizes]
    texts = apply_chat_template(
        {
            "prompt": prepare_multimodal_messages(row["prompt"], images=blanks),
            "completion": prepare_multimodal_messages(row["completion"]),
        },
        processor,
    )
    text_tokens = sum(
        len(processor.tokenizer(texts[part], add_special_tokens=False)["input_ids"])
        for part in ("prompt", "completion")
    )
    merged = processor.image_processor.merge_size**2
    patches = [
        processor.image_processor.get_number_of_image_patches(height, width, {})
        for width, height in sizes
    ]
    # The template holds one placeholder an image, which the processor repeats.
    return text_tokens + sum(n // merged - 1 for n in patches)
