"""Settings of the evaluation; all are printed with the scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

from difftrain.config.data import ONE_TOKEN, TOKEN_PIXELS
from difftrain.config.judge import JudgeClientConfig, JudgeKind, missing
from difftrain.config.setting import Problems, did_you_mean, setting
from difftrain.pipeline import manifest

HUB_IDS = {
    "MathVista": "AI4Math/MathVista",
    "MMVet": "lmms-lab/MMVet",
    "OCRBench": "echo840/OCRBench",
    "HallusionBench": "lmms-lab/HallusionBench",
    "MMMU": "MMMU/MMMU",
    "MMStar": "Lin-Chen/MMStar",
}
"""Hub id of each benchmark; the hub redirects the old name of a data set that moves."""
OFFICIAL = tuple(HUB_IDS)
MINIATURES = tuple(f"shapes/{name}" for name in OFFICIAL)
TSV_FILES = {name: f"{name}.tsv" for name in OFFICIAL}
TSV_FILES |= {"MathVista": "MathVista_MINI.tsv", "MMMU": "MMMU_DEV_VAL.tsv"}
"""The reference harness's file of each benchmark."""
MIN_PIXELS, MAX_PIXELS = 1280 * TOKEN_PIXELS, 16384 * TOKEN_PIXELS
"""The reference run's limits for Qwen2.5-VL: small images are enlarged to about 1 megapixel."""
OCRBENCH_MIN_PIXELS = 100 * TOKEN_PIXELS  # the reference run's lower limit on OCRBench alone
RULES = ("2025-11", "2026-08")
ItemSource = StrEnum("ItemSource", ["hub", "folder", "tsv"])
"""Where the items of official benchmarks come from; miniatures are drawn by shapes/."""
Fallback = StrEnum("Fallback", ["wrong", "random"])
"""How a response counts if neither the rule nor the judge's replies name an option."""
SystemPrompt = StrEnum("SystemPrompt", ["none", "think"])
"""The system prompt of benchmark items."""
AnswerTags = StrEnum("AnswerTags", ["strip", "raw"])
"""Whether the official scorer sees only the text in <answer>, or the whole response."""
ContaminationPolicy = StrEnum("ContaminationPolicy", ["error", "warn"])
"""What happens if a selected training sample is also in a benchmark."""


@dataclass(kw_only=True, slots=True)
class ItemPaths:
    """Places of single benchmarks: a .tsv file, a folder, or a hub id, maybe with @revision."""

    MathVista: str | None = None
    MMVet: str | None = None
    OCRBench: str | None = None
    HallusionBench: str | None = None
    MMMU: str | None = None
    MMStar: str | None = None


@dataclass(kw_only=True, slots=True)
class HarnessOverrides:
    """Deviations from the reference harness; printed with the score.

    Only `fallback` deviates by default: the reference's random guess is not reproducible.
    """

    fallback: Fallback = Fallback.wrong
    """MMMU, MMStar after three unusable replies: wrong, or an option drawn at random (as the
    reference does; here the draw depends on the item alone)."""
    list_items: bool = False
    """MathVista's two list answers can be correct (the reference never accepts them)."""
    zero: bool = False
    """A correct 0 in MathVista is decided by the rule (the reference asks the judge)."""
    letter_golds: bool = False
    """MMMU's open golds of one capital letter are option A (in the reference they stay letters)."""
    whole_letter: bool = False
    """"answer is X" needs a letter by itself (2026-08 takes the C of "answer is clearly")."""
    all_periods: bool = False
    """HallusionBench's yes/no rule removes every period (the reference stops after 32)."""
    kept_texts: bool = False
    """None, NA, nan and the empty text stay texts (the reference's tables turn them into nan)."""


