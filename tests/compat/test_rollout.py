"""Rollouts in reward-kit's words, on a pool of this process."""

import json
import math

import pytest
from asyncio_tests import on_asyncio

import muxsim.compat.reward_kit as rk
from muxsim.rollouts.environments.environment import EnvironmentGone
from muxsim.rollouts.policy.protocol import Reply

from .walks import Walks, rows

pytestmark = pytest.mark.filterwarnings("ignore:.*reward-kit:DeprecationWarning")

PICTURE = {"type": "image", "data": "cGl4ZWw=", "mimeType": "image/png"}
URL = "data:image/png;base64,cGl4ZWw="


@pytest.fixture(autouse=True)
def _no_tape(monkeypatch):
    for name in ("EP_PLAYBACK_FILE", "REWARD_KIT_PLAYBACK_FILE"):
        monkeypatch.delenv(name, raising=False)


def going(*actions):
    return rk.StaticPolicy("go", actions or ("ON",))


async def play(pool, policy=None, count=2, steps=8, **options):
    envs = rk.make(pool, dataset=rows(count), **options)
    return await rk.rollout(envs, policy or going(), steps=steps)


async def test_a_trajectory_has_what_reward_kits_has():
    pool = Walks()
    first, second = await play(pool, model_id="mine")
    assert (first.steps, second.steps) == (3, 4)
    assert first.observations == [{"at": 0}, {"at": 1}, {"at": 2}, {"at": 3}]
    assert first.actions == ["go({'action': 'ON'})"] * 3
    assert (first.rewards, first.total_reward, first.terminated) == ([1.0, 1.0, 1.0], 3.0, True)
    assert (first.termination_reason, first.valid, first.error) == ("control_plane_signal", True, None)
    assert first.control_plane_steps[2] == {
        "step": 2,
        "reward": 1.0,
        "terminated": True,
        "info": {"at": 3},
        "tool_call": "go({'action': 'ON'})",
        "tool_calls": ["go({'action': 'ON'})"],
        "num_tool_calls": 1,
    }
    assert first.control_plane_summary == {
        "total_reward": 3.0,
        "termination_reason": "control_plane_signal",
        "final_step": 2,
        "control_plane_source": {"at": 3},
    }
    assert first.usage == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    assert (first.session.session_id, first.session.seed, first.session.model_id) == ("row-0", 0, "mine")
    assert first.session.terminated
    assert first.session.last_observation == {"at": 3}
    assert (first.get_steps(), first.get_total_reward(), first.get_termination_reason()) == (
        *(3, 3.0, "control_plane_signal"),
    )
    assert pool.open_now == set()


async def test_the_conversation_is_in_openais_format_with_the_trainers_part_beside_it():
    [played, _] = await play(Walks(length=1))
    said = played.conversation_history
    assert [message["role"] for message in said] == ["system", "user", "assistant", "tool"]
    assert (
        said[:2]
        == played.messages[:2]
        == [
            {"role": "system", "content": "Walk."},
            {"role": "user", "content": "See {'at': 0}."},
        ]
    )
    assert said[3]["metadata"] == {"reward": 1.0, "terminated": True, "info": {"at": 1}}


@on_asyncio
async def test_it_works_on_asyncio():
    assert [one.total_reward for one in await play(Walks())] == [3.0, 4.0]


async def test_the_steps_are_at_most_those_that_are_asked_for():
    [played, _] = await play(Walks(), steps=2)
    assert (played.steps, played.terminated, played.termination_reason) == (2, False, "max_steps")
    assert len(played.observations) == 3
    assert played.control_plane_summary == {}


async def test_a_reward_that_nobody_could_read_is_not_a_number_and_not_0():
    [played, _] = await play(Walks(rewards=(1.0, None)))
    assert played.rewards[0] == 1.0
    assert math.isnan(played.rewards[1])
    assert math.isnan(played.total_reward)
    assert not played.total_reward > 0
    assert not played.valid
    assert "a reward could not be read: it says nothing" in played.error
    assert played.termination_reason == "skippable_error"


async def test_without_a_control_plane_no_reward_is_known():
    [played, _] = await play(Walks(scored=False), steps=2)
    assert all(map(math.isnan, (*played.rewards, played.total_reward)))
    assert (played.valid, played.steps) == (True, 2)


async def test_a_call_that_is_refused_has_earned_nothing():
    [played, _] = await play(Walks(), going("ON", "WRONG", "ON"))
    assert played.rewards == [1.0, 0.0, 1.0, 1.0]


