"""Parquet parts: records, lazy images, part names; fingerprints and the manifest.

Axes of attention: L decoder layers, T response tokens.
"""

import pickle
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.parquet import LazyImages
from difftrain.records import (
    AnswerKind,
    Attention,
    Measure,
    Rollout,
    Sample,
    Score,
    Selection,
    Stratum,
    TaskSet,
    TrainStage,
    Verdict,
    View,
)

ROLLOUT = Rollout(
    sample_id="ab",
    view=View.masked,
    mask_percent=30,
    draw=2,
    seed=2**32 - 1,
    response="<answer>3</answer>",
    num_tokens=3,
    token_ids=(1, 2, 3),
    hit_eos=True,
    verdict=Verdict.unparsable,
)
SCORES = [
    Score(sample_id="ab", measure=Measure.pism, value=None, stratum=Stratum.easy),
    Score(sample_id="cd", measure=Measure.cmab, value=0.1, stratum=None),
]


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    parquet.write_part(tmp_path, "0", [ROLLOUT])
    assert parquet.read_rows(tmp_path, Rollout) == [ROLLOUT]


def test_missing_values_are_read_back_as_none(tmp_path: Path) -> None:
    parquet.write_part(tmp_path, "0", SCORES)
    assert parquet.read_rows(tmp_path, Score) == SCORES


def test_nested_tuples_of_attention_keep_their_shape(tmp_path: Path) -> None:
    row = Attention(
        sample_id="ab",
        draw=0,
        image_tokens=16,
        text_tokens=9,
        image_LT=((0.5, 0.25), (0.125, 0.0)),
        text_LT=((0.5, 0.25), (0.125, 1.0)),
    )
    parquet.write_part(tmp_path, "0", [row])
    assert parquet.read_rows(tmp_path, Attention) == [row]


def test_the_error_for_a_file_with_wrong_columns_lists_both_column_sets(tmp_path: Path) -> None:
    pq.write_table(pa.table({"sample_id": ["ab"]}), tmp_path / "part-0.parquet")
    with pytest.raises(parquet.SchemaError, match=r"holds \['sample_id'\], but Score needs"):
        parquet.read_rows(tmp_path, Score)


def test_the_error_for_a_missing_stage_names_the_command_that_makes_it(tmp_path: Path) -> None:
    parquet.write_part(tmp_path, "0", SCORES)
    with pytest.raises(parquet.MissingArtifact, match=r"run  python launch/score\.py"):
        parquet.read_finished(tmp_path, Score, made_by="python launch/score.py")


def test_an_empty_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one record"):
        parquet.write_part(tmp_path, "0", [])


def test_a_write_that_fails_leaves_no_part(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Record:
        sample_id: int

    with pytest.raises(OverflowError):
        parquet.write_part(tmp_path, "0", [Record(sample_id=2**70)])  # more than 64 bits
    assert list(tmp_path.iterdir()) == []


def test_part_names_contain_the_rank_and_a_number_that_counts_up(tmp_path: Path) -> None:
    first = parquet.next_part_name(tmp_path, 1)
    parquet.write_part(tmp_path, first, SCORES)
    assert parquet.next_part_name(tmp_path, 1).startswith("r001-00001-")  # rank 1, second part
    assert parquet.next_part_name(tmp_path, 0).startswith("r000-00000-")


def test_two_processes_with_the_same_rank_get_different_part_names(tmp_path: Path) -> None:
    assert parquet.next_part_name(tmp_path, 0) != parquet.next_part_name(tmp_path, 0)


def test_single_columns_of_a_part_can_be_read(tmp_path: Path) -> None:
    part = parquet.write_part(tmp_path, "0", SCORES)
    (ids,) = parquet.read_columns(part, ("sample_id",))
    assert ids == [score.sample_id for score in SCORES]


def test_many_rows_become_several_parts_in_order(tmp_path: Path) -> None:
    rows = [Selection(sample_id=f"{n:03d}", stage=TrainStage.grpo, reason="") for n in range(25)]
    assert parquet.write_all(tmp_path, rows, rows_per_part=10) == 25
    assert len(parquet.parts(tmp_path)) == 3
    assert [row.sample_id for row in parquet.read_rows(tmp_path, Selection)] == [
        f"{n:03d}" for n in range(25)
    ]


def test_a_fingerprint_changes_with_settings_and_inputs_only() -> None:
    base = manifest.fingerprint({"tau": 0.1, "k": 2}, "aa")
    assert base == manifest.fingerprint({"k": 2, "tau": 0.1}, "aa")
    assert base != manifest.fingerprint({"tau": 0.2, "k": 2}, "aa")
    assert base != manifest.fingerprint({"tau": 0.1, "k": 2}, "ab")


def test_a_folder_is_unfinished_until_its_manifest_exists(tmp_path: Path) -> None:
    assert manifest.read_manifest(tmp_path) is None
    manifest.write_manifest(tmp_path, settings={}, inputs={}, seconds=1.5, counts={"rows": 2})
    content = manifest.read_manifest(tmp_path)
    assert content is not None
    assert content["counts"] == {"rows": 2}
    assert {"torch", "transformers", "trl"} <= content["versions"].keys()


def test_the_fingerprint_of_a_model_folder_changes_with_its_weights(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"0" * 100)
    before = manifest.folder_fingerprint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"0" * 99 + b"1")
    assert manifest.folder_fingerprint(tmp_path) != before


