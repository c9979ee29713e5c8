"""Settings of the evaluation; all are printed beside the scores."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum

OFFICIAL = ("MathVista", "MMVet", "OCRBench", "HallusionBench", "MMMU", "MMStar")
MINIATURES = tuple(f"shapes/{name}" for name in OFFICIAL)


class SystemPrompt(StrEnum):
    """What stands before the question."""

    none = "none"
    think = "think"


class AnswerTags(StrEnum):
    """Whether <answer> is opened before the official scorer sees the response."""

    strip = "strip"  # pyright: ignore[reportAssignmentType]  # shadows a str method
    raw = "raw"


RULES = ("2025-11", "2026-08")


@dataclass(kw_only=True, slots=True)
class EvaluateConfig:
    """Six benchmarks, the base and the tuned model under the same settings."""

    benchmarks: list[str] = field(default_factory=lambda: list(MINIATURES))
    """Names as in the papers' tables; the miniatures carry shapes/ before them."""
    limit: int | None = 100
    """Items of each benchmark; null takes all."""
    system: SystemPrompt = SystemPrompt.think
    """The prompt the model was trained with; none asks the bare question."""
    answer_tags: AnswerTags = AnswerTags.strip
    """strip hands the scorer what stands in <answer>; raw hands it the whole response."""
    rules: str = "2025-11"
    """The reference harness as of this date: 2025-11 is the paper's, 2026-08 the newer one."""
    max_new_tokens: int = 2048
    """Longest answer (reference harness: 2048), greedy."""
    resamples: int = 2000
    """Bootstrap resamples behind each 95 % interval."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if not self.benchmarks:
            yield "benchmarks", "must name at least one benchmark"
        for name in self.benchmarks:
            if name not in MINIATURES:
                near = get_close_matches(name, MINIATURES, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                yield "benchmarks", f"{name!r} is not one of {', '.join(MINIATURES)}{hint}"
        if len(set(self.benchmarks)) < len(self.benchmarks):
            yield "benchmarks", "names a benchmark twice"
        if self.limit is not None and self.limit < 1:
            yield "limit", "must be at least 1, or null for all items"
        if self.rules not in RULES:
            yield "rules", f"must be one of {', '.join(RULES)}"
        if self.max_new_tokens < 1:
            yield "max_new_tokens", "must be at least 1"
        if self.resamples < 100:
            yield "resamples", "must be at least 100"
