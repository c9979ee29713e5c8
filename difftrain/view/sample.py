"""Reads what the page of one sample shows: its fields, images, responses, attention and training.

A masked image is drawn again from the probe's seeds, so it is the image that the model got.
"""

import io
from dataclasses import asdict
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from difftrain import images
from difftrain.config.difficulty import CmabConfig, MaskKind, ProbeConfig
from difftrain.data.prompts import LETTERS
from difftrain.pipeline import parquet
from difftrain.probe import views
from difftrain.probe.run import sampling_seed, view_spec
from difftrain.probe.schedule import ProbeRequest
from difftrain.records import Attention, Rollout, Sample, View
from difftrain.report.inputs import json_lines
from difftrain.view.folders import ViewFolders
from difftrain.view.index import SampleIndex

THUMBNAIL_SIDE = 320  # pixels
CACHED_THUMBNAILS = 2000
REWARD = "rewards/accuracy/mean"  # in train_log.jsonl; with /TASK or /STRATUM, of a subset


def layer_ratios(image_LT: np.ndarray, text_LT: np.ndarray, epsilon: float) -> list[float]:
    """CMAB's ratio of each layer: image over text attention, geometric mean over response tokens.

    Axes: L layers, T response tokens. The measure itself averages over inner layers first
    (Qi et al. 2026, Eq. 4).
    """
    return np.exp(np.log(image_LT / text_LT + epsilon).mean(axis=1)).tolist()


