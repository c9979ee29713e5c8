"""GRPO's log-probability passes with every prompt computed once for its whole group.

TRL scores G rows `prompt + completion`, so a prompt with its images is computed G times. Here the
rows of one prompt become one packed row,

    prompt without its last token | last token, completion 1 | last token, completion 2 | ...

in which a token sees the prompt and its own branch (a tree mask), at the positions that it has in
a row of its own. Several short groups share a packed row, where none sees another. The results are
the same; only the order of floating-point sums differs.

Letters: B rows of a pass, G groups, U packed rows, P prompt tokens, C completion tokens, S packed
tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from trl.trainer.utils import (
    split_pixel_values_by_grid,
    split_tensor_dict,
    unsplit_pixel_values_by_grid,
)

IMAGE_INPUTS = ("pixel_values", "image_grid_thw", "mm_token_type_ids")
"""Inputs besides the tokens that a packed row can have: those of Qwen-VL models."""
TRL_ARGUMENTS = ("num_images", "batch_size", "compute_entropy", "compute_aux_loss")
MASKABLE = ("sdpa", "eager")
"""Attention implementations that take a tree mask."""


@dataclass(frozen=True, slots=True)
class PackedRows:
    """U packed rows, and where each completion token of the B rows went."""

    input_ids: Tensor  # U S
    groups: Tensor  # U S: the token's group; -1 padding
    branches: Tensor  # U S: 0 prompt, 1 and up the completions, -1 padding
    shift_labels: Tensor  # U S: the token that follows; -100 where none is scored
    prompt_index: Tensor  # U S: the token's index in all (padded) prompts, G x P
    offsets: Tensor  # U S: tokens behind the prompt's last one; 0 in the prompt
    first_rows: list[int]  # G: the row that a group's prompt was taken from, as the groups stand
    packed_row: Tensor  # B C
    packed_column: Tensor  # B C
    is_scored: Tensor  # B C

    def tree_mask(self) -> Tensor:
        """Which tokens (last axis) each token sees, as bool U S S."""
        columns = torch.arange(self.branches.size(1), device=self.branches.device)
        keys, queries = self.branches[:, None, :], self.branches[:, :, None]
        same_group = self.groups[:, None, :] == self.groups[:, :, None]
        is_before = columns[None, :] <= columns[:, None]
        return is_before & same_group & ((keys == 0) | (keys == queries))

    def unpack(self, values_US: Tensor) -> Tensor:
        """Values of packed tokens as B C, with 0 where nothing is scored."""
        values_BC = values_US[self.packed_row, self.packed_column]
        return values_BC.masked_fill(~self.is_scored, 0)


def pack_rows(
    input_ids: Tensor, attention_mask: Tensor, completion_length: int, groups: Sequence[list[int]]
) -> PackedRows:
    """Pack rows of one prompt (`groups` of row numbers) together, each once.

    `input_ids` and `attention_mask` are B x (P + completion_length): prompts padded on the left,
    completions on the right, as TRL pads them. A packed row has the length of the largest group.
    """
    device = input_ids.device
    prompt_length = input_ids.size(1) - completion_length
    lengths = torch.stack(
        [attention_mask[:, :prompt_length].sum(1), attention_mask[:, prompt_length:].sum(1)]
    ).tolist()
    sizes = [lengths[0][rows[0]] - 1 + sum(lengths[1][row] for row in rows) for rows in groups]
    packed = first_fit(sizes)
    shape = (len(packed), max(1, *sizes))
    ids = torch.zeros(shape, dtype=torch.long, device=device)
    group_ids = torch.full(shape, -1, device=device)
    branches = torch.full(shape, -1, device=device)
    labels = torch.full(shape, -100, device=device)
    prompt_index = torch.zeros(shape, dtype=torch.long, device=device)
    offsets = torch.zeros(shape, dtype=torch.long, device=device)
    packed_row = torch.zeros((len(input_ids), completion_length), dtype=torch.long, device=device)
    packed_column = torch.zeros_like(packed_row)
    is_scored = attention_mask[:, prompt_length:].bool()
    placed = [(u, number) for u, numbers in enumerate(packed) for number in numbers]
    ends = [0] * len(packed)  # of the tokens that each packed row has so far
    for group, (u, number) in enumerate(placed):
        rows, begin = groups[number], ends[u]
        start = prompt_length - lengths[0][rows[0]]
        end = begin + lengths[0][rows[0]] - 1
        first_index = group * prompt_length
        ids[u, begin:end] = input_ids[rows[0], start : prompt_length - 1]
        branches[u, begin:end] = 0
        last_index = first_index + prompt_length - 1
        prompt_index[u, begin:end] = torch.arange(first_index + start, last_index, device=device)
        for branch, row in enumerate(rows, start=1):
            count = lengths[1][row]
            packed_row[row] = u
            if not count:
                continue
            columns = slice(end, end + count)
            ids[u, columns] = input_ids[row, prompt_length - 1 : prompt_length - 1 + count]
            labels[u, columns] = input_ids[row, prompt_length : prompt_length + count]
            branches[u, columns] = branch
            prompt_index[u, columns] = last_index
            offsets[u, columns] = torch.arange(count, device=device)
            packed_column[row, :count] = torch.arange(end, end + count, device=device)
            end += count
        group_ids[u, begin:end] = group
        ends[u] = end
    return PackedRows(
        input_ids=ids,
        groups=group_ids,
        branches=branches,
        shift_labels=labels,
        prompt_index=prompt_index,
        offsets=offsets,
        first_rows=[groups[number][0] for _, number in placed],
        packed_row=packed_row,
        packed_column=packed_column,
        is_scored=is_scored,
    )


def first_fit(sizes: Sequence[int]) -> list[list[int]]:
    """Numbers of the groups that share a packed row; none is longer than the largest group.

    Each group, the largest first, goes into the first row that has room (first-fit decreasing).
    """
    capacity = max(sizes)
    packed: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        row = next((u for u, free in enumerate(room) if free >= sizes[number]), len(packed))
        if row == len(packed):
            packed.append([])
            room.append(capacity)
        packed[row].append(number)
        room[row] -= sizes[number]
    return packed


def group_rows(
    input_ids: Tensor, prompt_length: int, images: Sequence[tuple[Tensor, ...]] | None
) -> list[list[int]]:
    """Numbers of the rows that have one prompt and the same images.

    `input_ids` is B x (prompt_length + C); `images` holds each row's image tensors. Groups and rows
    are sorted by their tokens, so that the passes of one step add in the same order, however TRL
    has shuffled the rows in between.
    """
    groups: list[list[int]] = []
    tokens = input_ids.tolist()
    for row in sorted(range(len(tokens)), key=tokens.__getitem__):
        for rows in reversed(groups):  # those with the same prompt are the last ones
            first = rows[0]
            if tokens[first][:prompt_length] != tokens[row][:prompt_length]:
                groups.append([row])
                break
            if images is None or same_images(images[first], images[row]):
                rows.append(row)
                break
        else:
            groups.append([row])
    return groups


def same_images(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    """Whether two rows' images are equal."""
    return len(a) == len(b) and all(map(torch.equal, a, b))


