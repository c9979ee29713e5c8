"""Finds the stage folders that belong to a run (outputs/run/...) or to scores (outputs/score/...).

Only files inside these folders can be read through the explorer. Folder names come from report.json
and manifest.json; a name that would lead out of the output folder is refused.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf

from difftrain.pipeline import manifest
from difftrain.pipeline.parquet import MissingArtifact, SchemaError

S = TypeVar("S")
REPORT = "report.json"
FOLDER_NAME = re.compile(r"\w[\w.-]*")
# The folder under output_dir of a stage whose name in report.json is different.
KINDS = {"select_sft": "select", "sft": "train", "retest": "reliability"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewFolders:
    """The stage folders to show. `settings` are the run's; None for scores without a run.

    The keys of `selections` and `training` are `tuned` or `tuned sft`, those of `evaluations` arms.
    """

    title: str
    root: Path
    settings: dict[str, Any] | None
    data: Path
    probe: Path
    score: Path
    attention: Path | None = None
    selections: dict[str, Path] = field(default_factory=dict)
    training: dict[str, Path] = field(default_factory=dict)
    evaluations: dict[str, Path] = field(default_factory=dict)

    @property
    def probe_manifest(self) -> dict[str, Any]:
        """The probe's manifest: its settings with the run's seed, and its model's fingerprint."""
        return manifest.read_json(self.probe / manifest.MANIFEST)


def settings_section(folders: ViewFolders, name: str, section: type[S]) -> S:
    """A section of the run's settings, such as `model`. There must be a run."""
    assert folders.settings is not None, "scores alone have no settings"
    merged = OmegaConf.merge(OmegaConf.structured(section), folders.settings[name])
    result = OmegaConf.to_object(merged)
    assert isinstance(result, section)
    return result


def find_folders(path: Path) -> ViewFolders:
    """The folders of a finished run or of finished scores.

    Raises MissingArtifact if `path` is neither or if a stage that it needs is missing, and
    SchemaError if a folder's name is not valid.
    """
    path = path.expanduser().resolve()
    if (path / REPORT).is_file():
        return _folders_of_run(path)
    if path.parent.name == "score" and (path / manifest.MANIFEST).is_file():
        return _folders_of_scores(path)
    raise MissingArtifact(
        f"{path} is neither a finished run (OUTPUT/run/NAME, with {REPORT}) nor finished scores "
        f"(OUTPUT/score/NAME, with {manifest.MANIFEST}); OUTPUT is output_dir, by default outputs"
    )


def newest_folder(output_dir: Path) -> Path:
    """The run or scores that finished last. Raises MissingArtifact if there are none."""
    root = output_dir.expanduser()
    files = [*root.glob(f"run/*/{REPORT}"), *root.glob(f"score/*/{manifest.MANIFEST}")]
    if not files:
        raise MissingArtifact(
            f"no finished run or scores below {root}: run  python launch/score.py  first, or name "
            "a folder: difftrain view OUTPUT/run/NAME"
        )
    return max(files, key=lambda path: path.stat().st_mtime).parent


def _stage_folder(output_dir: Path, kind: str, name: str) -> Path:
    if not FOLDER_NAME.fullmatch(name):
        raise SchemaError(f"{output_dir}: {name!r} cannot be the name of a {kind} folder")
    return output_dir / kind / name


def _require(stages: dict[str, Path], where: Path) -> None:
    for stage in ("data", "probe", "score"):
        if stage not in stages or not (stages[stage] / manifest.MANIFEST).is_file():
            raise MissingArtifact(f"{where}: its stage {stage} is missing or unfinished")


def _folders_of_run(path: Path) -> ViewFolders:
    report, output_dir = manifest.read_json(path / REPORT), path.parent.parent
    stages: dict[str, Path] = {}
    for stage, row in report["stages"].items():
        kind = str(stage).split()[0]
        stages[stage] = _stage_folder(output_dir, KINDS.get(kind, kind), row["folder"])
    _require(stages, path)

    def by_arm(kind: str, suffix: str = "") -> dict[str, Path]:
        return {
            f"{stage.split()[1]}{suffix}": folder
            for stage, folder in stages.items()
            if stage.split()[0] == kind and folder.is_dir()
        }

    attention = stages.get("attention")
    return ViewFolders(
        title=path.name,
        root=path,
        settings=report["settings"],
        data=stages["data"],
        probe=stages["probe"],
        score=stages["score"],
        attention=attention if attention and attention.is_dir() else None,
        selections=by_arm("select_sft", " sft") | by_arm("select"),
        training=by_arm("sft", " sft") | by_arm("train"),
        evaluations=by_arm("evaluate"),
    )


def _folders_of_scores(path: Path) -> ViewFolders:
    output_dir, inputs = path.parent.parent, manifest.read_json(path / manifest.MANIFEST)["inputs"]
    stages = {stage: _stage_folder(output_dir, stage, name) for stage, name in inputs.items()}
    stages["score"] = path
    _require(stages, path)

    def made_from(kind: str, source: Path) -> dict[Path, dict[str, Any]]:
        manifests = {
            folder: manifest.read_manifest(folder) or {"inputs": {}}
            for folder in sorted((output_dir / kind).glob("*"))
        }
        stage, name = source.parent.name, source.name
        return {key: row for key, row in manifests.items() if row["inputs"].get(stage) == name}

    selections: dict[str, Path] = {}
    for folder, content in made_from("select", path).items():
        settings = content["settings"]
        strata = settings["sft_strata"] if "targets" in settings else settings["strata"]
        chosen_by = "+".join(strata or settings["rap"]) or "ids"
        stage = " sft" if "targets" in settings else ""
        selections[f"{settings['arm']}{stage} ({chosen_by}, {folder.name[:6]})"] = folder
    return ViewFolders(
        title=f"scores {path.name}",
        root=path,
        settings=None,
        data=stages["data"],
        probe=stages["probe"],
        score=path,
        attention=next(iter(made_from("attention", stages["probe"])), None),
        selections=selections,
    )