@dataclass(kw_only=True, slots=True)
class EvaluateConfig:
    """Six benchmarks; base and tuned model are evaluated under the same settings."""

    benchmarks: list[str] = setting(
        default_factory=lambda: list(MINIATURES), fingerprint=("evaluate",)
    )
    """Names as in the papers' tables; the miniatures have the prefix shapes/."""
    source: ItemSource = setting(ItemSource.hub, fingerprint=("evaluate",))
    """Official items from the hub, from `path`/NAME/ (parquet, save_to_disk or a clone of the hub's
    data set), or from the reference harness's `path`/NAME.tsv."""
    path: str | None = setting(None, fingerprint=("evaluate",))
    """The folder of all benchmarks (source=folder or tsv)."""
    paths: ItemPaths = setting(default_factory=ItemPaths, fingerprint=("evaluate",))
    """Single benchmarks at other places."""
    allow_count_mismatch: bool = setting(False, fingerprint=("evaluate",))
    """Accept data sets without the official number of items; printed with the score."""
    limit: int | None = setting(
        None, fingerprint=("evaluate",), at_least=1, or_null="for all items"
    )
    """Items of each benchmark, spread evenly over it; null takes all (miniatures: 300)."""
    min_pixels: int | None = setting(None, at_least=TOKEN_PIXELS, rule=ONE_TOKEN)
    """Smaller images are enlarged to this; null: the reference's limit (miniatures: the data's)."""
    max_pixels: int | None = setting(None, at_least=TOKEN_PIXELS, rule=ONE_TOKEN)
    """Larger images are shrunk to this; null: the reference's limit (miniatures: the data's)."""
    system: SystemPrompt = SystemPrompt.think
    """think: the prompt the model was trained with; none: no system prompt."""
    answer_tags: AnswerTags = setting(AnswerTags.strip, fingerprint=("evaluate",))
    """strip gives the scorer the text in <answer>; raw gives it the whole response."""
    rules: str = setting("2025-11", fingerprint=("evaluate",))
    """The reference harness at this date: 2025-11 is the paper's, 2026-08 the newer one."""
    harness_overrides: HarnessOverrides = setting(
        default_factory=HarnessOverrides, fingerprint=("evaluate",)
    )
    max_new_tokens: int = setting(2048, at_least=1)
    """Of a response (reference harness: 2048); decoding is greedy."""
    resamples: int = setting(2000, fingerprint=("evaluate",), at_least=100)
    """Bootstrap resamples of each 95 % interval."""
    judge: JudgeKind = setting(JudgeKind.shapes, fingerprint=("evaluate",))
    """shapes judges the miniatures offline, and nothing else; endpoint is the server at
    JUDGE_BASE_URL; none lets only the rules decide and prints the share of undecided items."""
    judge_client: JudgeClientConfig = setting(default_factory=JudgeClientConfig, fingerprint=())
    contamination: ContaminationPolicy = setting(ContaminationPolicy.error, fingerprint=())
    """error: refuse to train on a sample that an available benchmark holds too; warn: list them."""

    def check(self) -> Problems:
        if not self.benchmarks:
            yield "benchmarks", "must name at least one benchmark"
        known = (*OFFICIAL, *MINIATURES)
        for name in self.benchmarks:
            if name not in known:
                rule = f"is not one of {', '.join(known)}{did_you_mean(name, known)}"
                yield "benchmarks", f"{name!r} {rule}"
        yield from self._check_sources()
        if len(set(self.benchmarks)) < len(self.benchmarks):
            yield "benchmarks", "names a benchmark twice"
        if self.rules not in RULES:
            yield "rules", f"must be one of {', '.join(RULES)}"
        if self.judge is JudgeKind.endpoint:
            yield from (("judge", rule) for rule in missing())

    def _check_sources(self) -> Problems:
        at_path = [name for name in self.official if not getattr(self.paths, name)]
        if self.source is not ItemSource.hub and at_path:
            if self.path is None:
                yield "path", f"source={self.source} needs a folder: evaluate.path=DIR"
                return
            if not Path(self.path).expanduser().is_dir():
                yield "path", "there is no such folder"
                return
        for name in self.official:
            source, place = self.place(name)
            if source is not ItemSource.hub and not Path(place).exists():
                key = "path" if name in at_path else f"paths.{name}"
                yield key, f"there is no {name} at {place}"
        for name in self.official:
            low, high = self.pixels(name, (0, 0))
            if low > high:
                yield "min_pixels", f"{name}: {low} to {high} pixels is no range"
                return

    @property
    def official(self) -> list[str]:
        """The requested benchmarks that are not miniatures."""
        return [name for name in self.benchmarks if name in OFFICIAL]

    def place(self, name: str) -> tuple[ItemSource, str]:
        """Where an official benchmark is: its kind of source, and the hub id, folder or file."""
        if given := getattr(self.paths, name):
            path = Path(given).expanduser()
            if given.endswith(".tsv"):
                return ItemSource.tsv, str(path)
            local = path.is_dir() or given.startswith((".", "/", "~"))
            return (ItemSource.folder, str(path)) if local else (ItemSource.hub, given)
        root = Path(self.path or "").expanduser()
        if self.source is ItemSource.tsv:
            return ItemSource.tsv, str(root / TSV_FILES[name])
        if self.source is ItemSource.folder:
            hub = HUB_IDS[name]
            tried = [root / name, root / hub, root / hub.split("/")[1]]
            return ItemSource.folder, str(next((path for path in tried if path.is_dir()), tried[0]))
        return ItemSource.hub, HUB_IDS[name]

    def pixels(self, name: str, data_pixels: tuple[int, int]) -> tuple[int, int]:
        """Smallest and largest image area of a benchmark; `data_pixels` is that of miniatures."""
        low, high = data_pixels
        if name in OFFICIAL:
            low = OCRBENCH_MIN_PIXELS if name == "OCRBench" else MIN_PIXELS
            high = MAX_PIXELS
        return self.min_pixels or low, self.max_pixels or high

    def miniature_range(self, data_pixels: tuple[int, int]) -> Problems:
        """The problem if no image size fits a miniature."""
        low, high = self.pixels(MINIATURES[0], data_pixels)
        keys = [key for key in ("min_pixels", "max_pixels") if getattr(self, key) is not None]
        if keys and low > high and not set(self.benchmarks) <= set(OFFICIAL):
            default = f"the data's are {data_pixels[0]} to {data_pixels[1]}"
            yield keys[0], f"miniatures: {low} to {high} pixels is no range ({default})"

    @property
    def also_on_disk(self) -> list[str]:
        """Official benchmarks that are not requested, but are where the settings point to."""
        on_disk = []
        for name in OFFICIAL:
            source, place = self.place(name)
            is_given = bool(getattr(self.paths, name) or self.path) and source is not ItemSource.hub
            if name not in self.benchmarks and is_given and Path(place).exists():
                on_disk.append(name)
        return on_disk

    def items_identity(self, names: Sequence[str] | None = None) -> list[list[str]]:
        """The items of these, else of the requested official benchmarks: their hub ids, or the
        fingerprints of their files' contents."""
        identities = []
        for name in self.official if names is None else names:
            source, place = self.place(name)
            if source is ItemSource.hub:
                identities.append([name, place])
                continue
            files = sorted(file for file in Path(place).rglob("*") if file.is_file())
            fingerprints = [
                _fingerprint(file, (stat := file.stat()).st_size, stat.st_mtime_ns)
                for file in files or [Path(place)]
            ]
            identities.append([name, str(source), manifest.fingerprint(fingerprints)])
        return identities


@cache
def _fingerprint(path: Path, size: int, mtime_ns: int) -> str:
    """A file's fingerprint, computed once for all runs of a sweep unless size or mtime changes."""
    return manifest.file_fingerprint(path)
