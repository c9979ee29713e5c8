"""Each image is processed once, and encoded once if the vision tower does not change.

TRL calls the image processor twice for every completion and repeats `pixel_values` G times. Here
the processor returns, in place of each image's patches, the image's number in this cache (one
int64 per patch, so that TRL's splitting by patches still holds). The model's `get_image_features`
puts the pixels back, once for each different image of a pass.

Other processors and models keep their own way, and the log says why: those without
`image_grid_thw`, and those that feed image features into several layers (Qwen3-VL).
"""

import hashlib
import logging
import os
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BatchFeature, TrainerCallback
from transformers.image_utils import make_flat_list_of_images
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.modeling_outputs import BaseModelOutputWithPooling

from difftrain.train import param_groups

logger = logging.getLogger(__name__)

FOLDER = "image_features"  # in the folder of a training stage; deleted when training ends
MAX_BYTES = 2**31  # memory for pixels, and again for image features, of one process
MAX_DISK_BYTES = 2**35  # of image features that one process writes


@dataclass(slots=True)
class TensorStore:
    """Tensors by name: the last used in memory, the others on disk if there is a folder."""

    max_bytes: int = MAX_BYTES
    folder: Path | None = None
    tensors: OrderedDict[str, Tensor] = field(default_factory=OrderedDict)
    protected: set[str] = field(default_factory=set)
    """Names that stay in memory for now."""
    num_bytes: int = 0
    disk_bytes: int = 0

    def __setitem__(self, name: str, tensor: Tensor) -> None:
        self.tensors[name] = tensor
        self.num_bytes += tensor.nbytes
        if self.num_bytes <= self.max_bytes:
            return
        for oldest in [name for name in self.tensors if name not in self.protected]:
            if self.num_bytes <= self.max_bytes:
                break
            evicted = self.tensors.pop(oldest)
            self.num_bytes -= evicted.nbytes
            self._write(oldest, evicted)

    def get(self, name: str) -> Tensor | None:
        """The tensor, or None if it was never stored, or evicted without a copy on disk."""
        if name not in self.tensors:
            path = self._path(name)
            if path is None or not path.is_file():
                return None
            try:
                self[name] = load_file(path)["tensor"]
            except (OSError, SafetensorError):
                return None
        self.tensors.move_to_end(name)
        return self.tensors[name]

    def _path(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{name}.safetensors"

    def _write(self, name: str, tensor: Tensor) -> None:
        """Write a tensor to the folder; if the disk is full, it is computed again instead."""
        path = self._path(name)
        if path is None or path.is_file() or self.disk_bytes + tensor.nbytes > MAX_DISK_BYTES:
            return
        tmp_path = path.with_suffix(f".{os.getpid()}.tmp")  # ranks share the folder
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({"tensor": tensor.contiguous()}, tmp_path)
            tmp_path.replace(path)
            self.disk_bytes += tensor.nbytes
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                tmp_path.unlink()
            logger.warning("image features are not stored on disk: %s", error)
            self.folder = None


class ImageCache:
    """The images of a training run by content hash: their patches, and maybe their features."""

    def __init__(self, folder: Path | None = None, max_bytes: int = MAX_BYTES) -> None:
        self.pixels = TensorStore(max_bytes)
        self.features = TensorStore(max_bytes, folder)
        self.hashes: list[str] = []  # an image's number is its index here
        self.numbers: dict[str, int] = {}
        self.grids: dict[str, Tensor] = {}
        self.keeps_features = False
        self.num_processed = self.num_encoded = 0
        self._mode = "train"
        self._batches: dict[str, list[set[str]]] = {self._mode: [set(), set()]}
        """By mode: the images of the previous and of this batch."""

    def start_batch(self, mode: str = "train") -> None:
        """Call this before the images of a batch are added: it lets go of the batch before the
        previous one of this mode. Trainers read one batch ahead, and evaluate between batches."""
        self._mode = mode
        _, previous = self._batches.get(mode, [set(), set()])
        self._batches[mode] = [previous, set()]
        protected = set().union(*(names for pair in self._batches.values() for names in pair))
        for store in (self.pixels, self.features):
            store.protected = set(protected)

    def attach_processor(self, processor: Any) -> None:
        """Let the image processor return numbers of this cache."""
        image_processor, cache = processor.image_processor, self
        original_class = type(image_processor)

        class CachedImageProcessor(original_class):
            def __call__(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:
                if args or images is None:
                    return original_class.__call__(self, images, *args, **kwargs)
                flat: Any = make_flat_list_of_images(images)
                names: dict[int, str] = {}  # by object, because a group's rows share one
                for image in flat:
                    if id(image) not in names:
                        names[id(image)] = cache.add(self, original_class, image, kwargs)
                return cache.numbered([names[id(image)] for image in flat])

        # Checkpoints store the class's name.
        CachedImageProcessor.__name__ = original_class.__name__
        CachedImageProcessor.__qualname__ = original_class.__qualname__
        image_processor.__class__ = CachedImageProcessor

    def add(
        self, image_processor: Any, original_class: type, image: Image.Image, kwargs: Any
    ) -> str:
        """Process an image unless its patches or features are here; returns its content hash."""
        name = content_hash(image, kwargs)
        self._batches[self._mode][1].add(name)
        for store in (self.pixels, self.features):
            store.protected.add(name)
        has_features = (
            self.keeps_features
            and name in self.grids  # the file can be from another process or an earlier start
            and self.features.get(name) is not None
        )
        if not has_features and self.pixels.get(name) is None:
            processed = original_class.__call__(
                image_processor, [image], **kwargs | {"return_tensors": "pt"}
            )
            self.pixels[name] = processed["pixel_values"]
            self.num_processed += 1
            if name not in self.numbers:
                self.numbers[name] = len(self.hashes)
                self.hashes.append(name)
                self.grids[name] = processed["image_grid_thw"]
        return name

    def numbered(self, names: Sequence[str]) -> BatchFeature:
        """What the image processor returns for these images: each patch is its image's number."""
        grids = torch.cat([self.grids[name] for name in names])
        numbers = torch.tensor([self.numbers[name] for name in names])
        pixel_values = numbers.repeat_interleave(grids.prod(-1))[:, None]
        return BatchFeature({"pixel_values": pixel_values, "image_grid_thw": grids})

    def attach_model(self, owner: Any) -> None:
        """Let the module with `get_image_features` look up the images of these numbers."""
        encode = owner.get_image_features

        def get_image_features(
            pixel_values: Tensor, image_grid_thw: Tensor, **kwargs: Any
        ) -> BaseModelOutputWithPooling:
            if pixel_values.is_floating_point():
                return encode(pixel_values, image_grid_thw, **kwargs)
            starts = image_grid_thw.prod(-1).cumsum(0) - image_grid_thw.prod(-1)
            names = [self.hashes[number] for number in pixel_values[starts, 0].tolist()]
            device = pixel_values.device
            features: dict[str, Tensor] = {}
            for name in {*names} if self.keeps_features else ():
                stored = self.features.get(name)
                if stored is not None:
                    features[name] = stored.to(device)
            missing = [name for name in dict.fromkeys(names) if name not in features]
            if missing:
                outputs = encode(
                    torch.cat([self.pixels.tensors[name] for name in missing]).to(device),
                    torch.cat([self.grids[name] for name in missing]).to(device),
                    **kwargs,
                )
                self.num_encoded += len(missing)
                encoded = dict(zip(missing, outputs.pooler_output, strict=True))
                features |= encoded
                if self.keeps_features:
                    for name, value in encoded.items():
                        self.features[name] = value.detach().cpu()
            ordered: Any = tuple(features[name] for name in names)
            return BaseModelOutputWithPooling(pooler_output=ordered)

        owner.get_image_features = get_image_features


def content_hash(image: Image.Image, kwargs: Any) -> str:
    """A hash of the pixels and of how they are processed."""
    settings = {k: v for k, v in kwargs.items() if v is not None and k != "return_tensors"}
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{image.mode} {image.size} {sorted(settings.items())}".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def feature_owner(model: Any) -> Any:
    """The module that encodes images for the language model, inside whatever wraps it; or None."""
    for module in model.modules():
        if "get_image_features" in type(module).__dict__ and not hasattr(module, "lm_head"):
            return module
    return None


def attach(trainer: Any, folder: Path) -> ImageCache | None:
    """Let a trainer process each image once, and encode it once if no vision weight is trained.

    With ZeRO-3 every rank must run the tower equally often, so features are not kept there.
    `folder` is for features that do not fit in memory. Logs why the cache is not used.
    """
    models = (trainer.model, getattr(trainer, "ref_model", None))
    owners = [feature_owner(model) for model in models if model is not None]
    problem = None
    if trainer.args.dataloader_num_workers:
        problem = "dataloader_num_workers is not 0"
    elif "image_grid_thw" not in trainer.processing_class.image_processor.model_input_names:
        problem = "the processor gives no image_grid_thw"
    elif None in owners:
        problem = "the model has no get_image_features"
    elif hasattr(owners[0].config.vision_config, "deepstack_visual_indexes"):
        problem = "the model feeds image features into several layers"
    if problem:
        logger.warning("image cache: not used: %s", problem)
        return None
    cache = ImageCache(folder)
    counts = param_groups.count_parameters(trainer.model)
    is_frozen = not any(trained for part, _, trained in counts if part in param_groups.VISION_PARTS)
    if is_frozen and is_deepspeed_zero3_enabled():
        logger.warning("image features: not kept: ZeRO-3 runs the tower on all ranks at once")
    cache.keeps_features = is_frozen and not is_deepspeed_zero3_enabled()
    cache.attach_processor(trainer.processing_class)
    for owner in owners:
        cache.attach_model(owner)
    return cache


class StartBatch(TrainerCallback):
    """Tells the cache where a step ends, for trainers that do not call `start_batch` themselves."""

    def __init__(self, cache: ImageCache) -> None:
        self.cache = cache

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.cache.start_batch()
