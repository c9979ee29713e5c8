"""Which parts of the model learn: named, counted, frozen."""

from collections.abc import Iterator

from torch import nn

PARTS = ("vision tower", "projector", "language model", "head")
VISION_PARTS = ("vision tower", "projector")


def part_of(name: str) -> str:
    """The part of a Qwen2.5-VL that a parameter of this name belongs to."""
    if ".visual.merger." in f".{name}":
        return "projector"
    if ".visual." in f".{name}":
        return "vision tower"
    return "head" if "lm_head" in name else "language model"


def freeze_vision(model: nn.Module) -> None:
    """Let vision tower and projector stay as they are."""
    for name, parameter in model.named_parameters():
        if part_of(name) in VISION_PARTS:
            parameter.requires_grad_(False)


def counted(model: nn.Module) -> Iterator[tuple[str, int, int]]:
    """(part, parameters, of these trained) of each part that has any.

    Under ZeRO-3 a parameter's own shape is empty and DeepSpeed's `ds_numel` holds its size.
    """
    for part in PARTS:
        sizes = [
            (getattr(parameter, "ds_numel", parameter.numel()), parameter.requires_grad)
            for name, parameter in model.named_parameters()
            if part_of(name) == part
        ]
        if sizes:
            yield part, sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)


def table(model: nn.Module) -> str:
    """The trained-parameter table that is printed before the first step."""
    lines = [f"{'part':<16}{'parameters':>16}{'trained':>16}"]
    lines += [f"{part:<16}{total:>16,}{trained:>16,}" for part, total, trained in counted(model)]
    return "\n".join(lines)
