"""The explorer's server answers one browser with a token, and shows what the run's files hold."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from difftrain import seeds
from difftrain.config.run_config import ConfigError, RunConfig
from difftrain.pipeline.manifest import MANIFEST
from difftrain.pipeline.parquet import MissingArtifact, SchemaError
from difftrain.probe import masks
from difftrain.view.folders import REPORT, find_folders, newest_folder
from difftrain.view.server import Explorer, serve
from tests.view.toy_run import BENCHMARK, HOSTILE, SEED, toy_samples

SIZE = 60


def ids_of(client: TestClient, query: str = "") -> list[str]:
    return client.get(f"/export/ids.txt?{query}").text.split()


# Who may ask.


def test_without_the_token_nothing_is_answered(stranger: TestClient) -> None:
    for path in ("/", "/api/run", "/static/app.js", "/thumbnail/x", "/export/ids.txt"):
        assert stranger.get(path).status_code == 403, path
        assert stranger.get(f"{path}?token=wrong").status_code == 403, path


def test_the_token_moves_from_the_address_to_a_strict_cookie(stranger: TestClient) -> None:
    response = stranger.get("/?token=secret", follow_redirects=False)
    assert response.status_code == 303
    assert response.headers["location"] == "/"
    cookie = response.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://other.example"},
        {"origin": "null"},
        {"origin": "http://localhost:9999"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
        {"host": "attacker.example"},
        {"host": "localhost.attacker.example:8321"},
        {"host": "192.168.1.1"},
    ],
)
def test_a_request_of_another_site_is_refused_even_with_the_cookie(
    client: TestClient, headers: dict[str, str]
) -> None:
    assert client.get("/api/run").status_code == 200
    assert client.get("/api/run", headers=headers).status_code == 403
    assert client.get("/", headers=headers).status_code in (403, 200)  # a link may open the page
    if "sec-fetch-mode" not in headers or headers.get("sec-fetch-dest") == "iframe":
        assert client.get("/", headers=headers).status_code == 403


def test_only_an_address_may_be_the_host_if_all_interfaces_are_served(explorer: Explorer) -> None:
    app = explorer.app("secret", {"localhost"}, allow_addresses=True)
    browser = TestClient(app, base_url="http://192.168.1.7:8321")
    assert browser.get("/?token=secret").status_code == 200
    assert browser.get("/api/run", headers={"host": "attacker.example"}).status_code == 403


def test_nothing_can_be_changed_and_scripts_come_from_this_server_only(client: TestClient) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert client.request(method, "/api/run").status_code == 405
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    "path",
    [
        "/static/..%2f..%2fserver.py",
        "/static/../server.py",
        "/static/%2e%2e/server.py",
        "/static//etc/passwd",
        "/thumbnail/..%2f..%2f..%2fetc%2fpasswd",
        "/image/..%2f/0",
        "/api/sample/%2Fetc%2Fpasswd",
        "/item-image?evaluation=../..&benchmark=x&item=1",
    ],
)
def test_no_path_can_be_read(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_a_report_cannot_lead_out_of_the_output_folder(run: Path, tmp_path: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    report["stages"]["data"]["folder"] = "../../secret"
    other = tmp_path / "run" / "evil"
    other.mkdir(parents=True)
    (other / "report.json").write_text(json.dumps(report))
    with pytest.raises(SchemaError, match="cannot be the name of a data folder"):
        find_folders(other)


# What is shown.


def test_hostile_text_arrives_as_data(client: TestClient) -> None:
    hostile_id = toy_samples(1)[0].sample_id
    response = client.get(f"/api/sample/{hostile_id}")
    assert response.headers["content-type"] == "application/json"
    assert response.json()["sample"]["question"] == HOSTILE
    assert client.get("/api/samples", params={"q": "<script>window"}).json()["total"] == 1
    for text in ("'; DROP TABLE sample; --", "%", "_", "\\", '"', "\u202e", "\0"):
        assert client.get("/api/samples", params={"q": text}).status_code == 200, text
        assert client.get("/api/samples", params={"is.task": text}).json()["total"] == 0
    assert client.get("/api/samples").json()["total"] == SIZE


def test_counts_follow_the_filter_but_not_the_facets_own_condition(client: TestClient) -> None:
    everything = client.get("/api/samples").json()
    assert everything["total"] == SIZE
    assert dict(everything["facets"]["pism_stratum"]) == dict.fromkeys(
        ("easy", "medium", "hard", "unsolved"), SIZE // 4
    )
    hard = client.get("/api/samples?is.pism_stratum=hard").json()
    assert hard["total"] == SIZE // 4
    assert {row["pism_stratum"] for row in hard["rows"]} == {"hard"}
    assert len(hard["facets"]["pism_stratum"]) == 4  # what another choice would add
    assert sum(n for _, n in hard["facets"]["task"]) == SIZE // 4
    assert dict(hard["facets"]["selected"]) == {"tuned": SIZE // 4}
    both = client.get("/api/samples?is.pism_stratum=hard&is.pism_stratum=easy").json()
    assert both["total"] == SIZE // 2


def test_ranges_selections_reasons_decisions_and_verdicts_filter(client: TestClient) -> None:
    def rows(query: str) -> dict:
        return client.get(f"/api/samples?{query}").json()

    cmab = rows("min.cmab=0.3&max.cmab=0.5")
    assert all(0.3 <= row["cmab"] <= 0.5 for row in cmab["rows"])
    assert 0 < cmab["total"] < SIZE
    assert rows("is.selected=control")["total"] == SIZE // 4
    assert rows("is.selected=not+selected")["total"] == SIZE // 2
    assert rows("is.reason=hard+by+pism")["total"] == SIZE // 4
    assert rows("is.decision=prior")["total"] == SIZE // 2
    outcome = rows("is.full_image_outcome=all+correct")
    assert {row["accuracy"] for row in outcome["rows"]} == {1.0}
    assert rows("is.unparsable=has+unparsable+responses")["total"] > 0


def test_every_measure_sorts_and_missing_values_come_last(client: TestClient) -> None:
    for order in ("asc", "desc"):
        first = client.get(f"/api/samples?sort=ace&order={order}&page=0").json()["rows"]
        second = client.get(f"/api/samples?sort=ace&order={order}&page=1").json()["rows"]
        values = [row["ace"] for row in first + second]
        present = [value for value in values if value is not None]
        assert len(values) == SIZE
        assert present == sorted(present, reverse=order == "desc")
        assert values[len(present) :] == [None] * (SIZE // 5)


def test_a_lasso_selects_the_points_inside(client: TestClient) -> None:
    triangle = "pism,cmab,-0.1,0,0.7,0,-0.1,2"
    inside = set(ids_of(client, f"lasso={triangle}"))
    rows = [
        row for page in (0, 1) for row in client.get(f"/api/samples?page={page}").json()["rows"]
    ]
    expected = {
        row["sample_id"]
        for row in rows
        if (row["pism"] + 0.1) / 0.8 + row["cmab"] / 2 < 1  # inside of the triangle
    }
    assert inside == expected
    assert 0 < len(inside) < SIZE
    points = client.get("/api/scatter?x=pism&y=ace&color=pism_stratum").json()
    assert sum(points["n"]) == SIZE - SIZE // 5
    assert points["missing"] == SIZE // 5


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("min.pism=nan", 400),
        ("min.pism=x", 400),
        ("page=-1", 400),
        ("page=x", 400),
        ("lasso=pism,cmab,1,1", 400),
        ("lasso=pism", 400),
        ("sort=question", 404),
        ("is.question=x", 404),
        ("min.question=1", 404),
        ("lasso=pism,number,0,0,1,1,0,1", 404),
    ],
)
def test_bad_queries_are_refused_with_a_reason(client: TestClient, query: str, status: int) -> None:
    response = client.get(f"/api/samples?{query}")
    assert response.status_code == status
    assert response.json()["error"]


def test_the_masked_image_is_the_one_that_the_probe_drew(client: TestClient) -> None:
    sample = toy_samples(3)[2]
    png = client.get(f"/image/{sample.sample_id}/0?percent=60&draw=2").content
    pixels = np.asarray(Image.open(io.BytesIO(sample.images[0])).convert("RGB"))
    seed = seeds.derive(SEED, "mask", sample.sample_id, 0, 60, 2)
    expected = masks.mask(pixels, 60, seed)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), expected)
    unmasked = client.get(f"/image/{sample.sample_id}/0").content
    assert unmasked == sample.images[0]
    for path in ("0?percent=55", "1", "0?percent=30&draw=-1"):
        assert client.get(f"/image/{sample.sample_id}/{path}").status_code in (400, 404)


def test_a_sample_has_all_its_responses_scores_and_curves(client: TestClient) -> None:
    sample = toy_samples(3)[2]
    content = client.get(f"/api/sample/{sample.sample_id}?is.pism_stratum=hard").json()
    rollouts = content["rollouts"]
    assert len(rollouts) == 4 * 4 + 2
    assert all(row["same_seed"] for row in rollouts)
    assert [row["view"] for row in rollouts[-2:]] == ["text_only"] * 2
    assert {row["measure"] for row in content["scores"]} == {"pism", "cmab", "ace"}
    assert {row["name"] for row in content["selections"]} >= {"tuned"}
    (training,) = content["training"]
    assert {"all samples", sample.task, "hard"} == training["curves"].keys()
    assert [row["step"] for row in training["rollouts"]] == [3, 17]
    assert training["rollouts"][0]["completion"] == "<answer>step 3</answer>"
    hard_ids, near = ids_of(client, "is.pism_stratum=hard"), content["neighbors"]
    assert hard_ids[near["position"]] == sample.sample_id
    assert near["next"] == hard_ids[near["position"] + 1]
    assert len(content["attention"][0]["layers"]) == 3


def test_exported_ids_are_those_of_the_grid(client: TestClient) -> None:
    query = "is.pism_stratum=hard&sort=cmab&order=desc"
    rows = client.get(f"/api/samples?{query}").json()["rows"]
    assert ids_of(client, query) == [row["sample_id"] for row in rows]


def test_items_are_compared_by_what_became_of_them(client: TestClient) -> None:
    query = "before=toy/base&after=toy/tuned"
    content = client.get(f"/api/items?{query}&change=lost").json()
    assert {tuple(row) for row in content["counts"]} == {
        (BENCHMARK, "lost", 10),
        (BENCHMARK, "won", 10),
        (BENCHMARK, "both wrong", 10),
    }
    assert content["total"] == 10
    assert all(item["before"] > item["after"] for item in content["items"])
    assert all(item["question"] and item["options"] for item in content["items"])
    assert client.get(f"/api/items?{query}&q=number+12.").json()["total"] == 1
    assert client.get("/api/items?before=x&after=y").status_code == 404


# Which folder is shown.


def test_scores_without_a_run_are_shown_with_their_selections(run: Path) -> None:
    folders = find_folders(run.parent.parent / "score" / "scoretoy")
    explorer = Explorer([folders], RunConfig())
    assert explorer.index.total == SIZE
    assert len(folders.selections) == 2
    assert explorer.comparison.default_pair is None


def test_the_newest_run_is_shown_without_a_folder(run: Path, tmp_path: Path) -> None:
    assert newest_folder(run.parent.parent) == run
    with pytest.raises(MissingArtifact, match="no finished run or scores below"):
        newest_folder(tmp_path)
    with pytest.raises(MissingArtifact, match="neither a finished run"):
        find_folders(tmp_path)


def test_scores_newer_than_each_run_are_shown_without_a_folder(tmp_path: Path) -> None:
    """What finished last is what its user wants to see, also after an earlier training."""
    run, score = tmp_path / "run" / "a" / REPORT, tmp_path / "score" / "b" / MANIFEST
    for age, file in enumerate((score, run)):
        file.parent.mkdir(parents=True)
        file.touch()
        os.utime(file, (1000 - age, 1000 - age))
    assert newest_folder(tmp_path) == score.parent
    os.utime(run, (1001, 1001))
    assert newest_folder(tmp_path) == run.parent


def test_a_port_in_use_is_an_error_of_the_setting(run: Path) -> None:
    config = RunConfig()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        config.view.port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=r"view\.port=\d+: cannot listen there"):
            serve([run], config)


def test_the_command_refuses_a_folder_that_is_no_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "difftrain.cli", "view", str(tmp_path), "view.port=70000"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "view.port=70000: must lie between 0 and 65535" in done.stderr
    done = subprocess.run(command[:-1], capture_output=True, text=True)
    assert done.returncode == 2
    assert "neither a finished run" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_the_command_with_exit_code_0_and_its_output_line(run: Path) -> None:
    command = [sys.executable, "-m", "difftrain.cli", "view", str(run), "view.port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[1]
        assert address.startswith("http://127.0.0.1:")
        assert "/?token=" in address
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert rest.splitlines()[-1] == f"output: {run}"
