"""What every engine is asked and what it gives back."""

from dataclasses import dataclass, field

from PIL import Image

from difftrain.data import prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One answer wanted. A temperature of 0 is greedy; the seed is the draw's own.

    `parts` are words and pictures in the order in which they are shown.
    """

    parts: tuple[str | Image.Image, ...] = field(repr=False)
    system: str | None = prompts.SYSTEM
    seed: int = 0
    temperature: float = 0.0
    max_new_tokens: int

    @property
    def text(self) -> str:
        """The words alone."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def images(self) -> list[Image.Image]:
        """The pictures alone."""
        return [part for part in self.parts if not isinstance(part, str)]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said. `token_ids` end with the end token if it came (`finished`)."""

    text: str
    token_ids: tuple[int, ...]
    finished: bool
