"""What `make` takes, and what it says of what it does not."""

import warnings
from types import SimpleNamespace

import pytest

import muxsim.compat.reward_kit as rk
from muxsim.compat.reward_kit import renamed
from muxsim.compat.reward_kit.places import place_of

from .walks import Walks, rows

pytestmark = pytest.mark.filterwarnings("ignore:.*reward-kit:DeprecationWarning")


@pytest.mark.parametrize(
    ("url", "env"),
    [
        ("http://127.0.0.1:8000", ""),
        ("http://127.0.0.1:8000/mcp", ""),
        ("http://127.0.0.1:8000/mcp/", ""),
        ("http://127.0.0.1:8000/envs/lake/mcp/", "lake"),
        ("http://127.0.0.1:8000/mcp?env=lake", "lake"),
        ("https://pool.example/prefix/envs/a%20lake/mcp", "a lake"),
        ("http://127.0.0.1:8000#lake", "lake"),
        ("unix:/run/muxsim.sock#lake", "lake"),
    ],
)
def test_a_url_names_its_environment(url, env):
    assert place_of(url).env == env


def test_a_config_names_its_environment_behind_a_hash(tmp_path):
    file = tmp_path / "muxsim.toml"
    file.write_text("")
    assert place_of(f"{file}#lake").env == "lake"
    assert place_of(file).env == ""


@pytest.mark.parametrize("wrong", ["localhost:8000", "nowhere.toml#lake", "", "#lake"])
def test_what_is_no_place_is_refused(wrong):
    with pytest.raises(ValueError, match=r"is neither a URL .* nor a config"):
        rk.make(wrong, n=1)


def test_a_config_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"there is no file 'nowhere\.toml'"):
        rk.make("nowhere.toml#lake", n=1)


def test_a_url_names_one_environment():
    with pytest.raises(ValueError, match="names several environments: lake, sea"):
        place_of("http://127.0.0.1:8000/envs/lake/mcp?env=sea")


def test_rows_become_sessions():
    envs = rk.make(Walks(), dataset=[*rows(1, size=4), rk.DatasetRow("own", 9, "S", "T")], model_id="mine")
    assert (envs.n, len(envs.tool_schemas)) == (2, 2)
    assert [(one.session_id, one.seed, one.model_id) for one in envs.sessions] == [
        ("row-0", 0, "mine"),
        ("own", 9, "mine"),
    ]
    assert envs.dataset_rows[0].environment_context == {"seed": 0, "size": 4}
    assert envs.sessions[1].dataset_row is envs.dataset_rows[1]


def test_rows_of_eval_protocols_are_rows_too():
    info = {"user_prompt_template": "{observation}", "environment_context": {"seed": 5}}
    row = SimpleNamespace(
        messages=[SimpleNamespace(role="system", content="Play.")],
        input_metadata=SimpleNamespace(row_id="r1", dataset_info=info),
    )
    for envs in (rk.make(Walks(), evaluation_rows=[row]), rk.make(Walks(), [row])):
        assert envs.dataset_rows[0] == rk.DatasetRow("r1", 5, "Play.", "{observation}", {"seed": 5}, {}, row)


def test_seeds_are_drawn_where_none_are_given():
    seeds = [session.seed for session in rk.make(Walks(), n=3).sessions]
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert len(set(seeds)) == 3


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "either dataset .* or n is needed"),
        ({"n": 2, "seeds": [1]}, "expected 2 seeds, got 1"),
        ({"dataset": [{"id": "a"}]}, "row 0 has no system_prompt, user_prompt_template"),
        ({"dataset": ["a"]}, "row 0 is no row but 'a'"),
        ({"dataset": "rows.jsonl"}, r"dataset is a list of rows, not 'rows.jsonl': load_jsonl\(path\) reads a file"),
        ({"dataset": rows(1)[0]}, "dataset is a list of rows, not {'id'"),
        ({"dataset": [{**rows(1)[0], "environment_context": "x"}]}, "row 0: environment_context is no object but 'x'"),
        ({"dataset": [{**rows(1)[0], "user_simulation": 1}]}, "row 0: user_simulation is no object but 1"),
        ({"dataset": [{**rows(1)[0], "user_simulation": {"enabled": True}}]}, "users are not simulated here"),
    ],
)
def test_rows_that_are_none_are_refused(given, says):
    with pytest.raises(ValueError, match=says):
        rk.make(Walks(), **given)


