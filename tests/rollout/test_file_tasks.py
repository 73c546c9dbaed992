"""Tasks with prepared files: how they begin, what is kept of them, and what a reward sees, with real children."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import asynccontextmanager

import anyio
import pytest
from cli.terminal import muxsim
from harness import ROOT, SERVERS, serving

import muxsim as library
from muxsim.rollouts.data.run_config import RunConfig
from muxsim.rollouts.data.run_folder import RunFolder
from muxsim.rollouts.data.trajectory import EndReason
from muxsim.rollouts.environments.environment import EnvironmentGone
from muxsim.rollouts.policy.scripted import ScriptedPolicy

from .runs import played

pytestmark = pytest.mark.children

LIMIT = 300  # s, on a machine that is busy with others
EXAMPLE = ROOT / "examples" / "file_tasks"
CONFIG = RunConfig(environments=("scribbler",), policy={"kind": "scripted"})


@pytest.fixture
def folder(tmp_path):
    """A folder with a config of the scribbler, and a prepared folder for each seed."""
    for seed in range(2):
        (tmp_path / "tasks" / str(seed)).mkdir(parents=True)
        (tmp_path / "tasks" / str(seed) / "task.txt").write_text(f"task {seed}\n")
    (tmp_path / "muxsim.toml").write_text(
        f"[environments.scribbler]\ncommand = {json.dumps(str(SERVERS / 'scribbler.py'))}\n"
        'workspace_from = "tasks/{seed}"\ncollect = ["*.txt", "out/**"]\n'
    )
    return tmp_path


def on(loop, function, *arguments):
    async def bounded():
        with anyio.fail_after(LIMIT):
            return await function(*arguments)

    return anyio.run(bounded, backend=loop)


@asynccontextmanager
async def pool_of(folder):
    async with library.open_pool(folder / "muxsim.toml") as pool:
        yield pool


def script(*calls):
    return ScriptedPolicy([{"tool": tool, "arguments": arguments} for tool, arguments in calls])


async def play(folder, *calls, rows=({"seed": 0}, {"seed": 1}), run="run", **options):
    async with pool_of(folder) as pool:
        with RunFolder.resume(folder / run, CONFIG) as writer:
            trajectories = await library.rollout(
                pool, rows, policy=script(*calls), watchers=[writer], skip=writer.done, **options
            )
            writer.finish()
    return trajectories


@pytest.mark.parametrize("loop", ["trio", "asyncio"])
def test_a_reward_sees_what_the_files_say_when_nothing_writes_any_more_and_the_run_keeps_them(folder, loop):
    seen = []

    def reward(trajectory, workspace):
        files = {path.name: path.read_text() for path in sorted(workspace.rglob("*")) if path.is_file()}
        seen.append((trajectory.seed, workspace, files, [one.path for one in trajectory.files]))
        (workspace / "task.txt").write_text("spoilt by the reward")
        return len(files)

    calls = (("write", {"path": "out/a.png", "text": "png"}), ("write", {"path": "task.txt", "text": "more"}))
    trajectories = on(loop, lambda: play(folder, *calls, reward=reward))
    assert [one.total_reward for one in trajectories] == [3.0, 3.0]
    for seed, workspace, files, kept in sorted(seen):
        assert files == {
            "a.png": "png",
            "at_the_end.txt": "written when stdin had ended",
            "task.txt": f"task {seed}\nmore",
        }
        assert kept == ["at_the_end.txt", "task.txt", "out/a.png"]
        assert not workspace.exists()
    for one in played(folder / "run").values():
        assert one.files_problem is None
        content = (folder / "run" / one.files[1].file).read_bytes()
        assert content == f"task {one.seed}\nmore".encode()
        assert (one.files[1].size, one.files[1].sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert (folder / "tasks" / "0" / "task.txt").read_text() == "task 0\n"


@pytest.mark.parametrize(
    ("call", "end", "options"),
    [
        ("die", EndReason.ENV_CRASHED, {}),
        ("hang", EndReason.TOOL_TIMEOUT, {"call_timeout": 2.0}),
        ("hang", EndReason.EPISODE_TIMEOUT, {"episode_timeout": 8.0}),
    ],
)
def test_what_a_broken_episode_has_left_is_kept_and_not_scored(folder, call, end, options):
    def reward(trajectory, workspace):
        raise AssertionError("nothing to be scored")

    calls = (("write", {"path": "a.txt", "text": "mine"}), (call, {}))
    (one,) = on("trio", lambda: play(folder, *calls, rows=[{"seed": 0}], reward=reward, **options))
    assert (one.end_reason, one.total_reward, one.valid) == (end, None, False)
    assert {kept.path for kept in one.files} >= {"a.txt", "task.txt"}


def test_each_attempt_at_an_episode_has_its_own_files(folder):
    write = ("write", {"path": "a.txt", "text": "mine"})
    on("trio", lambda: play(folder, write, ("die", {}), rows=[{"id": "x", "seed": 0}]))
    on("trio", lambda: play(folder, write, rows=[{"id": "x", "seed": 0}]))
    run = RunFolder(folder / "run")
    (failed,), (sound,) = run.failures(), run.trajectories()
    assert {one.file.split("/")[1] for one in failed.files} == {"x"}
    assert {one.file.split("/")[1] for one in sound.files} == {"x.2"}
    assert all((folder / "run" / one.file).is_file() for one in (*failed.files, *sound.files))


def test_a_hostile_workspace_harms_neither_run_nor_record(folder):
    def reward(trajectory, workspace):
        return 1.0

    text = (SERVERS / "scribbler.py").read_text()
    hostile = (
        "import os; os.chdir(os.environ['MUXSIM_WORKSPACE']); os.symlink('/etc/passwd', 'x.txt'); os.mkfifo('y.txt')\n"
        "os.symlink('/', 'out'); open(b'bad\\xff\\n.txt', 'w').write('z'); os.symlink('.', 'task')\n"
    )
    (folder / "hostile.py").write_text(hostile + text)
    config = folder / "muxsim.toml"
    config.write_text(config.read_text().replace(str(SERVERS / "scribbler.py"), str(folder / "hostile.py")))
    (one,) = on("trio", lambda: play(folder, ("look", {}), rows=[{"seed": 0}], reward=reward))
    assert (one.total_reward, one.valid) == (1.0, True)
    assert [kept.path for kept in one.files] == ["at_the_end.txt", "bad%FF%0A.txt", "task.txt"]
    assert one.files_problem == "x.txt is a link, which is not followed; y.txt is no regular file"
    (row,) = played(folder / "run").values()
    assert row.files == one.files


@pytest.mark.parametrize("loop", ["trio", "asyncio"])
def test_a_workspace_is_there_until_its_environment_is_closed_and_no_longer(folder, loop):
    async def look():
        async with pool_of(folder) as pool:
            environment = await pool.open("scribbler", 0)
            await environment.finish()
            workspace = environment.opened.workspace
            assert (workspace / "at_the_end.txt").exists()
            await environment.close()
            assert not workspace.exists()
            dying = await pool.open("scribbler", 1)
            with pytest.raises(EnvironmentGone):
                await dying.call("die", {})
            assert (dying.opened.workspace / "task.txt").exists()
            forgotten = await pool.open("scribbler", 1)  # a pool that ends does not wait for it
        assert not dying.opened.workspace.exists()
        assert not forgotten.opened.workspace.exists()

    on(loop, look)


def test_the_example_is_played_scored_and_kept_by_the_command(tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "file_tasks")
    before = {path: path.read_bytes() for path in (tmp_path / "file_tasks").rglob("*") if path.is_file()}
    arguments = ("muxsim.toml", "--dataset", "dataset.jsonl", "--policy", "scripted:solutions.jsonl")
    output = ("--reward", "verify:files", "--output", str(tmp_path / "run"))
    finished = muxsim(tmp_path / "file_tasks", "rollout", *arguments, *output)
    assert finished.status == 0, finished.stderr
    runs = played(tmp_path / "run")
    assert {id: one.total_reward for id, one in runs.items()} == {"total": 1.0, "settings": 1.0, "notes": 0.0}
    kept = {id: [file.path for file in one.files] for id, one in runs.items()}
    assert kept["notes"] == ["all.txt", "notes/monday.txt", "notes/tuesday.txt"]
    assert kept["settings"] == ["settings.json"]
    assert (tmp_path / "run" / "files" / "total" / "total.txt").read_text() == "49"
    assert {path: path.read_bytes() for path in before} == before


async def test_files_of_an_environment_behind_a_url_are_missed_on_record_and_the_episode_counts(folder):
    with anyio.fail_after(LIMIT), RunFolder.create(folder / "run", CONFIG) as writer:
        async with serving(folder, folder / "muxsim.toml") as running, library.connect(running.url) as pool:
            (one,) = await library.rollout(
                pool,
                [{"seed": 0}],
                policy=script(("look", {})),
                watchers=[writer],
                reward=lambda trajectory, workspace: float(workspace is None),
            )
    assert (one.valid, one.total_reward, one.files) == (True, 1.0, [])
    assert one.files_problem == "its files are on another machine: play there to keep them"


SEEN = ("list_directory", {"path": "."}), ("write_file", {"path": "own.txt", "content": "mine"})


@pytest.mark.network
def test_many_sessions_of_the_filesystem_server_each_have_their_own_copy_of_a_folder(folder):
    """@modelcontextprotocol/server-filesystem, 32 at once."""
    (folder / "muxsim.toml").write_text(
        '[environments.scribbler]\ncommand = "npx"\nwarm = 4\ncwd = "{workspace}"\n'
        'args = ["-y", "@modelcontextprotocol/server-filesystem@2026.8.31", "{workspace}"]\n'
        'workspace_from = "tasks/0"\ncollect = ["**"]\n'
    )

    def reward(trajectory, workspace):
        seen = [step.content[0]["text"] for step in trajectory.steps]
        files = {path.name: path.read_text() for path in workspace.iterdir()}
        return files == {"own.txt": "mine", "task.txt": "task 0\n"} and seen[0] == "[FILE] task.txt"

    async def many():
        with anyio.fail_after(280):
            return await play(folder, *SEEN, rows=[{}] * 32, reward=reward, max_concurrent=32)

    trajectories = anyio.run(many, backend="trio")
    assert [(one.error, one.total_reward) for one in trajectories] == [(None, 1.0)] * 32
    assert all([kept.path for kept in one.files] == ["own.txt", "task.txt"] for one in trajectories)
    assert [path.name for path in (folder / "tasks" / "0").iterdir()] == ["task.txt"]
