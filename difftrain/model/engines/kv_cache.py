"""Caches keys and values: each prompt is prefilled once, and each row being decoded has a slot.

Requests with the same `view` have the same prompt and share a PrefilledPrompt. Each slot has its
own length, so any row can be replaced: a prompt is copied into a free slot, and each new token is
written after the slot's last one. Other rows are neither shifted nor padded. If the tensor is too
small, all slots are copied into a larger one with spare room. Axes: B batch, S sequence, N slots,
K key heads, W width, D head size, V vocabulary, 2: keys and values, 3: time, row, column.
"""

import sys
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache

from difftrain.config.data import TOKEN_PIXELS, TOKEN_SIDE
from difftrain.model import family
from difftrain.model.attention import attention_function, decoder_inputs
from difftrain.model.engines.types import Request
from difftrain.model.loading import LoadedModel

MAX_PREFILL_TOKENS = 16384  # prompt tokens of one prefill pass; bounds the activations
WIDTH_STEP = 64  # slot widths are multiples of it, for aligned kernels and few shapes


TokenCounter = Callable[[tuple[int, int]], int]  # from an image's size to its number of tokens


def qwen2_5_tokens(size: tuple[int, int]) -> int:
    """The tokens of an image of this size in Qwen2.5-VL, rounded up."""
    return -(-size[0] * size[1] // TOKEN_PIXELS)


def token_bound(request: Request, image_tokens: TokenCounter = qwen2_5_tokens) -> int:
    """An upper bound of prompt plus completion tokens: a text token has at least one byte.

    `image_tokens` counts the tokens of an image. Tokens around an image or between its rows are
    allowed for: two, and an eighth of its tokens where its processor makes several tiles.
    """
    counts = [image_tokens(image.size) for image in request.images]
    if image_tokens is not qwen2_5_tokens:
        counts = [count + count // 8 for count in counts]
    num_image_tokens = sum(count + 2 for count in counts)  # + 2: start, end
    text_tokens = 0
    for text in (request.text, request.system or ""):
        # A tokenizer encodes the text unchanged or in the Unicode form NFC, which can be longer.
        forms = (text,) if text.isascii() else (text, unicodedata.normalize("NFC", text))
        text_tokens += max(len(form.encode("utf-8", "surrogatepass")) for form in forms)
    return num_image_tokens + text_tokens + 32 + request.max_new_tokens  # 32: chat template


def token_counter(loaded: LoadedModel) -> TokenCounter:
    """The function that counts an image's tokens as the model's processor does."""
    if family.token_side(loaded.processor.image_processor) == TOKEN_SIDE:
        return qwen2_5_tokens
    return family.image_token_counter(loaded.processor)


def overlong_reason(loaded: LoadedModel, request: Request) -> str | None:
    """Why the prompt does not fit the model's positions, or None if it does."""
    max_positions = loaded.model.get_decoder().config.max_position_embeddings
    counter = token_counter(loaded)
    if token_bound(request, counter) < max_positions:
        return None
    ids = loaded.processor.tokenizer(request.chat_text(loaded.processor))["input_ids"]
    image_tokens = sum(counter(image.size) for image in request.images)
    tokens = len(ids) + image_tokens - len(request.images)  # ids has one token per image
    fits = tokens < max_positions
    return None if fits else f"the prompt has {tokens} tokens, the model takes {max_positions}"


def encode(
    loaded: LoadedModel, requests: Sequence[Request], side: str = "left"
) -> dict[str, Tensor]:
    """Model inputs on the model's device, padded on the left or right (`side`).

    Raises ValueError if the prompt's image placeholders do not match the image features; where the
    number of features is not in the inputs, the model itself raises it.
    """
    processor = loaded.processor
    texts = [request.chat_text(processor) for request in requests]
    nested = [request.images for request in requests]
    images: list[Any] = [image for row in nested for image in row]
    has_grid = family.takes_area(processor.image_processor)
    options: dict[str, Any] = {"padding": True, "padding_side": side, "return_tensors": "pt"}
    bos = processor.tokenizer.bos_token
    if bos and all(text.startswith(bos) for text in texts):
        options["add_special_tokens"] = False  # the template wrote it
    batch = processor(
        text=texts, images=(images if has_grid else nested) if images else None, **options
    )
    placeholders = int((batch["input_ids"] == loaded.image_token).sum())
    if has_grid:
        per_feature = processor.image_processor.merge_size**2
        features = int(batch["image_grid_thw"].prod(1).sum()) // per_feature if images else 0
        if features != placeholders:
            raise ValueError(
                f"found {placeholders} image placeholders for {features} image features"
            )
    elif bool(placeholders) != bool(images):
        raise ValueError(f"found {placeholders} image placeholders for {len(images)} images")
    return dict(batch.to(loaded.device))


@dataclass(frozen=True, slots=True)
class PrefilledPrompt:
    """A prompt's keys and values (2 K S D for each layer) and the logits after its last token."""

    key_values: list[Tensor]
    logits_V: Tensor
    length: int  # S
    position: int  # rotary position of the first response token; with images it differs from S


def _prefill(loaded: LoadedModel, requests: Sequence[Request]) -> list[PrefilledPrompt]:
    """Prefill one batch, padded on the right, so that a causal kernel needs no mask."""
    inputs = encode(loaded, requests, "right")
    length_B = inputs["attention_mask"].sum(1)
    passed = decoder_inputs(loaded.model, inputs)
    position_xBS = passed["position_ids"]
    # A cache built from the configuration would drop the keys outside a sliding layer's window.
    output = loaded.model.base_model(**passed, past_key_values=DynamicCache(), use_cache=True)
    rows = torch.arange(len(requests), device=length_B.device)
    last_hidden = output.last_hidden_state[rows, length_B - 1]
    logits_BV = family.output_logits(loaded.model, last_hidden)
    prefilled = []
    for row, length in enumerate(length_B.tolist()):
        # Copies, because slices would keep the whole batch's tensors alive.
        key_values = [
            torch.stack([layer.keys[row, :, :length], layer.values[row, :, :length]])
            for layer in output.past_key_values.layers
        ]
        position = int(position_xBS[..., row, :length].max()) + 1
        prefilled.append(PrefilledPrompt(key_values, logits_BV[row].clone(), length, position))
    return prefilled


class PrefixCache:
    """Prefilled prompts by view; keeps the `max_views` most recently used ones.

    `one_by_one` prefills every prompt alone, so that no prompt changes the rounding of another.
    """

    def __init__(self, loaded: LoadedModel, max_views: int, one_by_one: bool = False) -> None:
        self.loaded, self.max_views, self.one_by_one = loaded, max_views, one_by_one
        self.max_tokens = MAX_PREFILL_TOKENS
        self.image_tokens = token_counter(loaded)
        self.mixes_images = family.takes_area(loaded.processor.image_processor)
        self.views: OrderedDict[str, PrefilledPrompt] = OrderedDict()

    def missing(self, requests: Sequence[Request]) -> list[Request]:
        """The requests whose prompts are not cached, each view once."""
        by_view = {_view_key(request): request for request in requests}
        return [request for view, request in by_view.items() if view not in self.views]

    def get(self, requests: Sequence[Request]) -> list[PrefilledPrompt]:
        """The requests' prompts in their order; missing ones are prefilled."""
        prefilled: dict[str, PrefilledPrompt] = {}
        for batch in self._batches(self.missing(requests)):
            prefilled |= zip(map(_view_key, batch), _prefill(self.loaded, batch), strict=True)
        results = []
        for request in requests:
            view = _view_key(request)
            results.append(prefilled[view] if view in prefilled else self.views[view])
            if request.view is not None:
                self.views[view] = results[-1]
                self.views.move_to_end(view)
        while len(self.views) > self.max_views:
            self.views.popitem(last=False)
        return results

    def halve(self, max_views: int) -> None:
        """Empty the cache, keep at most `max_views` from now on, and halve the prefill batches."""
        self.views.clear()
        self.max_views, self.max_tokens = max_views, max(1, self.max_tokens // 2)

    def _batches(self, requests: list[Request]) -> Iterator[list[Request]]:
        """Batches of similar length: the prompts, padded to the largest, fit into max_tokens."""
        batch: list[Request] = []
        for request in sorted(requests, key=lambda r: token_bound(r, self.image_tokens)):
            width = token_bound(request, self.image_tokens) - request.max_new_tokens
            # Processors that nest images by prompt refuse a prompt without one beside others.
            is_other = bool(batch) and bool(batch[0].images) != bool(request.images)
            starts_new = self.one_by_one or (is_other and not self.mixes_images)
            if batch and (starts_new or (len(batch) + 1) * width > self.max_tokens):
                yield batch
                batch = []
            batch.append(request)
        if batch:
            yield batch


def _view_key(request: Request) -> str:
    """The request's view, or a unique key if it has none."""
    return request.view or str(id(request))


class SlotCache:
    """A key-value cache with one slot per row; rows can be added and removed at any time.

    It allocates at most `rows` slots, when they are needed. Spare room is added while rows x width
    stay within 5/4 of `max_tokens`. If `width` is given, all shapes are fixed.
    """

    def __init__(self, rows: int, width: int | None = None, max_tokens: int = sys.maxsize) -> None:
        self.max_rows, self.fixed_width, self.max_tokens = rows, width, max_tokens
        self.key_values: list[Tensor] = []  # 2 N K W D for each layer
        self.lengths = [0] * rows
        self.cursor_N = torch.empty(0, dtype=torch.long)  # each slot's next position
        self.visible_width = 0  # the width that attention reads

    def put(self, slot: int, prompt: PrefilledPrompt) -> None:
        """Copy a prompt into a slot."""
        if not self.key_values:
            self.key_values = [t[:, None, :, :0].clone() for t in prompt.key_values]
        self._grow(prompt.length + 1, slot + 1)
        for layer, prompt_layer in zip(self.key_values, prompt.key_values, strict=True):
            layer[:, slot, :, : prompt.length] = prompt_layer
        self.lengths[slot] = prompt.length

    def move(self, source: int, target: int) -> None:
        """Copy a slot over another, so that the used slots stay contiguous."""
        length = self.lengths[source]
        for layer in self.key_values:
            layer[:, target, :, :length] = layer[:, source, :, :length]
        self.lengths[target], self.lengths[source] = length, 0

    def _grow(self, width: int, rows: int) -> None:
        """Make room for `rows` rows of `width` tokens, if there is not enough."""
        _, old_rows, heads, old_width, size = self.key_values[0].shape
        max_length = max(self.lengths)
        used = max((slot + 1 for slot, length in enumerate(self.lengths) if length), default=0)
        width = self.fixed_width or -(-max(width, max_length) // WIDTH_STEP) * WIDTH_STEP
        rows = self.max_rows if self.fixed_width else max(rows, used)
        if old_rows >= rows and old_width >= width:
            return
        if not self.fixed_width:
            width = _grown_size(width, old_width, max_length * 5 // 4 // WIDTH_STEP * WIDTH_STEP)
            affordable = self.max_tokens * 5 // 4 // width
            rows = max(rows, min(_grown_size(rows, old_rows, used * 2), self.max_rows, affordable))
        for i, layer in enumerate(self.key_values):
            larger = layer.new_zeros((2, rows, heads, width, size))
            larger[:, :used, :, :max_length] = layer[:, :used, :, :max_length]
            self.key_values[i] = larger

    def decode(self, loaded: LoadedModel, token_N: Tensor, position_N: Tensor) -> Tensor:
        """Logits N V (float32) after one more token in the first N slots; empty ones stay empty."""
        count = len(token_N)
        max_length = max(self.lengths[:count]) + 1
        self._grow(max_length, count)
        self.visible_width = self.fixed_width or -(-max_length // WIDTH_STEP) * WIDTH_STEP
        self.cursor_N = torch.tensor(self.lengths[:count], device=token_N.device)
        position_W = torch.arange(self.visible_width, device=token_N.device)
        visible_NW = position_W[None] <= self.cursor_N[:, None]
        with attention_function(loaded.model, _attend_one_query):
            output = loaded.model.base_model(
                input_ids=token_N[:, None],
                attention_mask=visible_NW[:, None, None],
                position_ids=(
                    position_N[None, :, None].expand(3, -1, -1)
                    if family.uses_rotary_grid(loaded.model)
                    else position_N[:, None]
                ),
                past_key_values=self,  # has the methods of transformers' Cache that are called
                use_cache=True,
            )
        self.lengths[:count] = [length + 1 if length else 0 for length in self.lengths[:count]]
        return family.output_logits(loaded.model, output.last_hidden_state[:, -1])

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write a layer's new keys and values, return all (transformers' Cache.update)."""
        all_keys, all_values = self.key_values[layer_idx][:, : len(keys)]
        rows = torch.arange(len(keys), device=keys.device)
        # Under autocast rotated keys are float32 and values bf16.
        all_keys[rows, :, self.cursor_N] = keys[:, :, 0].to(all_keys.dtype)
        all_values[rows, :, self.cursor_N] = values[:, :, 0].to(all_values.dtype)
        return all_keys[:, :, : self.visible_width], all_values[:, :, : self.visible_width]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Required of a Cache by transformers; has no effect, because positions are passed."""
        return self.visible_width


def _attend_one_query(module: Any, query: Any, key: Any, value: Any, mask: Any, **rest: Any) -> Any:
    """Attention of one new token per row; the heads of a group read their key without copies.

    The mask B 1 1 W says which keys a row has. A sliding layer sees only the last ones of these.
    """
    rows, heads, _, size = query.shape
    if (window := rest.get("sliding_window")) is not None:
        is_recent = mask.flip(-1).cumsum(-1).flip(-1) <= window
        mask = mask & is_recent
    grouped = query.view(rows, key.shape[1], heads // key.shape[1], size)
    output = functional.scaled_dot_product_attention(
        grouped, key, value, attn_mask=mask, scale=rest["scaling"]
    )
    return output.reshape(rows, 1, heads, size), None  # no attention weights


def _grown_size(needed: int, old: int, ample: int) -> int:
    """`ample` if `old` is too small, else `old` but no more than `ample`; at least `needed`."""
    return max(needed, ample if old < needed else min(old, ample))
