"""Settings of the evaluation on benchmarks; all are printed with the scores.

The reference harness is VLMEvalKit, as in Qi et al. 2026. The judge scores responses that rules
cannot score. difftrain/shapes generates the built-in benchmarks, shapes/NAME.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

from difftrain.config.data import AREA_RULE, TOKEN_PIXELS
from difftrain.config.judge import JudgeClientConfig, JudgeKind, environment_problems
from difftrain.config.setting import Problems, did_you_mean, setting
from difftrain.pipeline import manifest

HUB_IDS = {
    "MathVista": "AI4Math/MathVista",
    "MMVet": "lmms-lab/MMVet",
    "OCRBench": "echo840/OCRBench",
    "HallusionBench": "lmms-lab/HallusionBench",
    "MMMU": "MMMU/MMMU",
    "MMStar": "Lin-Chen/MMStar",
    "MathVerse": "AI4Math/MathVerse",
    "WeMath": "We-Math/We-Math",
    "LogicVista": "lscpku/LogicVista",
}
"""Hub id of each benchmark. The hub still finds a data set by this id after it is renamed."""
OFFICIAL = tuple(HUB_IDS)
SETS = {
    "paper1": ("MathVista", "MMVet", "OCRBench", "HallusionBench", "MMMU", "MMStar"),
    "rap": ("MathVista", "MMStar", "MathVerse", "WeMath", "MMVet", "LogicVista"),
    "all": OFFICIAL,
}
"""Benchmarks of Qi et al. 2026 and of RAP, in the order of their tables, and all of them."""
SETS |= {f"shapes/{key}": tuple(f"shapes/{name}" for name in SETS[key]) for key in list(SETS)}
BUILT_IN = SETS["shapes/paper1"]
"""The built-in benchmarks of an evaluation whose settings name none."""
MINIATURES = SETS["shapes/all"]
"""All built-in benchmarks."""
TSV_FILES = {name: f"{name}.tsv" for name in OFFICIAL}
TSV_FILES |= {"MathVista": "MathVista_MINI.tsv", "MMMU": "MMMU_DEV_VAL.tsv"}
TSV_FILES["MathVerse"] = "MathVerse_MINI.tsv"
"""The name of each benchmark's file in the reference harness."""
OLD_TSV_FILES = {"MathVerse": "MathVerse_MINIV.tsv"}
"""The file's name as published, under which older versions of the harness kept it."""
MIN_PIXELS, MAX_PIXELS = 1280 * TOKEN_PIXELS, 16384 * TOKEN_PIXELS
"""Limits of the reference harness for Qwen2.5-VL: it enlarges small images to 1 megapixel."""
OCRBENCH_MIN_PIXELS = 100 * TOKEN_PIXELS  # the harness's lower limit for OCRBench
RULES = ("2025-11", "2026-08")  # dates of the harness versions whose scoring rules we implement
ItemSource = StrEnum("ItemSource", ["hub", "folder", "tsv"])
"""Where the items of official benchmarks come from. Built-in items are generated instead."""
Fallback = StrEnum("Fallback", ["wrong", "random"])
"""The score of a response in which neither the rules nor the judge find an option."""
SystemPrompt = StrEnum("SystemPrompt", ["none", "think"])
"""The system prompt of benchmark items."""
AnswerTags = StrEnum("AnswerTags", ["strip", "raw"])
"""Whether the official scorer gets only the text in <answer>, or the whole response."""
ContaminationPolicy = StrEnum("ContaminationPolicy", ["error", "warn"])
"""What happens if a selected training sample is also in a benchmark."""


@dataclass(kw_only=True, slots=True)
class ItemPaths:
    """The location of each benchmark: a .tsv file, a folder, or a hub id (ID or ID@REVISION)."""

    MathVista: str | None = None
    MMVet: str | None = None
    OCRBench: str | None = None
    HallusionBench: str | None = None
    MMMU: str | None = None
    MMStar: str | None = None
    MathVerse: str | None = None
    WeMath: str | None = None
    LogicVista: str | None = None


@dataclass(kw_only=True, slots=True)
class HarnessOverrides:
    """Deviations from the reference harness, called the reference; printed with the score.

    By default only `fallback` deviates, because the reference's random guess is not reproducible.
    """

    fallback: Fallback = Fallback.wrong
    """For MMMU, MMStar and WeMath, if three replies of the judge name no option: wrong, or a random
    option as in the reference, but the same in every run. Without a judge such items are wrong."""
    list_items: bool = False
    """true: MathVista's two items with a list as gold answer can be correct (reference: never)."""
    zero: bool = False
    """true: the rule accepts a correct 0 in MathVista (the reference leaves it to the judge)."""
    letter_golds: bool = False
    """Open MMMU questions get option A, the gold answer, and B, other answers. true: A is correct.
    false, as the reference: a gold answer that is a letter, such as C, names the correct option."""
    whole_letter: bool = False
    """true: in "answer is X", X must be one letter (2026-08 finds a C in "answer is clearly")."""
    all_periods: bool = False
    """true: HallusionBench's yes/no rule removes all periods (the reference: the first 32)."""
    kept_texts: bool = False
    """true: predictions, options and hints such as "None" or "NA" stay texts (reference: NaN)."""


