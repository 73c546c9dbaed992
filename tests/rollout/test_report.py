import base64
import hashlib
import json
import re
import zlib

import pytest

from muxsim.rollouts.data.kept_files import KeptFile
from muxsim.rollouts.data.run_folder import RunFolder
from muxsim.rollouts.data.trajectory import EndReason
from muxsim.rollouts.view.report import ReportError, write_report

from .samples import config, failure, image_block, image_part, png, step, text_block, trajectory


@pytest.fixture
def run(tmp_path):
    """Writes episodes into a run, and reads it."""

    def run(*trajectories, finish=True, **changes):
        with RunFolder.create(tmp_path / "run", config(**changes)) as writer:
            for one in trajectories:
                writer.append(one)
            if finish:
                writer.finish(planned=len(trajectories))
        return RunFolder(tmp_path / "run")

    return run


def page_of(run, **options):
    return write_report(run, **options).read_text()


def data_of(page, id):
    (text,) = re.findall(rf'<script type="application/json" id="{id}">(.*?)</script>', page)
    return json.loads(text)


def episode_of(page, index):
    """What the page holds of one episode, unpacked as its script does."""
    number, place = data_of(page, "run")["episodes"][index]["pack"]
    (packed,) = re.findall(rf'<script type="text/plain" id="pack-{number}">(.*?)</script>', page)
    return json.loads(zlib.decompress(base64.b64decode(packed)))[place]


def images_in(page):
    return re.findall(r'<script type="text/plain" id="(images/[0-9a-f]{64}\.png)">data:image/png;base64,', page)


def flight(id, *colours):
    frames = [png(colour, 0, 0) for colour in colours]
    episode = trajectory(id, [step(index, image_block(frame)) for index, frame in enumerate(frames)])
    episode.messages += [{"role": "user", "content": [image_part(frame)]} for frame in frames]
    return episode


def test_the_page_holds_the_run_and_each_episode(run):
    page = page_of(run(trajectory("a"), failure("b")))
    held = data_of(page, "run")
    assert held["name"] == "run"
    assert held["metrics"]["complete"] is True
    assert [(one["id"], one["valid"], one["reward"]) for one in held["episodes"]] == [
        ("a", True, 1.0),
        ("b", False, None),
    ]
    assert held["episodes"][0]["curve"] == [0.0, 0.0, 1.0]
    assert episode_of(page, 1)["stderr"][-1] == "ZeroDivisionError: division by zero"
    assert episode_of(page, 0)["steps"][1]["control"]["terminated"] is True


def test_a_run_that_was_killed_is_shown_as_incomplete(run):
    assert data_of(page_of(run(trajectory("a"), finish=False)), "run")["metrics"]["complete"] is False


def test_a_run_without_episodes_has_a_page(run):
    assert data_of(page_of(run()), "run")["episodes"] == []


def test_results_are_in_the_page_once(run):
    details = episode_of(page_of(run(trajectory("a"))), 0)
    assert [message.get("step", message["role"]) for message in details["messages"]] == [
        "system",
        "user",
        "assistant",
        0,
        "assistant",
        1,
    ]
    assert "you are at 1" not in json.dumps(details["messages"])


def test_results_in_the_examples_of_a_prompt_are_no_steps(run):
    episode = trajectory("a")
    example = [
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "tool_call_id": "x", "content": "example"},
    ]
    episode.messages[1:1] = example
    messages = episode_of(page_of(run(episode)), 0)["messages"]
    assert messages[2] == example[1]
    assert [message["step"] for message in messages if "step" in message] == [0, 1]


def test_tools_that_episodes_share_are_in_the_page_once(run):
    page = page_of(run(trajectory("a"), trajectory("b"), trajectory("c", tools=[])))
    assert len(data_of(page, "run")["tools"]) == 2
    assert [episode_of(page, index)["tools"] for index in range(3)] == [0, 0, 1]


def test_a_long_episode_has_a_thin_curve_that_ends_where_it_ends(run):
    steps = [step(index, reward=1.0) for index in range(1000)]
    (summary,) = data_of(page_of(run(trajectory("a", steps))), "run")["episodes"]
    assert len(summary["curve"]) < 100
    assert (summary["curve"][0], summary["curve"][-1]) == (0.0, 1000.0)


def test_a_long_text_is_shown_in_part(run):
    page = page_of(run(trajectory("a", [step(0, text_block("x" * 1_000_000))])))
    (block,) = episode_of(page, 0)["steps"][0]["content"]
    assert block["text"].endswith("… 980000 more characters in rollouts.jsonl")
    assert len(page) < 200_000


def test_images_are_in_the_page_once(run):
    page = page_of(run(flight("a", 1, 2, 1), flight("b", 2, 3)))
    assert len(images_in(page)) == 3
    assert episode_of(page, 0)["steps"][0]["content"][0]["path"] in images_in(page)