class SharedPromptModel:
    """Stands in for the model in TRL's log-probability pass: packs its rows, unpacks the results.

    TRL calls it for one chunk of rows after the other; each call is one forward pass of the model
    whatever the groups are, so that all ranks of ZeRO-3 do the same number.
    """

    def __init__(self, model: Any, completion_length: int, num_images: list[int] | None) -> None:
        self.model = model
        self.completion_length = completion_length
        self.num_images = iter(num_images or ())
        self.rope: Any = next((m for m in model.modules() if hasattr(m, "get_rope_index")), None)
        self.pretrained = pretrained_model(model)
        self.model_config = text_config(model)
        self.computed_tokens = 0
        self.fallback: str | None = None
        """Why a pass computed the plain rows, if one did."""

    def __call__(self, **inputs: Any) -> Any:
        """TRL's `log_probs` and `entropy` of the completions, from one forward pass.

        If the packed rows would cost more than TRL's own, TRL's are computed.
        """
        input_ids, attention_mask = inputs["input_ids"], inputs["attention_mask"]
        prompt_length = input_ids.size(1) - self.completion_length
        pixels, grids = self.images_of_rows(inputs)
        groups = group_rows(input_ids, prompt_length, pixels)
        packed = pack_rows(input_ids, attention_mask, self.completion_length, groups)
        if self.cost(packed.input_ids) >= self.cost(input_ids):
            self.computed_tokens += input_ids.numel()
            self.fallback = "in some passes packed rows cost more, because few share a prompt"
            if grids is not None and not any(map(len, grids)):  # TRL leaves tensors of no rows
                inputs = {key: x for key, x in inputs.items() if key not in IMAGE_INPUTS}
            return self.model(**inputs)
        self.computed_tokens += packed.input_ids.numel()
        first = packed.first_rows
        images: dict[str, Any] = {}
        if pixels is not None and grids is not None and any(pixels[row] for row in first):
            images["pixel_values"] = torch.cat([image for row in first for image in pixels[row]])
            images["image_grid_thw"] = torch.cat([grids[row] for row in first])
        types = inputs.get("mm_token_type_ids")
        outputs = self.model(
            input_ids=packed.input_ids,
            attention_mask=self.mask(packed.tree_mask()),
            position_ids=self.positions(
                packed,
                input_ids[first, :prompt_length],
                attention_mask[first, :prompt_length],
                None if types is None else types[first, :prompt_length],
                images.get("image_grid_thw"),
            ),
            shift_labels=packed.shift_labels,
            fused_lm_head=inputs["fused_lm_head"],
            **images,
        )
        entropy = outputs.entropy
        return SimpleNamespace(
            log_probs=packed.unpack(outputs.log_probs),
            entropy=None if entropy is None else packed.unpack(entropy),
        )

    def images_of_rows(
        self, inputs: Mapping[str, Any]
    ) -> tuple[list[tuple[Tensor, ...]] | None, Sequence[Tensor] | None]:
        """The patches of each image and the grids of the images, row by row; None without images.

        Takes the next numbers of images, so it must be called once for each chunk of rows.
        """
        pixel_values, grid = inputs.get("pixel_values"), inputs.get("image_grid_thw")
        if pixel_values is None or grid is None:
            return None, None
        counts = [next(self.num_images) for _ in inputs["input_ids"]]
        by_image = pixel_values.split(grid.prod(-1).tolist())
        ends = torch.tensor([0, *counts]).cumsum(0).tolist()
        return [by_image[a:b] for a, b in pairwise(ends)], grid.split(counts)

    def cost(self, input_ids: Tensor) -> float:
        """What a pass over these rows costs: each token's 24 H^2 operations of the linear layers
        and 4 S H of attention to S tokens, in units of 4 H (hidden size H) operations."""
        rows, length = input_ids.shape
        return rows * length * (6 * self.model_config.hidden_size + length)

    def mask(self, sees_USS: Tensor) -> Tensor:
        """The tree mask as numbers to add, U 1 S S. From a bool mask every layer would make its
        own."""
        device, dtype = sees_USS.device, self.pretrained.dtype
        if torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        mask = torch.zeros(sees_USS.shape, dtype=dtype, device=device)
        return mask.masked_fill_(~sees_USS, torch.finfo(dtype).min)[:, None]

    def positions(
        self,
        packed: PackedRows,
        prompts: Tensor,
        mask: Tensor,
        types: Tensor | None,
        grids: Tensor | None,
    ) -> Tensor:
        """The position of each packed token: U S, or 3 U S for Qwen-VL models."""
        if self.rope is None or types is None or grids is None:
            in_prompt = (mask.cumsum(-1) - 1).clamp(min=0)
        else:
            in_prompt, _ = self.rope.get_rope_index(
                prompts, mm_token_type_ids=types, image_grid_thw=grids, attention_mask=mask
            )
        return in_prompt.flatten(-2)[..., packed.prompt_index] + packed.offsets


