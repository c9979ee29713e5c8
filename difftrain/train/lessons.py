"""What SFT learns to say: a thought and an answer in the very layout that the reward expects.

Pure but for `lengths`. Not here: which samples are asked for (recipes/sft_then_grpo.py).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from PIL import Image
from trl.data_utils import apply_chat_template, prepare_multimodal_messages

from difftrain import images, seeds
from difftrain.config.train import MEANINGS, Dropped
from difftrain.grade import extract
from difftrain.records import Rollout, Sample, Verdict, View
from difftrain.train.dataset import prompt


def written(thought: str, answer: str) -> str:
    """Thought and answer in their tags; tags within either are taken out."""
    for tag in extract.TAGS:
        thought, answer = thought.replace(tag, ""), answer.replace(tag, "")
    return f"<think>{thought.strip()}</think><answer>{answer.strip()}</answer>"


def laid_out(text: str) -> bool:
    """Whether the reward would pay for the layout and the grader find an answer."""
    return extract.has_expected_format(text) and extract.answer(text) is not None


def from_solution(sample: Sample) -> str | Dropped:
    """The data's own rationale and answer."""
    if not (sample.rationale or "").strip():
        return Dropped.no_solution
    text = written(sample.rationale or "", sample.answer)
    return text if laid_out(text) else Dropped.no_layout


def from_response(response: str) -> str | Dropped:
    """A right answer of the model: as it stands if it is laid out, else put into its tags."""
    if laid_out(response):
        return response.strip()
    said = extract.tag_content(response)
    if said is None:
        return Dropped.no_layout
    before = response[: response.rfind(extract.OPEN_TAG, 0, response.rfind(extract.CLOSE_TAG))]
    text = written(before, said)
    return text if laid_out(text) else Dropped.no_layout


def right_rollouts(rollouts: Iterable[Rollout], asked: int) -> dict[str, list[Rollout]]:
    """By sample: right answers to the whole picture, in the order of their draws.

    Those are counted that these settings ask for: draws up to the first right one, and the first
    `asked` in any case. A probe that has grown since then, for another run, changes nothing.
    """
    found: dict[str, list[Rollout]] = {}
    for each in rollouts:
        if each.view is View.full_image and each.verdict is Verdict.correct:
            found.setdefault(each.sample_id, []).append(each)
    for own in found.values():
        own.sort(key=lambda each: each.draw)
        first = own[0].draw
        own[:] = [each for each in own if each.draw == first or each.draw < asked]
    return found


def from_rollouts(own: Sequence[Rollout], seed: int) -> str | Dropped:
    """One of a sample's right answers, by seed, among those that can be laid out."""
    if not own:
        return Dropped.no_right_rollout
    told = [text for each in own if not isinstance(text := from_response(each.response), Dropped)]
    if not told:
        return Dropped.no_layout
    return min(told, key=lambda text: seeds.derive(seed, "target", own[0].sample_id, text))


def counted(found: Mapping[str, str | Dropped]) -> dict[str, int]:
    """How many samples each reason leaves out; reasons that left out none are not named."""
    reasons = [each for each in found.values() if isinstance(each, Dropped)]
    return {reason.value: reasons.count(reason) for reason in Dropped if reason in reasons}


def told(dropped: Mapping[str, int]) -> str:
    """The counts in words, behind a number of samples; empty if none was dropped."""
    parts = [f"{n} more were dropped: {MEANINGS[Dropped(name)]}" for name, n in dropped.items()]
    return f" ({'; '.join(parts)})" if parts else ""


def conversation(sample: Sample, target: str) -> dict[str, Any]:
    """A row for TRL: prompt and completion, conversational, without pictures."""
    return {
        "prompt": prompt(sample),
        "completion": [{"role": "assistant", "content": target}],
        "sample_id": sample.sample_id,
    }


def length(processor: Any, sample: Sample, target: str) -> int:
    """Tokens of the whole example as training will see it, picture tokens included.

    The words are tokenized; a picture's tokens follow from its size, and are not made.
    """
    row = conversation(sample, target)
    sizes = [images.png_size(png) for png in sample.images]
    shown = [Image.new("1", (1, 1)) for _ in sizes]
    texts = apply_chat_template(
        {
            "prompt": prepare_multimodal_messages(row["prompt"], images=shown),
            "completion": prepare_multimodal_messages(row["completion"]),
        },
        processor,
    )
    words = sum(
        len(processor.tokenizer(texts[part], add_special_tokens=False)["input_ids"])
        for part in ("prompt", "completion")
    )
    merged = processor.image_processor.merge_size**2
    patches = [
        processor.image_processor.get_number_of_image_patches(height, width, {})
        for width, height in sizes
    ]
    # The template holds one placeholder a picture, which the processor repeats.
    return words + sum(each // merged - 1 for each in patches)
