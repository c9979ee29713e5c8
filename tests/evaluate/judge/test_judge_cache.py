"""The cache of the judge's replies, with several writers, killed writers and a full disk.

Each writer appends its replies to a file of its own, one JSON object per line.
"""

import json
import signal
import subprocess
import sys
import time
from io import FileIO
from pathlib import Path
from threading import Thread

import pytest

from difftrain.config.judge import JudgeKind, server_hash
from difftrain.config.run_config import RunConfig
from difftrain.evaluate.judge import ReplyCache, cache_key, read_entries
from difftrain.pipeline.paths import RunPaths

WRITE_ENDLESSLY = """
import sys
from pathlib import Path
from difftrain.evaluate.judge import ReplyCache
cache, name, number = ReplyCache(Path(sys.argv[1])), sys.argv[2], 0
while True:
    cache.add(f"{name}-{number}", "reply " * 2000 + str(number))
    number += 1
"""


def test_a_reply_stored_by_one_process_is_read_by_the_next(tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path)
    cache.add("k", "Yes\nand \x00 no \ud800", model="m")  # \ud800: half a surrogate pair
    cache.close()
    assert ReplyCache(tmp_path).get("k") == "Yes\nand \x00 no \ud800"
    assert ReplyCache(tmp_path).get("other") is None


def test_reading_creates_no_file(tmp_path: Path) -> None:
    ReplyCache(tmp_path / "judge").get("k")
    assert not (tmp_path / "judge").exists()


def test_a_second_reply_does_not_replace_the_first(tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path)
    assert cache.add("k", "one") == "one"
    assert cache.add("k", "two") == "one"
    assert ReplyCache(tmp_path).get("k") == "one"


def test_a_partial_line_is_skipped_and_damages_no_other_line(tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path)
    cache.add("a", "1")
    (path,) = tmp_path.iterdir()
    with path.open("ab") as file:
        file.write(b'\n{"key": "torn", "reply": "hal')
    cache.add("b", "2")
    (tmp_path / "replies-other.jsonl").write_bytes(
        b'\n{"key": 3}\n[]\n"x"\n\xff\xfe\n{"key": "c", "re'
    )
    reopened = ReplyCache(tmp_path)
    assert [reopened.get(key) for key in ("a", "torn", "b", "c")] == ["1", None, "2", None]


def test_no_stored_reply_is_lost_if_parallel_writers_are_killed(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITE_ENDLESSLY, str(tmp_path), name])
        for name in "ab"
    ]
    try:
        deadline = time.time() + 120
        while True:
            sizes = [path.stat().st_size for path in tmp_path.iterdir()]
            if len(sizes) == len(writers) and min(sizes) > 1_000_000:
                break
            assert time.time() < deadline, sizes
            time.sleep(0.01)
    finally:
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    reopened = ReplyCache(tmp_path)
    for path in files:
        entries = read_entries(path)
        name = entries[0]["key"][0]  # the key is `a-0` or `b-0`
        assert [entry["key"] for entry in entries] == [f"{name}-{n}" for n in range(len(entries))]
        # At most one line was cut off; the first line of a file is empty.
        assert len(path.read_bytes().split(b"\n")) - len(entries) in (1, 2)
        last = entries[-1]
        assert reopened.get(last["key"]) == last["reply"]


def test_threads_share_one_file_without_mixing_lines(tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path)

    def add(name: str) -> None:
        for number in range(200):
            cache.add(f"{name}{number}", name * 500)

    threads = [Thread(target=add, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (path,) = tmp_path.iterdir()
    assert len(read_entries(path)) == 4 * 200  # threads, replies of a thread


def test_a_line_that_cannot_be_written_completely_is_an_error(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    cache = ReplyCache(tmp_path)
    cache._file = FileIO("/dev/full", "w")  # a write to /dev/full fails as on a full disk
    with pytest.raises(OSError, match="No space left"):
        cache.add("k", "reply")
    assert cache.get("k") is None


def test_every_part_of_a_call_is_part_of_its_key() -> None:
    calls = [  # server, model, prompt, temperature, max_tokens, attempt
        ("s", "m", "p", 0.0, 3, 0),
        ("t", "m", "p", 0.0, 3, 0),
        ("s", "n", "p", 0.0, 3, 0),
        ("s", "m", "q", 0.0, 3, 0),
        ("s", "m", "p", 0.5, 3, 0),
        ("s", "m", "p", 0.0, 4, 0),
        ("s", "m", "p", 0.0, 3, 1),
    ]
    assert len({cache_key(*call) for call in calls}) == len(calls)
    assert cache_key("s", "m", "p", 0, 3, 0) == cache_key("s", "m", "p", 0.0, 3, 0)
    assert json.loads(json.dumps(cache_key(*calls[0]))) == cache_key(*calls[0])


def test_two_servers_share_neither_replies_nor_results(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JUDGE_MODEL", "default")
    keys, folders = [], []
    # The first two addresses are those of one server.
    for url in ("http://one:1/v1", "http://me:secret@ONE:1/v1/", "http://two:1/v1"):
        monkeypatch.setenv("JUDGE_BASE_URL", url)
        server = server_hash(JudgeKind.endpoint)
        assert server is not None
        assert "one" not in server  # the hash does not show the address
        keys.append(cache_key(server, "default", "p", 0.0, 9, 0))
        config = RunConfig(output_dir=str(tmp_path))
        config.evaluate.judge = JudgeKind.endpoint
        folders.append(RunPaths(config).evaluation("base"))
    assert keys[0] == keys[1] != keys[2]
    assert folders[0] == folders[1] != folders[2]
    assert server_hash(JudgeKind.none) is None
