"""A hub dataset is read over HTTP: the real hub client talks to a small local server."""

import json
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi, HfFileSystem, constants

from difftrain.config.data import DataConfig, Source
from difftrain.data import dataset, storage
from difftrain.data.storage import HubUnavailable
from difftrain.records import Sample
from tests.data.small_files import write_jsonl

COMMIT = "0123456789abcdef" * 2 + "01234567"  # 40 hex digits
REPOSITORY = "owner/name"


class HubStandIn(BaseHTTPRequestHandler):
    """Serves one folder as a dataset, with the requests of the hub that its client needs.

    These are the dataset's commit, its file tree, information on paths, and ranges of files.
    """

    root: Path
    requests: list[str]  # the files that were requested, in order, maybe in pieces

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    def entry(self, path: Path) -> dict[str, object]:
        """What the hub says about a file or folder."""
        name = path.relative_to(self.root).as_posix()
        entry_type = "file" if path.is_file() else "directory"
        return {"type": entry_type, "oid": "0" * 40, "size": path.stat().st_size, "path": name}

    def send_json(self, result: object) -> None:
        body = json.dumps(result).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """Answer paths-info, whose body is JSON or a form: the entries of the paths that exist."""
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        names = json.loads(text)["paths"] if text.startswith("{") else []
        if not names:
            pairs = [pair for pair in text.split("&") if pair.startswith("paths")]
            names = [unquote(pair.split("=", 1)[1]) for pair in pairs]
        paths = [self.root / name for name in names]
        self.send_json([self.entry(path) for path in paths if path.exists()])

    def do_HEAD(self) -> None:
        self.send_file(with_body=False)

    def do_GET(self) -> None:
        """Answer with a file, the file tree or the dataset's commit; another dataset is unknown."""
        path = unquote(urlsplit(self.path).path)
        if not path.removeprefix("/api").startswith(f"/datasets/{REPOSITORY}"):
            self.send_error(404)
        elif "/resolve/" in path:
            self.send_file(with_body=True)
        elif "/tree/" in path:
            self.send_json([self.entry(path) for path in sorted(self.root.rglob("*"))])
        else:
            self.send_json(
                {"id": REPOSITORY, "sha": COMMIT, "siblings": [], "tags": [], "private": False}
            )

    def send_file(self, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        name = path.split("/resolve/", 1)[1].split("/", 1)[1]  # /datasets/ID/resolve/REVISION/NAME
        content = (self.root / name).read_bytes()
        start, end = 0, len(content)
        if byte_range := self.headers.get("Range"):  # bytes=FIRST-LAST, or bytes=FIRST-
            first, _, last = byte_range.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last) + 1 if last else end, end)
        if with_body:
            self.requests.append(name)
        self.send_response(206 if byte_range else 200)
        self.send_header("Content-Length", str(end - start))
        self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.send_header("ETag", '"0"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(content[start:end])


@pytest.fixture
def hub(tmp_path, encode, red_square, monkeypatch) -> Iterator[type[HubStandIn]]:
    """Points the hub client to a server whose one dataset is tmp_path; gives its handler class."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(encode(red_square))
    row = {"images": ["images/a.png"], "problem": "<image>How many?", "answer": "1"}
    write_jsonl(tmp_path / "train.jsonl", [row, {**row, "images": ["images/none.png"]}])
    write_jsonl(tmp_path / "test.jsonl", [row])

    class Served(HubStandIn):
        root = tmp_path
        requests: ClassVar[list[str]] = []

    server = ThreadingHTTPServer(("127.0.0.1", 0), Served)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(storage, "HfFileSystem", lambda: HfFileSystem(endpoint=address))
    monkeypatch.setattr(storage, "HfApi", lambda: HfApi(endpoint=address))
    storage.hub_files.cache_clear()  # its result belongs to another test's server
    yield Served
    server.shutdown()
    server.server_close()
    storage.hub_files.cache_clear()


def test_rows_and_images_of_a_hub_dataset_are_read_over_http(hub):
    config = DataConfig(source=Source.easyr1, path=REPOSITORY)
    result, missing = dataset.load_samples(config)
    assert isinstance(result, Sample)
    assert (result.source, result.answer) == ("train.jsonl:1", "1")
    assert missing.reason.startswith(
        "missing file: images/none.png (looked in datasets/owner/name)"
    )
    assert dataset.inputs(config) == {REPOSITORY: COMMIT}


def test_rows_of_a_hub_dataset_are_recognized_by_their_columns(hub, encode, red_square):
    row = {"image": encode(red_square), "question": "How many?", "answer": "2"}
    table = pa.Table.from_pylist([row])
    path = hub.root / "train.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    (hub.root / "train.csv").write_text("image,question,answer\nimages/a.png,How many?,3\n")
    result = dataset.load_samples(DataConfig(source=Source.auto, path=REPOSITORY))
    answers = [row.answer for row in result if isinstance(row, Sample)]
    assert answers == ["2", "3", "1"]  # train.arrow, train.csv, train.jsonl


def test_only_the_parquet_files_of_the_split_are_read_from_the_hub(hub, encode, red_square):
    row = {"images": [{"bytes": encode(red_square), "path": None}], "problem": "<image>Find x."}
    for split in ("train", "test"):
        path = hub.root / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist([{**row, "answer": f"in {split}"}]), path)
    (result,) = dataset.load_samples(
        DataConfig(source=Source.geometry3k, path=REPOSITORY, split="test")
    )
    assert isinstance(result, Sample)
    assert (result.source, result.answer) == ("data/test-00000-of-00001.parquet:1", "in test")


def test_the_error_for_an_unknown_hub_dataset_suggests_a_local_folder(hub):
    with pytest.raises(HubUnavailable, match=r"data\.path=FOLDER"):
        list(dataset.load_samples(DataConfig(source=Source.easyr1, path="owner/other")))


def test_mm_eureka_is_read_from_the_hub_and_its_zips_are_downloaded_once(
    hub, encode, red_square, tmp_path_factory, monkeypatch
):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path_factory.mktemp("cache")))
    names = [f"{number:064x}.png" for number in range(20)]
    with zipfile.ZipFile(hub.root / "K12.zip", "w") as archive:
        for name in names:
            archive.writestr(f"mnt/far/dataset/report_data/K12/{name}", encode(red_square))
    turns = [{"role": "system", "content": "Solve."}, {"role": "user", "content": "Question: 3+4?"}]
    write_jsonl(hub.root / "dataset.jsonl", [
        {"id": name, "conversations": turns, "answer": f"${i}$", "image_urls": [f"K12/{name}"]}
        for i, name in enumerate(names)
    ])  # fmt: skip
    (hub.root / "train.jsonl").unlink()  # a file of the other tests
    config = DataConfig(source=Source.mm_eureka, path=REPOSITORY)
    samples = [row for row in dataset.load_samples(config) if isinstance(row, Sample)]
    assert [row.answer for row in samples] == [f"${i}$" for i in range(20)]
    requests = hub.requests.count("K12.zip")
    assert requests == 1, hub.requests