async def test_an_environment_that_dies_harms_no_other():
    class Crashing(rk.StaticPolicy):
        async def _generate_live_tool_calls(self, tool_schemas, env_index, conversation_history):
            self.action_sequence = ["ON", "CRASH"] if env_index == 0 else ["ON"]
            return await super()._generate_live_tool_calls(tool_schemas, env_index, conversation_history)

    pool = Walks()
    first, second = await play(pool, Crashing("go"))
    assert (first.valid, first.error, first.terminated, first.rewards) == (False, "it is gone", False, [1.0])
    assert first.control_plane_summary == {"error_message": "it is gone"}
    assert (second.valid, second.total_reward) == (True, 4.0)
    assert pool.open_now == set()


async def test_the_log_has_a_line_for_each_episode_that_its_environment_ended(tmp_path):
    log = tmp_path / "clean.jsonl"
    log.write_text("of the day before\n")
    envs = rk.make(Walks(), dataset=rows(2))
    await rk.rollout(envs, going(), steps=3, openai_format_log_file=str(log))
    [line] = [json.loads(line) for line in log.read_text().splitlines()]
    assert line["metadata"] == {
        "session_id": "row-0",
        "seed": 0,
        "total_steps": 3,
        "total_reward": 3.0,
        "terminated": True,
        "success": True,
        "control_plane_summary": {
            "total_reward": 3.0,
            "termination_reason": "control_plane_signal",
            "final_step": 2,
            "control_plane_source": {"at": 3},
        },
    }
    assert [message["role"] for message in line["messages"]][:3] == ["system", "user", "assistant"]


async def test_an_image_is_part_of_the_observation():
    pool = Walks(length=1, pictures=[PICTURE])
    [played, _] = await play(pool)
    assert played.observations[1] == {"at": 1, "image_url": {"url": URL}}


async def test_the_words_of_a_result_with_an_image_are_the_tools_own(tmp_path, monkeypatch):
    """Scripts read them as JSON: of what was played, of what a policy is told, and on the tape."""
    monkeypatch.setenv("EP_PLAYBACK_FILE", str(tmp_path / "tape"))
    told = []

    class Hears(rk.StaticPolicy):
        def add_tool_response(self, env_index, tool_call, tool_response, *more):
            told.append(tool_response)

    [played, _] = await play(Walks(length=1, pictures=[PICTURE]), Hears("go", ["ON"]))
    said = [message for message in played.conversation_history if message["role"] == "tool"]
    assert [message["content"] for message in said] == ['{"at": 1}']
    assert {"type": "image_url", "image_url": {"url": URL}} in played.conversation_history[-1]["content"]
    assert told[0] == '{"at": 1}'
    taped = json.loads((tmp_path / "tape").read_text().splitlines()[-1])["messages"]
    assert '{"at": 1}' in [message["content"] for message in taped]


async def test_a_formatter_makes_the_prompt_of_template_observation_and_context():
    def form(template, observation, context):
        return [
            {"type": "text", "text": f"{template} {observation['at']} {context['map']} {{seed}}"},
            {"type": "image_url", "image_url": {"url": URL}},
        ]

    envs = rk.make(Walks(), dataset=rows(1, "T", map="4x4"), user_prompt_formatter=form)
    [played] = await rk.rollout(envs, policy=going())
    assert played.messages[1]["content"] == [
        {"type": "text", "text": "T 0 4x4 {seed}"},
        {"type": "image_url", "image_url": {"url": URL}},
    ]
    assert played.observations[0] == {"at": 0}


@pytest.mark.parametrize(
    ("template", "pool", "says"),
    [
        ("See {nothing}.", {}, "nothing"),
        ("See {observation}.", {"shows": False}, "row-0: user_prompt_template asks for {observation}"),
    ],
)
async def test_a_prompt_that_cannot_be_made_is_raised_and_no_session_is_left(template, pool, says):
    walks = Walks(**pool)
    with pytest.raises((KeyError, ValueError), match=says):
        await rk.rollout(rk.make(walks, dataset=rows(2, template)), going())
    assert walks.open_now == set()


async def test_where_nothing_is_shown_the_instructions_are():
    [played] = await rk.rollout(rk.make(Walks(shows=False, instructions="Go."), dataset=rows(1)), going())
    assert played.messages[1]["content"] == "See Go.."
    [played] = await rk.rollout(rk.make(Walks(shows=False), n=1, seeds=[0]), going())
    assert played.messages[1]["content"] == "Use available tools to interact with the environment."


# ---- policies of the user's own


class Model(rk.LLMBasePolicy):
    """Asks a model that says what it is told to."""

    def __init__(self, *replies, **options):
        super().__init__("model", **options)
        self.replies, self.asked = list(replies), []

    def _convert_mcp_tools_to_llm_format(self, mcp_tools):
        return [{"mine": tool["name"], "schema": tool["input_schema"]} for tool in mcp_tools]

    async def _make_llm_call(self, messages, tools):
        self.asked.append((list(messages), tools))
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