async def test_a_seed_that_is_none_is_refused_before_anything_starts():
    pool = Walks()
    with pytest.raises(ValueError, match="session s: -1 is no seed"):
        await rk.rollout(rk.make(pool, dataset=[rk.DatasetRow("s", -1, "", "T")]), rk.StaticPolicy("go"))
    assert pool.opened == []


async def test_rows_of_one_name_are_played_apart():
    row = rows(1)[0]
    played = await rk.rollout(rk.make(Walks(), dataset=[row, row]), rk.StaticPolicy("go"))
    assert [(one.session.session_id, one.played.id) for one in played] == [("row-0", "row-0-0"), ("row-0", "row-0-1")]


async def test_where_there_are_several_environments_one_is_named():
    pool = Walks()
    pool.environments = ("lake", "sea")
    with pytest.raises(ValueError, match=r"which environment.* with one of lake, sea"):
        await rk.rollout(rk.make(pool, n=1), rk.StaticPolicy("go"))


async def test_a_rollout_makes_environments_itself():
    assert [one.steps for one in await rk.rollout(Walks(), rk.StaticPolicy("go"), dataset=rows(1))] == [3]
    with pytest.raises(ValueError, match="either dataset or evaluation_rows is needed"):
        await rk.rollout("http://127.0.0.1:9", rk.StaticPolicy("go"))


def test_jsonl_is_read_and_a_line_that_is_none_is_named(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"id": 1}\n\n{"id": 2}\n')
    assert rk.load_jsonl(str(file)) == [{"id": 1}, {"id": 2}]
    file.write_text('{"id": 1}\n{\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 2 is no JSON"):
        rk.load_jsonl(file)
    file.write_text('{"id": 1}\n[2]\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 2 is no object but \[2\]"):
        rk.load_jsonl(file)


def test_only_ends_of_lines_end_a_row(tmp_path):
    file = tmp_path / "rows.jsonl"
    said = "one\u2028two\x85three"
    file.write_bytes(b"\xef\xbb\xbf" + f'{{"id": "{said}"}}\r\n{{"id": 2}}'.encode())
    assert rk.load_jsonl(file) == [{"id": said}, {"id": 2}]


def test_every_name_is_there():
    for name in rk.__all__:
        assert getattr(rk, name).__name__ == name


def test_an_older_name_is_told_once_what_it_has_become(monkeypatch):
    monkeypatch.setattr(renamed, "_told", set())
    with warnings.catch_warnings(record=True, action="always") as told:
        for _ in range(2):
            assert rk.MCPVectorEnv is rk.GeneralMCPVectorEnv
            rk.make(Walks(), n=1)
            rk.FireworksPolicy("model", _playback_actions={})
            from muxsim.compat.reward_kit.mcp_env import MCPVectorEnv  # noqa: F401, PLC0415
    assert str(told[0].message).startswith("MCPVectorEnv is reward-kit's: GeneralMCPVectorEnv")
    assert [str(one.message).partition(" is")[0] for one in told] == [
        *("MCPVectorEnv", "make", "make(n=, seeds=)", "FireworksPolicy(model_id)"),
    ]
    assert {one.filename for one in told} == {__file__}


@pytest.mark.parametrize(
    ("name", "says"), [("LiteLLMPolicy", "use OpenAIPolicy with the base_url of a LiteLLM proxy"), ("maek", "maek")]
)
def test_a_name_that_is_not_there_says_what_to_use(name, says):
    with pytest.raises(AttributeError, match=says):
        getattr(rk, name)
