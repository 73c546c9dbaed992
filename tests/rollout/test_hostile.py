"""A hostile environment and a hostile endpoint, drawn at random: no valid episode has a total that is not the truth.

The environment keeps its own count of what was earned, apart from all that it says. What it says is cut, lost or
untrue: results, reads of the control plane, errors. A session of muxsim stands between, as in life.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import msgspec
import trio
import trio.testing
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from session.fake_backend import fake_session

from muxsim.rollouts.data.trajectory import EndReason
from muxsim.rollouts.environments.environment import EnvironmentGone
from muxsim.rollouts.environments.mcp_environment import MCPEnvironment, closed_on_failure, shake_hands
from muxsim.rollouts.play.runner import rollout
from muxsim.rollouts.policy.messages import assistant_calls
from muxsim.rollouts.policy.protocol import PolicyError, RateLimited, Reply, TokenLimit
from muxsim.session.control.own_client import OwnClient
from transports import messages
from transports.messages import member

REWARDS = st.sampled_from([0.0, 0.25, 1.0, -0.5])
# What becomes of an answer to a call that has moved the game.
RESULTS = ["fine"] * 6 + [
    "error",
    "malformed",
    "empty",
    "numb",
    "unreadable",
    "dies",
    "is-error",
    "meta",
    "odd-meta",
    "lies",
    "mum",
]
# What becomes of one read of a part.
READS = ["fine"] * 8 + ["error", "malformed", "text", "null", "not-there"]
TURNS = ["call"] * 6 + ["two", "refused", "bad-json", "unknown"]
ENDS = ["no-call", "cut", "full", "policy", "limited", "raises", "steps"]


@dataclass
class Hostile:
    """A game whose truth is ``earned``; ``results`` and ``reads`` say what is done to each answer, in turn."""

    rewards: list
    results: list
    reads: list
    ends_after: int
    tells_total: bool = True
    earned: float = 0.0
    steps: int = 0
    last: float = 0.0
    session: object = None
    said: list = field(default_factory=list)

    def status(self):
        over = self.steps >= self.ends_after
        total = {"total_reward": self.earned} if self.tells_total else {}
        return {"terminated": over, "truncated": False, "step": self.steps, **total}

    def call(self, request):
        params = msgspec.json.decode(bytes(request.params))
        if params["name"] != "go":
            return messages.error(request.id, -32602, "no such tool")
        how = self.results.pop(0) if self.results else "fine"
        if how != "is-error":  # a mistake of the agent's moves nothing
            self.last = self.rewards[self.steps % len(self.rewards)]
            self.steps += 1
            self.earned += self.last
        return self.answer(request, how)

    def answer(self, request, how):
        good = {"content": [{"type": "text", "text": "on"}]}
        match how:
            case "error":
                return messages.error(request.id, -32603, "the game is confused")
            case "malformed":
                return messages.result(request.id, {"content": "on"})
            case "empty":
                return messages.result(request.id, {})
            case "numb":
                return messages.result(request.id, 7)
            case "is-error":
                return messages.result(request.id, {**good, "isError": True})
            case "meta":
                control = {**self.status(), "reward": self.last, "info": {}}
                control.pop("total_reward", None)
                return messages.result(request.id, {**good, "_meta": {"muxsim/control": control}})
            case "lies" | "mum":
                said = self.last + self.tells_total  # where nothing else is told, nothing contradicts a lie
                control = {**self.status(), "reward": said if how == "lies" else None, "info": {}}
                control.pop("total_reward", None)
                result = {**good, "isError": how == "mum", "_meta": {"muxsim/control": control}}
                return messages.result(request.id, result)
            case "odd-meta":
                return messages.result(request.id, {**good, "_meta": {"muxsim/control": {"reward": "0"}}})
            case "unreadable":
                id = request.id
                self.session.seam.unreadable(b'{"jsonrpc": "2.0", "id": %d, "resu' % id, _Torn())
                self.session.seam.from_backend(_nothing_about(id))
                return None
            case "dies":
                self.session.end("backend_exited", "the backend exited with status 3")
                return None
        return messages.result(request.id, good)

    def read(self, request):
        uri = msgspec.json.decode(member(request.params, "uri"))
        part = uri.removeprefix("control://")
        how = self.reads.pop(0) if self.reads else "fine"
        values = {
            "reward": {"reward": self.last, "step": self.steps},
            "status": self.status(),
            "info": {},
            "initial_state": {"observation": "a game"},
        }
        texts = {
            "fine": msgspec.json.encode(values[part]).decode(),
            "malformed": "[1, 2",
            "text": '"all is well"',
            "null": "null",
        }
        if how == "error":
            return messages.error(request.id, -32603, "the disk is on fire")
        if how == "not-there" and part == "initial_state":
            return messages.error(request.id, -32002, "no such resource")
        return messages.result(request.id, {"contents": [{"uri": uri, "text": texts.get(how, texts["fine"])}]})

    def answers(self):
        shaken = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "h", "version": "1"}}
        tools = {"tools": [{"name": "go", "inputSchema": {"type": "object"}}]}
        parts = [{"uri": f"control://{part}", "name": part} for part in ("reward", "status", "info", "initial_state")]
        return {
            "initialize": lambda request: messages.result(request.id, shaken),
            "tools/list": lambda request: messages.result(request.id, tools),
            "resources/list": lambda request: messages.result(request.id, {"resources": parts}),
            "resources/read": self.read,
            "tools/call": self.call,
        }


class _Torn(Exception):
    message = "not JSON"


def _nothing_about(id):
    return messages.notification("notifications/message", {"level": "info", "data": f"so much for {id}"})


class Channel:
    """A session without its process."""

    def __init__(self, session):
        self.session = session
        self.client = OwnClient(session)

    async def ask(self, method, params, timeout):
        await trio.lowlevel.checkpoint()
        if not self.session.live:
            raise EnvironmentGone(self.session.ending.text)
        return await self.client.ask(method, params, timeout)

    async def notify(self, method):
        await trio.lowlevel.checkpoint()

    async def finish(self):
        await trio.lowlevel.checkpoint()

    close = finish

    def last_words(self):
        return ()


class Pool:
    environments = ("game",)

    def __init__(self, game):
        self.game = game

    async def open(self, env, seed, *, start_timeout=None):
        session, _ = fake_session(self.game.answers())
        self.game.session = session
        channel = Channel(session)
        async with closed_on_failure(channel, env):
            return MCPEnvironment("one", env, seed, channel, await shake_hands(channel, 5))


class Endpoint:
    """Plays its turns, then ends in its way."""

    def __init__(self, turns, end):
        self.turns, self.end = list(turns), end

    async def next_message(self, conversation, tools, seed):
        await trio.lowlevel.checkpoint()
        if not self.turns:
            return self.last()
        match self.turns.pop(0):
            case "two":
                return Reply(assistant_calls([("go", {}), ("go", {})], len(conversation)))
            case "refused" | "unknown":
                return Reply(assistant_calls([("fly", {})], len(conversation)))
            case "bad-json":
                function = {"name": "go", "arguments": '{"to": '}
                call = {"id": f"c{len(conversation)}", "type": "function", "function": function}
                return Reply({"role": "assistant", "content": None, "tool_calls": [call]})
        return Reply(assistant_calls([("go", {})], len(conversation)))

    def last(self):
        faults = {
            "full": TokenLimit("full"),
            "policy": PolicyError("no"),
            "limited": RateLimited("429"),
            "raises": KeyError("oh"),
        }
        if self.end in faults:
            raise faults[self.end]
        if self.end == "steps":
            return Reply(assistant_calls([("go", {})], 99))
        return Reply({"role": "assistant", "content": "bye"}, finish_reason="length" if self.end == "cut" else "stop")


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(
    rewards=st.lists(REWARDS, min_size=1, max_size=5),
    results=st.lists(st.sampled_from(RESULTS), max_size=8),
    reads=st.lists(st.sampled_from(READS), max_size=30),
    turns=st.lists(st.sampled_from(TURNS), max_size=6),
    end=st.sampled_from(ENDS),
    ends_after=st.integers(1, 8),
    tells_total=st.booleans(),
)
@example([1.0], ["meta", "mum", "meta"], [], ["call"] * 3, "no-call", 8, False)
@example([1.0], ["fine", "error", "fine"], [], ["call"] * 3, "no-call", 8, False)
@example([1.0], ["meta", "error", "meta"], [], ["call"] * 3, "no-call", 8, False)
def test_no_valid_episode_has_another_total_than_the_environments_own(
    rewards, results, reads, turns, end, ends_after, tells_total
):
    game = Hostile(rewards, results, reads, ends_after, tells_total)

    async def play():
        with trio.fail_after(1000):
            row = {"id": "row", "env": "game", "seed": 0}
            return await rollout(Pool(game), [row], policy=Endpoint(turns, end), max_steps=8, call_timeout=30)

    (trajectory,) = trio.run(play, clock=trio.testing.MockClock(autojump_threshold=0.001))
    called = [call["id"] for message in trajectory.messages for call in message.get("tool_calls") or ()]
    answered = [message["tool_call_id"] for message in trajectory.messages if message["role"] == "tool"]
    assert called == answered
    if trajectory.valid:
        assert trajectory.total_reward is not None
        assert math.isclose(trajectory.total_reward, game.earned, abs_tol=1e-9)
    else:
        assert trajectory.total_reward is None
        assert trajectory.error
    assert trajectory.end_reason is not EndReason.MACHINERY_FAILED, "nothing of muxsim's has failed here"
