"""The page of runs as a browser gets it, and who does not."""

import json
import socket
from contextlib import contextmanager
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import msgspec
import pytest

from muxsim.rollouts.data.comparison import compare
from muxsim.rollouts.data.run_folder import RunFolder
from muxsim.rollouts.view import assets
from muxsim.rollouts.view.assets import NotBuilt
from muxsim.rollouts.view.following import FollowedRun
from muxsim.rollouts.view.serving import RunsServer, ServeError

from .samples import config, image_block, png, step, trajectory

# Seconds.
DEADLINE = 60


@contextmanager
def served(tmp_path, *trajectories):
    with RunFolder.create(tmp_path / "run", config()) as writer:
        for one in trajectories:
            writer.append(one)
        writer.finish(len(trajectories))
    server = RunsServer()
    server.show(FollowedRun("1", tmp_path / "run"))
    with server.beside():
        yield server.url


def get(url, **headers):
    """Status, headers and body."""
    try:
        with urlopen(Request(url, headers=headers), timeout=DEADLINE) as answer:
            return answer.status, answer.headers, answer.read()
    except HTTPError as error:
        return error.code, error.headers, error.read()


def test_the_page_and_what_it_asks_for_come_from_here_alone(tmp_path):
    with served(tmp_path, trajectory("a/ü")) as url:
        status, headers, page = get(url)
        assert status == 200
        assert b"runs.js" in page
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["referrer-policy"] == "no-referrer"
        (news,) = json.loads(get(f"{url}news")[2])
        assert (news["state"], news["episodes"][0]["id"]) == ("complete", "a/ü")
        (nothing,) = json.loads(get(f"{url}news?1={news['mark']}")[2])
        assert (nothing["episodes"], nothing["metrics"]) == ([], None)
        whole = json.loads(get(f"{url}runs/1/episode?id={quote('a/ü')}")[2])
        assert whole["steps"][1]["content"][0]["text"] == "you are at 2"
        assert get(f"{url}runs/2/episode?id=a")[0] == 404


def test_several_runs_are_compared_with_the_first_as_compare_does_once_they_have_something_in_common(tmp_path):
    with served(tmp_path, trajectory("a")) as url:
        assert json.loads(get(f"{url}comparison")[2]) is None
    runs = [tmp_path / "run", tmp_path / "other"]
    server = RunsServer()
    with RunFolder.create(runs[1], config()) as writer:
        for number, run in enumerate(runs):
            server.show(FollowedRun(str(number), run))
        with server.beside():
            assert json.loads(get(f"{server.url}comparison")[2]) is None
            writer.append(trajectory("a"))
            get(f"{server.url}news")
            told = json.loads(get(f"{server.url}comparison")[2])
        writer.finish(1)
    assert told == msgspec.to_builtins(compare(*runs))


def test_nobody_is_told_anything_who_does_not_know_the_address(tmp_path):
    with served(tmp_path, trajectory("a")) as url:
        origin = url.removesuffix("/").rpartition("/")[0]
        for path in ("", "/news", "/runs/1/episode?id=a", "/other/news", "/runs.js"):
            assert get(f"{origin}{path}")[0] == 404
        assert get(f"{url}news", Host="evil.example")[0] == 400


def test_images_are_shown_and_kept_files_run_nothing_and_lead_nowhere_else(tmp_path):
    frame = png(1, 2, 3)
    with served(tmp_path, trajectory("a", [step(0, image_block(frame))])) as url:
        kept = tmp_path / "run" / "files" / "a"
        kept.mkdir(parents=True)
        (kept / "notes.txt").write_text("<script>")
        (kept / "evil.html").write_text("<script>")
        (kept / "x.svg").write_text("<svg onload='x'>")
        (tmp_path / "secret.txt").write_text("secret")
        (kept / "link.txt").symlink_to(tmp_path / "secret.txt")
        get(f"{url}news")
        whole = json.loads(get(f"{url}runs/1/episode?id=a")[2])
        status, headers, body = get(f"{url}runs/1/{whole['steps'][0]['content'][0]['path']}")
        assert (status, headers["content-type"], body) == (200, "image/png", frame)
        assert "sandbox" in headers["content-security-policy"]
        status, headers, body = get(f"{url}runs/1/files/a/notes.txt")
        assert (status, body) == (200, b"<script>")
        assert headers["content-type"].startswith("text/plain")
        assert "sandbox" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        for path in (
            "a/evil.html",
            "a/x.svg",
            "a/link.txt",
            "../config.json",
            "..%2f..%2fsecret.txt",
            "%2fetc%2fpasswd",
            "a",
        ):
            assert get(f"{url}runs/1/files/{path}")[0] == 404, path


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=f"port {port} cannot be had"):
            RunsServer(port)


def test_a_muxsim_without_pages_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setattr(assets, "BUILT", tmp_path)
    with pytest.raises(NotBuilt, match="scripts/setup"):
        RunsServer()