def said(*actions, content=None, finish_reason="tool_calls"):
    calls = [
        {"id": f"c{at}", "type": "function", "function": {"name": "go", "arguments": json.dumps({"action": action})}}
        for at, action in enumerate(actions)
    ]
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    message = {"role": "assistant", "content": content, "tool_calls": calls or None}
    return {"choices": [{"message": message, "finish_reason": finish_reason}], "usage": usage}


async def test_a_users_model_is_asked_with_its_own_form_of_tools_and_clean_messages():
    policy = Model(said("ON"), said("ON", "ON"))
    [played] = await play(Walks(), policy, count=1)
    assert (played.steps, played.total_reward) == (3, 3.0)
    (first, tools), (second, _) = policy.asked
    assert tools == [{"mine": "go", "schema": {"type": "object", "properties": {"action": {"type": "string"}}}}]
    assert [message["role"] for message in first] == ["system", "user"]
    assert [message["role"] for message in second] == ["system", "user", "assistant", "tool"]
    assert {key for message in second for key in message} <= {"role", "content", "tool_calls", "tool_call_id", "name"}
    assert played.usage == {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
    assert policy.conversation_histories[0] == played.conversation_history


async def test_of_more_calls_than_a_policy_wants_in_a_turn_the_first_are_made():
    policy = Model(said("ON", "CRASH"), said("ON"), said("ON"), max_tools_per_turn=1)
    [played] = await play(Walks(), policy, count=1)
    assert played.steps == 3
    assert all(len(message.get("tool_calls") or [1]) == 1 for message in played.messages)


async def test_a_reply_without_a_call_ends_the_episode():
    [played] = await play(Walks(), Model(said("ON"), said(content="Enough.", finish_reason="stop")), count=1)
    assert (played.steps, played.terminated, played.termination_reason) == (1, True, "stop")
    assert len(played.observations) == 2
    assert played.messages[-1]["content"] == "Enough."


@pytest.mark.parametrize(
    ("reply", "says"), [(RuntimeError("no model"), "no model"), ({"answer": 1}, "_make_llm_call has to return")]
)
async def test_a_model_that_fails_makes_no_move(reply, says):
    pool = Walks()
    [played] = await play(pool, Model(said("ON"), reply), count=1)
    assert (played.valid, played.steps, len(pool.calls)) == (False, 1, 1)
    assert says in played.error


class Older(rk.PlaybackPolicyBase):
    """In the older form, and as reward-kit's examples are written: it keeps its conversations itself."""

    model_id = "older"

    def __init__(self):
        super().__init__()
        self.seen, self.told = [], []

    async def _generate_live_tool_calls(self, tool_schemas, observations, system_prompts, user_prompts):
        self.seen.append((list(observations), list(system_prompts), list(user_prompts)))
        if not self.initialized:
            self.conversation_histories = {at: [] for at in range(len(observations))}
            self.initialized = True
        for at in range(len(observations)):
            call = {"id": f"mine_{at}", "type": "function", "function": {"name": "go", "arguments": '{"action": "ON"}'}}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
            self.conversation_histories[at].append(message)
        return [rk.MCPToolCall("go", {"action": "ON"}) for _ in observations]

    def add_tool_response(self, env_index, tool_call, tool_response, reward=0.0, terminated=False, info=None):
        self.told.append((env_index, tool_call.tool_name, tool_response, reward, terminated))
        self.conversation_histories[env_index].append({"role": "tool", "content": tool_response})


async def test_a_policy_of_the_older_form_is_asked_for_all_environments_at_once():
    policy = Older()
    first, second = await play(Walks(), policy)
    assert (first.total_reward, second.total_reward) == (3.0, 4.0)
    assert [observations for observations, _, _ in policy.seen] == [
        [{"at": 0}, {"at": 0}],
        [{"at": 1}, {"at": 1}],
        [{"at": 2}, {"at": 2}],
        [{"at": 3}, {"at": 3}],  # the first is over, and has its place all the same
    ]
    assert policy.seen[1][2] == ["See {'at': 1}.", "See {'at': 1}."]
    assert first.messages[2]["tool_calls"][0]["id"] == "mine_0"
    assert policy.told[0][1:] == ("go", '{"at": 1}', 1.0, False)
    assert [told[4] for told in policy.told if told[0] == 0] == [False, False, True]


async def test_a_bare_function_of_the_older_form_is_a_policy_too():
    async def policy(tool_schemas, observations, system_prompts, user_prompts):
        return [rk.MCPToolCall(tools[0]["name"], {"action": "ON"}) for tools in tool_schemas]

    assert [one.steps for one in await play(Walks(), policy)] == [3, 4]


async def test_a_policy_that_raises_when_it_is_asked_for_all_makes_no_move_in_any():
    def policy(tool_schemas, observations, system_prompts, user_prompts):
        raise RuntimeError("no idea")

    assert [(one.valid, one.steps, one.error) for one in await play(Walks(), policy)] == [
        (False, 0, "RuntimeError: no idea")
    ] * 2


async def test_a_function_of_the_newer_form_may_write_its_own_message():
    async def policy(tool_schemas, env_index, conversation_history):
        call = {"id": "own", "type": "function", "function": {"name": "go", "arguments": "{}"}}
        conversation_history.append({"role": "assistant", "content": "Hm.", "tool_calls": [call]})
        return [rk.MCPToolCall("go", {}, "own")], {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}, None

    [played] = await play(Walks(), policy, count=1)
    assert played.messages[2]["content"] == "Hm."
    assert played.usage["total_tokens"] == 6


async def test_muxsims_own_policies_play_as_well():
    class Going:
        async def next_message(self, conversation, tools, seed):
            call = {"id": f"c{len(conversation)}", "type": "function", "function": {"name": "go", "arguments": "{}"}}
            return Reply({"role": "assistant", "content": None, "tool_calls": [call]})

    assert [one.steps for one in await play(Walks(), Going())] == [3, 4]


async def test_what_is_no_policy_is_refused():
    with pytest.raises(TypeError, match="is no policy: it takes neither"):
        await play(Walks(), lambda observation: None)


async def test_a_policy_that_holds_something_is_closed_after_each_rollout():
    class Holding(rk.StaticPolicy):
        closed = 0

        async def aclose(self):
            self.closed += 1

    policy = Holding("go")
    await play(Walks(), policy)
    await play(Walks(), policy)
    assert policy.closed == 2


# ---- by hand


async def test_environments_can_be_stepped_by_hand():
    pool = Walks()
    envs = rk.make(pool, dataset=rows(2))
    observations, schemas, prompts = await envs.reset()
    assert observations == [{"at": 0}, {"at": 0}]
    assert schemas[1] == [{"name": "go", "description": "Go on.", "input_schema": schemas[1][0]["input_schema"]}]
    assert prompts == ["Walk.", "Walk."]
    assert envs.format_user_prompts(observations) == ["See {'at': 0}."] * 2
    go = rk.MCPToolCall("go", {"action": "ON"})
    observations, rewards, dones, infos = await envs.step([go, go])
    assert (observations, rewards, dones) == ([{"at": 1}, {"at": 1}], [1.0, 1.0], [False, False])
    assert infos[0]["control_plane"]["step"] == 1
    assert (await envs.step(0, go))[0] == {"at": 2}
    assert await envs.step(0, rk.MCPToolCall("_no_tool_call", {})) == ({"at": 2}, 0.0, True, {})
    assert await envs.reset(envs.sessions[0]) == ({"at": 0}, schemas[0])
    assert len(pool.open_now) == 2
    await envs.close()
    assert pool.open_now == set()


async def test_what_fails_by_hand_is_raised_as_it_is_when_the_others_are_done():
    pool = Walks()
    envs = rk.make(pool, dataset=rows(2))
    await envs.reset()
    with pytest.raises(EnvironmentGone, match="it is gone"):
        await envs.step([rk.MCPToolCall("go", {"action": action}) for action in ("CRASH", "RIGHT")])
    assert envs.sessions[1].last_observation == {"at": 1}
    envs.sessions[0].seed = -1
    with pytest.raises(ValueError, match="-1 is no seed"):
        await envs.reset()
    assert envs.sessions[1].last_observation == {"at": 0}
    await envs.close()
    assert not pool.open_now


async def test_a_step_by_hand_of_what_has_not_begun_says_so():
    with pytest.raises(Exception, match="environment 0 has not been reset"):
        await rk.make(Walks(), dataset=rows(1)).step(0, rk.MCPToolCall("go", {}))
    with pytest.raises(ValueError, match="2 calls are wanted"):
        await rk.make(Walks(), dataset=rows(2)).step([])


async def test_a_server_is_tested_with_seeds():
    assert await rk.test_mcp(Walks(), [0, 1]) == {
        "total_tests": 2,
        "successful": 2,
        "failed": 0,
        "results": [
            {"seed": 0, "status": "success", "steps": 3, "total_reward": 3.0},
            {"seed": 1, "status": "success", "steps": 4, "total_reward": 4.0},
        ],
    }
    failed = await rk.test_mcp("http://127.0.0.1:9", [3])
    assert (failed["successful"], failed["failed"], failed["results"][0]["status"]) == (0, 1, "failed")