def pretrained_model(model: Any) -> PreTrainedModel:
    """The model of transformers inside whatever wraps it (DDP, DeepSpeed, PEFT)."""
    return next(module for module in model.modules() if isinstance(module, PreTrainedModel))


def text_config(model: Any) -> Any:
    """The settings of its language model."""
    return pretrained_model(model).config.get_text_config()


def fallback_reason(config: Any, inputs: Mapping[str, Any]) -> str | None:
    """Why the rows of this pass cannot be packed; None if they can."""
    if config._attn_implementation not in MASKABLE:
        names = " or ".join(MASKABLE)
        return f"attention by {config._attn_implementation} takes no tree mask, only {names} does"
    layer_types = {*(getattr(config, "layer_types", None) or ())} - {"full_attention"}
    if layer_types:
        return f"the model has layers of {', '.join(sorted(layer_types))}"
    if inputs.get("compute_aux_loss"):
        return "the balance of experts is measured over all tokens of all rows"
    packable = {*TRL_ARGUMENTS, *IMAGE_INPUTS}
    given = {key for key, value in inputs.items() if value is not None}
    if others := sorted(given - packable):
        return f"the processor gives {', '.join(others)}"
    if "pixel_values" in given and "image_grid_thw" not in given:
        return "the processor does not say which pixel_values belong to which image"
    return None


def keep_groups_together(batches: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same rows in as many batches, with rows of one prompt and its images side by side.

    TRL shuffles rows before it splits them, which would leave few rows of a group in each pass.
    """
    split = [split_pixel_values_by_grid(batch) for batch in batches]
    joined = {key: join([batch[key] for batch in split]) for key in split[0]}
    groups = group_rows(joined["prompt_ids"], joined["prompt_ids"].size(1), images_by_row(joined))
    order = [row for rows in groups for row in rows]
    ordered = {key: take(values, order) for key, values in joined.items()}
    parts: Any = split_tensor_dict(ordered, len(batches))
    return [unsplit_pixel_values_by_grid(part) for part in parts]


def images_by_row(batch: Mapping[str, Any]) -> list[tuple[Tensor, ...]] | None:
    """The patches of each row's images, after TRL has split them by rows."""
    pixel_values = batch.get("pixel_values")
    return [(patches,) for patches in pixel_values] if isinstance(pixel_values, list) else None


def join(parts: Sequence[Any]) -> Any:
    """Rows of several batches; what is not one value a row is the same in all."""
    if isinstance(parts[0], list):
        return [row for part in parts for row in part]
    if isinstance(parts[0], Tensor) and parts[0].ndim:
        return torch.cat(list(parts))
    return parts[0]


def take(values: Any, order: Sequence[int]) -> Any:
    """The rows in this order."""
    if isinstance(values, list):
        return [values[row] for row in order]
    return values[list(order)] if isinstance(values, Tensor) and values.ndim else values