def sample_with_images(number: int, *images: bytes) -> Sample:
    """A sample whose id is the number, with these images."""
    return Sample(
        sample_id=f"{number:016x}",
        images=images,
        question="?",
        answer="1",
        answer_kind=AnswerKind.count,
        task="t",
        task_set=TaskSet.reasoning,
        source="s",
    )


def test_images_are_read_lazily_and_are_equal_at_each_access(tmp_path: Path) -> None:
    # Two images of 700 kB do not fit into one row group of 1 MB.
    samples = [sample_with_images(n, *([bytes([n]) * 700_000] * (n % 3))) for n in range(7)]
    parquet.write_all(tmp_path, samples, rows_per_part=4)
    samples_read = parquet.read_rows(tmp_path, Sample)
    assert all(isinstance(sample.images, LazyImages) for sample in samples_read)
    assert samples_read == samples
    assert [len(sample.images) for sample in samples_read] == [0, 1, 2, 0, 1, 2, 0]
    assert samples_read[5].images[1] == samples[5].images[1]
    copied = pickle.loads(pickle.dumps(samples_read[4]))
    assert copied == samples[4]


def test_one_access_reads_about_a_megabyte(tmp_path: Path) -> None:
    parquet.write_part(tmp_path, "0", [sample_with_images(n, bytes(400_000)) for n in range(10)])
    file = pq.ParquetFile(tmp_path / "part-0.parquet")
    assert {file.metadata.row_group(i).num_rows for i in range(5)} == {2}  # 2 x 400 kB


def test_a_part_ends_before_its_images_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "PART_BYTES", 1000)  # exceeded by the third image of 400 bytes
    parquet.write_all(tmp_path, [sample_with_images(n, bytes(400)) for n in range(7)])
    assert [len(parquet.read_part(part, Sample)) for part in parquet.parts(tmp_path)] == [3, 3, 1]


def test_writing_a_part_keeps_only_one_row_group_in_arrow_memory(tmp_path: Path) -> None:
    samples = [sample_with_images(n, bytes([n]) * parquet.GROUP_BYTES) for n in range(30)]
    default_pool = pa.default_memory_pool()
    counting_pool = pa.proxy_memory_pool(default_pool)
    pa.set_memory_pool(counting_pool)
    try:
        parquet.write_part(tmp_path, "0", samples)
    finally:
        pa.set_memory_pool(default_pool)
    # One group and its copies, instead of the 30 groups that are written.
    assert counting_pool.max_memory() < 4 * parquet.GROUP_BYTES
    assert parquet.read_rows(tmp_path, Sample) == samples


def test_images_of_a_part_that_was_written_again_are_not_read_from_the_cache(
    tmp_path: Path,
) -> None:
    for content in (b"old", b"new"):
        parquet.write_part(tmp_path, "0", [sample_with_images(0, content)])
        assert parquet.read_rows(tmp_path, Sample)[0].images[0] == content
