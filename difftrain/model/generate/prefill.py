"""Reading prompts: pictures and words go through the model once, and what it keeps is kept.

Draws that share a view share a Prompt, so neither the processor, nor the vision tower, nor the
decoder sees it twice. Axes: B batch, S sequence, K key heads, D head size, V vocabulary.
"""

import unicodedata
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from difftrain.config.data import TOKEN_PIXELS
from difftrain.data import prompts
from difftrain.model.generate.request import Request
from difftrain.model.load import Loaded
from difftrain.model.spans import positions

MOST_TOKENS = 16384
"""Prompt tokens read in one pass at most: what bounds its activations."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt as the model keeps it: each layer's keys and values (K S D), and its last scores.

    `position` is the rotary position of the first token to come; pictures make it differ from S.
    """

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    scores_V: torch.Tensor
    position: int

    @property
    def length(self) -> int:
        """Its number of tokens."""
        return self.keys[0].shape[1]

    def alone(self) -> "Prompt":
        """The same without a hold on the batch it was read in."""
        keys, values = (tuple(t.clone() for t in each) for each in (self.keys, self.values))
        return Prompt(keys, values, self.scores_V.clone(), self.position)


def tokens_at_most(request: Request) -> int:
    """No fewer tokens than prompt and answer will have: each token of words has a byte or more."""
    pictures = sum(-(-image.width * image.height // TOKEN_PIXELS) + 2 for image in request.images)
    words = bytes_of(request.text) + bytes_of(request.system or "")
    return pictures + words + 32 + request.max_new_tokens


def bytes_of(words: str) -> int:
    """Bytes of the words as a tokenizer sees them: as they are, or composed where that is more."""
    if words.isascii():
        return len(words)
    composed = unicodedata.normalize("NFC", words)
    return max(len(each.encode("utf-8", "surrogatepass")) for each in (words, composed))


def written(loaded: Loaded, request: Request) -> str:
    """The prompt as text, one placeholder a picture."""
    return loaded.processor.apply_chat_template(
        prompts.messages(request.parts, request.system), add_generation_prompt=True, tokenize=False
    )


def beyond(loaded: Loaded, request: Request) -> str | None:
    """Why the model cannot take this prompt, or None: it is longer than the model's positions."""
    most = loaded.model.get_decoder().config.max_position_embeddings
    if tokens_at_most(request) < most:
        return None
    ids = loaded.processor.tokenizer(written(loaded, request))["input_ids"]
    pictures = sum(image.width * image.height // TOKEN_PIXELS for image in request.images)
    tokens = len(ids) + pictures - len(request.images)
    return None if tokens < most else f"the prompt has {tokens} tokens, the model takes {most}"


def encode(
    loaded: Loaded, requests: Sequence[Request], side: str = "left"
) -> dict[str, torch.Tensor]:
    """Model inputs padded on this side, on the model's device.

    Raises ValueError if the placeholders in the prompt are not the pictures' tokens.
    """
    processor = loaded.processor
    texts = [written(loaded, request) for request in requests]
    images = [image for request in requests for image in request.images]
    batch = processor(
        text=texts, images=images or None, padding=True, padding_side=side, return_tensors="pt"
    )
    merge = processor.image_processor.merge_size**2
    features = int(batch["image_grid_thw"].prod(1).sum()) // merge if images else 0
    placeholders = int((batch["input_ids"] == loaded.image_token).sum())
    if features != placeholders:
        raise ValueError(f"{placeholders} picture placeholders for {features} picture tokens")
    return dict(batch.to(loaded.device))


def read(loaded: Loaded, requests: Sequence[Request]) -> list[Prompt]:
    """The prompts of one batch. Padded on the right, so that a causal kernel needs no mask.

    Raises ValueError if the placeholders in a prompt are not its pictures' tokens.
    """
    inputs = encode(loaded, requests, "right")
    place_3BS = positions(loaded.model, inputs)
    length_B = inputs["attention_mask"].sum(1)
    shown = {key: inputs[key] for key in ("pixel_values", "image_grid_thw") if key in inputs}
    output = loaded.model.base_model(
        input_ids=inputs["input_ids"], position_ids=place_3BS, use_cache=True, **shown
    )
    rows = torch.arange(len(requests), device=length_B.device)
    scores_BV = loaded.model.get_output_embeddings()(
        output.last_hidden_state[rows, length_B - 1]
    ).float()
    layers = output.past_key_values.layers
    found = []
    for row, length in enumerate(length_B.tolist()):
        keys = tuple(layer.keys[row, :, :length] for layer in layers)
        values = tuple(layer.values[row, :, :length] for layer in layers)
        position = int(place_3BS[:, row, :length].max()) + 1
        found.append(Prompt(keys, values, scores_BV[row], position))
    return found


class Reader:
    """Reads prompts, each view once while it is remembered.

    `keep` views are remembered, the last used: as many as there are slots, since a stage asks on
    of the samples it has begun. `alone` reads every prompt by itself, whatever else is asked.
    """

    def __init__(self, loaded: Loaded, keep: int, alone: bool = False) -> None:
        self.loaded, self.keep, self.alone = loaded, keep, alone
        self.most = MOST_TOKENS
        self.views: OrderedDict[str, Prompt] = OrderedDict()

    def unread(self, requests: Sequence[Request]) -> list[Request]:
        """Those of the requests that would have to be read, each view once."""
        named = {each.view or str(id(each)): each for each in requests}
        return [each for name, each in named.items() if name not in self.views]

    def read(self, requests: Sequence[Request]) -> list[Prompt]:
        """The requests' prompts, in their order."""
        found: dict[str, Prompt] = {}
        for batch in self._batches(self.unread(requests)):
            for request, prompt in zip(batch, read(self.loaded, batch), strict=True):
                if request.view is not None:
                    prompt = prompt if self.alone else prompt.alone()
                found[request.view or str(id(request))] = prompt
        prompts_of = [self._known(each, found) for each in requests]
        for each in requests:
            if each.view is not None:
                self.views[each.view] = self._known(each, found)
                self.views.move_to_end(each.view)
        while len(self.views) > self.keep:
            self.views.popitem(last=False)
        return prompts_of

    def halve(self, keep: int) -> None:
        """Forget every view, keep fewer from now on, and read half as much in one pass."""
        self.views.clear()
        self.keep, self.most = keep, max(1, self.most // 2)

    def _known(self, request: Request, found: dict[str, Prompt]) -> Prompt:
        name = request.view or str(id(request))
        return found[name] if name in found else self.views[name]

    def _batches(self, requests: list[Request]) -> Iterator[list[Request]]:
        """The requests in batches of like length, rows times the longest within the limit."""
        batch: list[Request] = []
        for each in sorted(requests, key=tokens_at_most):
            width = tokens_at_most(each) - each.max_new_tokens
            if batch and (self.alone or (len(batch) + 1) * width > self.most):
                yield batch
                batch = []
            batch.append(each)
        if batch:
            yield batch
