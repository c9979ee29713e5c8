"""Images by content: processed once, kept in memory or on disk."""

from pathlib import Path

import pytest
import torch

from difftrain.train import image_cache
from difftrain.train.image_cache import TensorStore

VALUES = {name: torch.full((4,), float(i)) for i, name in enumerate("abcd")}
TWO = 2 * VALUES["a"].nbytes


def filled(store: TensorStore) -> TensorStore:
    for name, tensor in VALUES.items():
        store[name] = tensor
    return store


def test_the_memory_holds_the_last_used_tensors() -> None:
    store = TensorStore(TWO)
    store["a"], store["b"] = VALUES["a"], VALUES["b"]
    assert store.get("a") is VALUES["a"]
    store["c"] = VALUES["c"]
    assert store.get("b") is None
    assert [*store.tensors] == ["a", "c"]
    assert store.num_bytes == TWO


def test_what_does_not_fit_in_memory_is_read_from_disk(tmp_path: Path) -> None:
    store = filled(TensorStore(TWO, tmp_path))
    assert [*store.tensors] == ["c", "d"]
    for name, tensor in VALUES.items():
        stored = store.get(name)
        assert stored is not None
        assert torch.equal(stored, tensor)
        assert store.num_bytes <= TWO


def test_protected_tensors_stay_in_memory_beyond_the_bound() -> None:
    store = TensorStore(TWO, protected={"a", "b"})
    filled(store)
    assert [*store.tensors] == ["a", "b"]


def test_a_damaged_file_counts_as_not_stored(tmp_path: Path) -> None:
    store = filled(TensorStore(TWO, tmp_path))
    (tmp_path / "a.safetensors").write_bytes(b"cut")
    assert store.get("a") is None
    assert store.get("b") is not None


def test_the_disk_holds_no_more_than_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_cache, "MAX_DISK_BYTES", VALUES["a"].nbytes)
    filled(TensorStore(TWO, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_without_a_writable_folder_the_tensors_are_computed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    store = filled(TensorStore(TWO, tmp_path / "file"))
    assert store.get("a") is None
    assert caplog.text.count("image features are not stored on disk") == 1