class SampleReader:
    """Reads single samples of a run. Unknown ids raise KeyError."""

    def __init__(self, folders: ViewFolders, index: SampleIndex) -> None:
        self.folders, self.index = folders, index
        settings = folders.probe_manifest["settings"]
        self.seed = int(settings["seed"])
        self.probe = ProbeConfig(
            mask_percents=list(settings["mask_percents"]),
            mask=MaskKind(settings["mask"]),
            nested=bool(settings["nested"]),
        )
        self.thumbnail = lru_cache(CACHED_THUMBNAILS)(self._thumbnail)

    def sample(self, sample_id: str) -> Sample:
        """The sample; its images are read when they are accessed."""
        location = self.index.location(sample_id)
        if location is None:
            raise KeyError(sample_id)
        path, row = location
        return parquet.read_rows_at(path, Sample, [row])[0]

    def rollouts(self, sample_id: str) -> list[Rollout]:
        """The probe's responses to a sample, by view, mask ratio and draw."""
        locations = self.index.rollout_locations(sample_id).items()
        rows = [
            row for path, rows in locations for row in parquet.read_rows_at(path, Rollout, rows)
        ]
        views_in_order = list(View)
        return sorted(
            rows, key=lambda row: (views_in_order.index(row.view), row.mask_percent, row.draw)
        )

    def _thumbnail(self, sample_id: str) -> bytes:
        """A JPEG of the sample's first image; a gray one if the sample has no image."""
        pngs = self.sample(sample_id).images
        image = images.from_png(pngs[0]) if len(pngs) else Image.new("RGB", (28, 28), "#888888")
        image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "JPEG", quality=85)
        return buffer.getvalue()

    def image(self, sample_id: str, number: int, percent: int = 0, draw: int = 0) -> bytes:
        """A PNG of the sample's image `number` as the probe masked it for this draw.

        Raises KeyError if the sample has no such image or the probe has no such mask ratio.
        """
        sample = self.sample(sample_id)
        if not 0 <= number < len(sample.images):
            raise KeyError(f"{sample_id} has no image {number}")
        if percent == 0:
            return sample.images[number]
        if percent not in self.probe.mask_percents or draw < 0:
            raise KeyError(f"the probe has no mask ratio {percent} %, draw {draw}")
        view = views.prepare(view_spec(ProbeRequest(sample, percent, draw), self.probe, self.seed))
        return images.to_png(view[number])  # pyright: ignore[reportArgumentType]  # a PIL image

    def describe(self, sample_id: str) -> dict[str, Any]:
        """Everything on the sample's page except its images, ready for JSON."""
        sample = self.sample(sample_id)
        fields = {
            name: getattr(sample, name)
            for name in ("sample_id", "question", "answer", "accepted", "answer_kind", "task",
                         "task_set", "source", "requires_image", "gen_difficulty", "rationale")
        }  # fmt: skip
        scores = self.index.scores(sample_id)
        return {
            "sample": fields,
            "options": list(zip(LETTERS, sample.options, strict=False)),
            "image_sizes": [Image.open(io.BytesIO(png)).size for png in sample.images],
            "mask_percents": self.probe.mask_percents,
            "scores": scores,
            "selections": self.index.selections(sample_id),
            "rollouts": [self._rollout(sample, row) for row in self.rollouts(sample_id)],
            "attention": self.attention(sample_id),
            "training": self.training(sample, [row["stratum"] for row in scores if row["stratum"]]),
        }

    def _rollout(self, sample: Sample, rollout: Rollout) -> dict[str, Any]:
        """A response for the page. `same_seed`: its seed is the one that the masks follow from."""
        request = ProbeRequest(
            sample, rollout.mask_percent, rollout.draw, rollout.view is View.text_only
        )
        row = asdict(rollout)
        del row["token_ids"], row["sample_id"]
        return row | {"same_seed": sampling_seed(self.seed, request) == rollout.seed}

    @cached_property
    def _attention_rows(self) -> dict[str, list[tuple[Path, int]]]:
        """Sample id -> the parts and rows that hold its attention."""
        rows: dict[str, list[tuple[Path, int]]] = {}
        for path in parquet.parts(self.folders.attention) if self.folders.attention else []:
            ids = pq.ParquetFile(path).read(columns=["sample_id"]).column(0).to_pylist()
            for row, sample_id in enumerate(ids):
                rows.setdefault(sample_id, []).append((path, row))
        return rows

    def attention(self, sample_id: str) -> list[dict[str, Any]]:
        """For each response whose attention was measured, CMAB's ratio by layer."""
        result = []
        for path, row in self._attention_rows.get(sample_id, []):
            (record,) = parquet.read_rows_at(path, Attention, [row])
            arrays = np.array(record.image_LT), np.array(record.text_LT)
            result.append({
                "draw": record.draw,
                "layers": layer_ratios(*arrays, CmabConfig().epsilon),
                "max_log_psi": record.max_log_psi,
            })  # fmt: skip
        return result

    def training(self, sample: Sample, strata: list[str]) -> list[dict[str, Any]]:
        """The logged rewards of the trainings that used the sample.

        The logs have the mean over a step's completions, over all of them and by task and stratum.
        """
        names = {row["name"] for row in self.index.selections(sample.sample_id)}
        result = []
        for name, folder in self.folders.training.items():
            steps = json_lines(folder / "train_log.jsonl") if name in names else []
            if not steps:
                continue
            curves = {}
            for subset in ("", sample.task, *dict.fromkeys(strata)):
                key = f"{REWARD}/{subset}" if subset else REWARD
                points = [(step["step"], step[key]) for step in steps if key in step]
                if points:
                    curves[subset or "all samples"] = points
            rollouts = train_rollouts(folder, sample.sample_id)
            row = {"name": name, "curves": curves, "steps": len(steps), "rollouts": rollouts}
            result.append(row)
        return result


def train_rollouts(folder: Path, sample_id: str) -> list[dict[str, Any]]:
    """What the model answered to a sample while it was trained, by step (train/rollout_log.py)."""
    rows = [
        row
        for path in folder.glob("rollouts-*.parquet")
        for row in pq.read_table(path, filters=[("sample_id", "=", sample_id)]).to_pylist()
    ]
    return sorted(rows, key=lambda row: row["step"])