def test_images_of_the_initial_state_are_images_too(run):
    episode = trajectory("a", initial_state={"observation": [image_block(png(7, 7, 7))], "seed": 0})
    page = page_of(run(episode))
    (block,) = episode_of(page, 0)["initial_state"]["observation"]
    assert images_in(page) == [block["path"]]


def test_images_that_there_is_no_room_for_are_left_out_by_whole_episodes(run):
    size = len(png(1, 0, 0))
    folder = run(flight("a", 1, 2), flight("b", 3, 4), flight("c", 1, 2))
    page = page_of(folder, image_bytes=3 * size)
    assert [one["images_left_out"] for one in data_of(page, "run")["episodes"]] == [0, 2, 0]
    assert len(images_in(page)) == 2


def test_an_image_whose_file_is_missing_leaves_no_gap(run, tmp_path):
    folder = run(flight("a", 1))
    for image in (tmp_path / "run" / "images").iterdir():
        image.unlink()
    assert images_in(page_of(folder)) == []


@pytest.mark.parametrize("hostile", ["</script><script>alert(1)</script>", "<!--<script>", "]]>", "\u2028&amp;"])
def test_nothing_that_an_episode_says_can_end_its_element(run, hostile):
    episode = trajectory(
        hostile,
        [step(0, text_block(hostile), action=hostile)],
        env=hostile,
        error=hostile,
        stderr=[hostile],
        info={hostile: hostile},
    )
    page = page_of(run(episode))
    assert hostile not in page.partition("<body>")[2].rpartition("<script>")[0]
    assert episode_of(page, 0)["error"] == hostile


def test_the_page_runs_its_own_script_and_loads_nothing(run):
    page = page_of(run(flight("a", 1)))
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    policy = policy.replace("&#x27;", "'")
    assert policy.startswith("default-src 'none'; img-src data:;")
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    for text, source in ((script, "script-src"), (style, "style-src")):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{source} 'sha256-{digest}'" in policy
    assert "http://" not in page.replace("http://www.w3.org/", "")  # names of kinds of elements
    assert "https://" not in page


def test_the_name_of_the_run_is_escaped_in_the_title(tmp_path):
    RunFolder.create(tmp_path / "<b>&", config()).close()
    assert "<title>&lt;b&gt;&amp; · muxsim run</title>" in page_of(RunFolder(tmp_path / "<b>&"))


def test_the_report_is_a_file_of_the_run_unless_another_is_named(run, tmp_path):
    folder = run(trajectory("a", end_reason=EndReason.MAX_STEPS))
    assert write_report(folder) == tmp_path / "run" / "report.html"
    assert write_report(folder, tmp_path / "other.html") == tmp_path / "other.html"
    shown = (tmp_path / "other.html").read_text(encoding="utf-8")
    assert shown.replace('"place":"run"', '"place":"."') == page_of(folder)


def test_a_report_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match=r"file/report\.html could not be written: .*file is no folder"):
        write_report(run(trajectory("a")), tmp_path / "file" / "report.html")


def test_the_index_of_a_run_stands_before_its_episodes_and_images(run):
    page = page_of(run(flight("a", 1), flight("b", 2)))
    places = [page.index(f'id="{id}"') for id in ("run", "pack-0", images_in(page)[0])]
    assert places == sorted(places)


def test_episodes_that_resemble_each_other_take_a_fraction_of_their_room(run, tmp_path):
    folder = run(*(trajectory(f"a-{seed}", seed=seed) for seed in range(500)))
    assert len(page_of(folder)) < (tmp_path / "run" / "rollouts.jsonl").stat().st_size / 3


def test_every_episode_is_in_the_pack_that_the_index_names(run):
    texts = ["x" * size for size in (10, 700_000, 700_000, 3_000_000, 20)]
    steps = [[step(index, text_block(text[:19_000])) for index in range(len(text) // 19_000 + 1)] for text in texts]
    page = page_of(run(*(trajectory(f"e-{index}", one) for index, one in enumerate(steps))))
    packs = [one["pack"] for one in data_of(page, "run")["episodes"]]
    assert packs[0] == [0, 0]
    assert packs[-1][0] > 1
    assert [episode_of(page, index)["id"] for index in range(5)] == [f"e-{index}" for index in range(5)]


@pytest.mark.parametrize(
    ("page", "place"), [("run/report.html", "."), ("shown.html", "run"), ("elsewhere/shown.html", "../run")]
)
def test_kept_files_are_found_from_wherever_the_page_is(run, tmp_path, page, place):
    (tmp_path / "elsewhere").mkdir()
    file = KeptFile(path="a.png", file="files/a/a.png", size=1, sha256="0" * 64)
    write_report(run(trajectory("a", files=[file])), tmp_path / page)
    text = (tmp_path / page).read_text()
    assert data_of(text, "run")["place"] == place
    assert episode_of(text, 0)["files"][0]["file"] == "files/a/a.png"