@dataclass(kw_only=True, slots=True)
class EvaluateConfig:
    """Which benchmarks are evaluated, and how. If a field changes, its `fingerprint=` decides:
    ("evaluate",) grades again, () nothing; without it, responses are generated again too."""

    benchmarks: list[str] = setting(
        default_factory=lambda: list(BUILT_IN), fingerprint=("evaluate",)
    )
    """Names as in the papers' tables, or a set: paper1 (Qi et al. 2026), rap or all. Built-in
    benchmarks and their sets have the prefix shapes/."""
    source: ItemSource = setting(ItemSource.hub, fingerprint=("evaluate",))
    """Where official items are read: from the hub; in the folder `path`/NAME (parquet, save_to_disk
    or a clone of the hub's data set); or in the reference harness's file `path`/NAME.tsv."""
    path: str | None = setting(None, fingerprint=("evaluate",))
    """The folder that holds the benchmarks (source=folder or tsv)."""
    paths: ItemPaths = setting(default_factory=ItemPaths, fingerprint=("evaluate",))
    """For single benchmarks: a location to use instead of `source` and `path`."""
    allow_count_mismatch: bool = setting(False, fingerprint=("evaluate",))
    """Accept data sets with another than the official number of items; printed with the score."""
    limit: int | None = setting(
        None, fingerprint=("evaluate",), at_least=1, or_null="for all items"
    )
    """Number of items per benchmark, evenly spaced (of MathVerse and WeMath: their problems, with
    all their items; the built-in WeMath draws whole problems only); null takes all (300 of a
    built-in one)."""
    min_pixels: int | None = setting(None, at_least=TOKEN_PIXELS, rule=AREA_RULE)
    """Smaller images are enlarged to this; null: as the reference, or data.min_pixels (shapes/)."""
    max_pixels: int | None = setting(None, at_least=TOKEN_PIXELS, rule=AREA_RULE)
    """Larger images are shrunk to this; null: as the reference, or data.max_pixels (shapes/)."""
    system: SystemPrompt = SystemPrompt.think
    """think: the prompt the model was trained with; none: no system prompt."""
    answer_tags: AnswerTags = setting(AnswerTags.strip, fingerprint=("evaluate",))
    """strip gives the scorer the text in <answer>; raw gives it the whole response."""
    rules: str = setting("2025-11", fingerprint=("evaluate",))
    """Score as the reference harness did at this date: 2025-11 (Qi et al. 2026), or 2026-08."""
    harness_overrides: HarnessOverrides = setting(
        default_factory=HarnessOverrides, fingerprint=("evaluate",)
    )
    max_new_tokens: int = setting(2048, at_least=1)
    """Token limit of a response (reference harness: 2048); decoding is greedy."""
    resamples: int = setting(2000, fingerprint=("evaluate",), at_least=100)
    """Bootstrap resamples of each 95 % interval."""
    judge: JudgeKind = setting(JudgeKind.shapes, fingerprint=("evaluate",))
    """shapes judges only built-in benchmarks, without a model; endpoint is the server at
    JUDGE_BASE_URL; none: only rules score, and the share of items that they cannot is printed."""
    judge_client: JudgeClientConfig = setting(default_factory=JudgeClientConfig, fingerprint=())
    contamination: ContaminationPolicy = setting(ContaminationPolicy.error, fingerprint=())
    """error: refuse to train if a selected sample is in a benchmark to evaluate, in a shapes/paper1
    one, or in an official one found at `path` or `paths`; warn: only list such samples."""

    def __post_init__(self) -> None:
        """Replace a set by its benchmarks, so that both spellings have the same fingerprint."""
        members = [SETS.get(name, (name,)) for name in self.benchmarks]
        self.benchmarks = [name for names in members for name in names]

    def check(self) -> Problems:
        if not self.benchmarks:
            yield "benchmarks", "must name at least one benchmark"
        allowed = (*OFFICIAL, *MINIATURES, *SETS)
        for name in self.benchmarks:
            if name not in allowed:
                rule = f"is not one of {', '.join(allowed)}{did_you_mean(name, allowed)}"
                yield "benchmarks", f"{name!r} {rule}"
        yield from self._check_sources()
        if len(set(self.benchmarks)) < len(self.benchmarks):
            yield "benchmarks", "names a benchmark twice"
        if self.rules not in RULES:
            yield "rules", f"must be one of: {', '.join(RULES)}"
        if self.judge is JudgeKind.endpoint:
            yield from (("judge", rule) for rule in environment_problems())

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
            source, location = self.source_of(name)
            if source is not ItemSource.hub and not Path(location).exists():
                key = "path" if name in at_path else f"paths.{name}"
                yield key, f"there is no {name} at {location}"
        for name in self.official:
            low, high = self.pixels(name, (0, 0))  # (0, 0): only built-in ones use it
            if low > high:
                yield "min_pixels", f"{name}: min_pixels={low} is above max_pixels={high}"
                return

    @property
    def official(self) -> list[str]:
        """The requested benchmarks that are not built in."""
        return [name for name in self.benchmarks if name in OFFICIAL]

    def source_of(self, name: str) -> tuple[ItemSource, str]:
        """How an official benchmark is read, and from which hub id, folder or file."""
        if location := getattr(self.paths, name):
            path = Path(location).expanduser()
            if location.endswith(".tsv"):
                return ItemSource.tsv, str(path)
            is_local = path.is_dir() or location.startswith((".", "/", "~"))
            return (ItemSource.folder, str(path)) if is_local else (ItemSource.hub, location)
        root = Path(self.path or "").expanduser()
        if self.source is ItemSource.tsv:
            path, old_path = root / TSV_FILES[name], root / OLD_TSV_FILES.get(name, TSV_FILES[name])
            return ItemSource.tsv, str(path if path.exists() else old_path)
        if self.source is ItemSource.folder:
            hub = HUB_IDS[name]
            paths = [root / name, root / hub, root / hub.split("/")[1]]  # NAME, or a clone's folder
            folder = next((path for path in paths if path.is_dir()), paths[0])
            return ItemSource.folder, str(folder)
        return ItemSource.hub, HUB_IDS[name]

    def pixels(self, name: str, data_pixels: tuple[int, int]) -> tuple[int, int]:
        """Smallest and largest image area. `data_pixels`: defaults of the built-in benchmarks."""
        low, high = data_pixels
        if name in OFFICIAL:
            low = OCRBENCH_MIN_PIXELS if name == "OCRBench" else MIN_PIXELS
            high = MAX_PIXELS
        return self.min_pixels or low, self.max_pixels or high

    def built_in_problems(self, data_pixels: tuple[int, int]) -> Problems:
        """The problem if the smallest image area of shapes/ benchmarks is above the largest."""
        low, high = self.pixels(BUILT_IN[0], data_pixels)
        keys = [key for key in ("min_pixels", "max_pixels") if getattr(self, key) is not None]
        has_built_in = len(self.official) < len(self.benchmarks)
        if keys and low > high and has_built_in:
            defaults = "null takes data.min_pixels={} or data.max_pixels={}".format(*data_pixels)
            rule = f"shapes/ benchmarks: min_pixels={low} is above max_pixels={high} ({defaults})"
            yield keys[0], rule

    @property
    def also_on_disk(self) -> list[str]:
        """Official benchmarks that are not requested but exist locally, at `path` or in `paths`."""
        on_disk = []
        for name in OFFICIAL:
            source, location = self.source_of(name)
            is_local = bool(getattr(self.paths, name) or self.path) and source is not ItemSource.hub
            if name not in self.benchmarks and is_local and Path(location).exists():
                on_disk.append(name)
        return on_disk

    def items_identity(self, names: Sequence[str] | None = None) -> list[list[str]]:
        """Of each named benchmark (default: the requested official ones) [name, hub id] or, if it
        is local, [name, source, fingerprint of its files]."""
        identities = []
        for name in self.official if names is None else names:
            source, location = self.source_of(name)
            if source is ItemSource.hub:
                identities.append([name, location])
                continue
            files = sorted(file for file in Path(location).rglob("*") if file.is_file())
            # A location that is a file has no files below it.
            stats = [(file, file.stat()) for file in files or [Path(location)]]
            fingerprints = [_cached_fingerprint(f, s.st_size, s.st_mtime_ns) for f, s in stats]
            identities.append([name, str(source), manifest.fingerprint(fingerprints)])
        return identities


@cache
def _cached_fingerprint(path: Path, size: int, mtime_ns: int) -> str:
    """A file's fingerprint; computed again only if the size or the modification time differs."""
    return manifest.file_fingerprint(path)
