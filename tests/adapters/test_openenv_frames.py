"""What OpenEnv's clients say and are told: frames as such, and whole conversations over sessions that are made up."""

import json
from types import SimpleNamespace

import pytest
from asyncio_tests import on_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from muxsim.adapters import openenv_frames as frames
from muxsim.adapters.openenv_documents import ACTION, OBSERVATION, SCHEMA, STATE, openapi_of
from muxsim.adapters.openenv_frames import CallTool, Fault, ListTools, Reset, Tools, read_frame
from muxsim.adapters.openenv_stage import Catalogues
from muxsim.adapters.openenv_wire import Conversation, OpenEnvWire
from muxsim.rollouts.environments.environment import Opened, Tool
from muxsim.rollouts.environments.mcp_environment import MCPEnvironment
from muxsim.serve.auth.callers import ANYONE
from muxsim.session import agent_answers, agent_requests
from transports import messages
from transports.asgi import Call

SECRET = "nobody's but the trainer's"
META = {"muxsim/control": {"reward": 0.5, "terminated": False, "truncated": False, "step": 1, "info": {"is": SECRET}}}
HIDDEN = {"type": "resource", "resource": {"uri": "control://reward", "text": SECRET}}


def tool(name):
    return Tool(name, f"does {name}", {"type": "object"})


# ---- frames


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        ('{"type": "reset"}', Reset()),
        ('{"type": "reset", "data": {}}', Reset()),
        ('{"type": "reset", "data": {"seed": 0, "episode_id": "e", "split": "test"}}', Reset(0, "e")),
        ('{"type": "reset", "data": {"seed": 7.0}}', Reset(7)),
        ('{"type": "reset", "data": {"seed": null}}', Reset()),
        ('{"type": "step", "data": {"type": "list_tools"}}', ListTools()),
        ('{"type": "step", "data": {"tool_name": "a"}}', CallTool("a", {})),
        ('{"type": "step", "data": {"type": "call_tool", "tool_name": "a", "arguments": {"x": 1}, "metadata": {}}}',
         CallTool("a", {"x": 1})),
    ],
)  # fmt: skip
def test_a_frame_is_read_as_clients_write_it(text, frame):
    assert read_frame(text.encode()) == frame


@pytest.mark.parametrize("seed", ["-1", "2147483648", "1.5", '"1"', "true", "[]", "1e300"])
def test_a_seed_that_is_none_is_named(seed):
    with pytest.raises(Fault) as fault:
        read_frame(b'{"type": "reset", "data": {"seed": %b}}' % seed.encode())
    assert fault.value.code == "VALIDATION_ERROR"
    assert "data.seed" in str(fault.value)
    assert fault.value.more["errors"][0]["loc"] == ["data", "seed"]


def test_reserved_names_are_taken_by_no_tool_and_lead_to_their_own():
    tools = Tools.of((tool("step"), tool("env_step"), tool("look"), tool("close")))
    assert tools.own == {"env_env_step": "step", "env_step": "env_step", "look": "look", "env_close": "close"}
    assert tools.called("env_env_step") == "step"
    with pytest.raises(LookupError, match="env_env_step"):
        tools.called("step")
    with pytest.raises(LookupError, match="look"):
        tools.called("jump")


@given(st.lists(st.sampled_from(["step", "env_step", "env_env_step", "reset", "look", "env_reset"]), unique=True))
def test_every_tool_has_one_name_that_is_nobodys_else_and_not_reserved(names):
    tools = Tools.of(tuple(map(tool, names)))
    assert sorted(tools.own.values()) == sorted(names)
    assert len(tools.listed) == len(names)
    assert not tools.own.keys() & frames.RESERVED


def test_what_a_tool_has_said_is_its_data():
    def data(content, structured=None):
        return json.loads(bytes(frames.result_of(content, structured, is_error=False)))["data"]

    text, image = {"type": "text", "text": "a"}, {"type": "image", "data": "", "mimeType": "image/png"}
    assert data([text]) == "a"
    assert data([text, text]) == "a\na"
    assert data([text, image]) == [text, image]
    assert data([text], {"x": 1}) == {"x": 1}
    assert data([text, HIDDEN]) == [text], "what is of the control plane is not among it"


def test_the_schemas_are_what_clients_go_by():
    assert ACTION["title"] == "CallToolAction"
    assert ACTION["required"] == ["tool_name"]
    assert SCHEMA.keys() == {"action", "observation", "state", "reset_observation"}
    assert OBSERVATION["properties"].keys() == {"tool_name", "result", "error"}
    assert {"episode_id", "step_count"} <= STATE["properties"].keys()
    assert not openapi_of("x")["paths"].keys() & {"/reset", "/step", "/state"}


# ---- conversations


class Script:
    """A session's server, which tells what is not for agents wherever it can."""

    def __init__(self):
        self.steps = 0

    def answer(self, method, params):
        if method == "tools/list":
            listed = [{"name": name, "inputSchema": {"type": "object"}} for name in ("step", "look", "break", "hide")]
            return {"result": {"tools": listed}}
        if method == "resources/read":
            told = {"step": self.steps, "total_reward": 0.5, "info": SECRET}
            return {"result": {"contents": [{"uri": params["uri"], "text": json.dumps(told)}]}}
        if params["name"] == "break":
            return {"error": {"code": -32000, "message": "it is broken", "data": {"cause": "backend_exited"}}}
        self.steps += 1
        content = [{"type": "text", "text": "seen"}, HIDDEN]
        if params["name"] == "hide":
            content = [{**HIDDEN, "uri": "control://status"}]
        return {"result": {"content": content, "isError": params["name"] == "look", "_meta": META}}


class Line:
    """One side of a session; the agent's has the wall that a session's own has."""

    def __init__(self, script, agent):
        self.script, self.agent, self.over = script, agent, ""

    async def ask(self, method, params, timeout):
        request = messages.request(1, method, params)
        if self.agent:
            request = agent_requests.admitted(request)
        asked = json.loads(request.encode())
        said = self.script.answer(method, asked["params"])
        answer = messages.decode(json.dumps({"jsonrpc": "2.0", "id": 1, **said}).encode())
        if self.agent:
            try:
                return agent_answers.heard(answer)
            except agent_answers.Withheld:
                return messages.error(1, -32603, "the answer is not for an agent")
        return answer

    async def notify(self, method):
        """Nothing."""

    async def finish(self):
        self.over = "it has been ended"

    async def close(self):
        await self.finish()

    def last_words(self):
        return ()


class MadeUp:
    """A session, and where it comes from."""

    live = 0

    def __init__(self, site, catalogues, env, caller, peer, origin):
        self.env = env
        self._known = None

    async def open(self, seed):
        script = Script()
        self.channel, self.agent = Line(script, agent=False), Line(script, agent=True)
        tools = tuple(map(tool, ("step", "look", "break", "hide")))
        state = {"observation": [{"type": "text", "text": "start"}, HIDDEN], "info": {"is": SECRET}}
        opened = Opened(instructions="be good", tools=tools, initial_state=state, published=True)
        self.environment = MCPEnvironment("made-up", self.env, seed or 0, self.channel, opened)
        self.shared = False
        MadeUp.live += 1
        session = SimpleNamespace(**vars(self))
        session.ended = lambda: session.channel.over
        session.end = lambda: self.gone(session)
        return session

    def gone(self, session):
        MadeUp.live -= 1
        session.channel.over = "over"

    def room(self):
        return {"active_sessions": MadeUp.live, "max_sessions": 9}

    def catalogue(self):
        return self._known

    def remember(self, tools):
        self._known = tools

    def listen(self, listening):
        """Nothing."""


class Ready:
    """A socket on which all has come already."""

    said_goodbye = False

    def __init__(self, texts):
        self.texts, self.sent = [*texts], []

    async def receive(self):
        return self.texts.pop(0) if self.texts else None

    async def send(self, text):
        self.sent.append(json.loads(text))


async def converse(texts):
    """What is answered to these texts, by a muxsim of which everything is real but its sessions."""
    spec = SimpleNamespace(limits=SimpleNamespace(idle_timeout=60.0))
    leases = SimpleNamespace(held=0, most=9)
    pool = SimpleNamespace(statistics=lambda: SimpleNamespace(leases=leases), refusing=None)

    async def call(function, *arguments):
        return None

    sessions = SimpleNamespace(spec=lambda env: spec, draining=False)
    site = SimpleNamespace(sessions=sessions, pool=pool, bridge=SimpleNamespace(call=call), auth=None)
    wire = OpenEnvWire(site, MadeUp)
    request = Call({"type": "http", "headers": [], "muxsim.caller": ANYONE, "client": ("here", 1)}, None, None)
    seat = wire._new_seat(request, "env", lasts=False)
    socket = Ready(texts)
    seat.socket = socket

    async def agent(value):
        return await wire.respond(request, "env", value, seat)

    await Conversation(socket, seat.play, agent, controls=True).go_on()
    wire._end(seat)
    return socket.sent


names = st.sampled_from(["env_step", "step", "look", "break", "hide", "nothing"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
actions = st.one_of(
    st.builds(lambda name: {"tool_name": name}, names),
    st.builds(lambda name, more: {"type": "call_tool", "tool_name": name, "arguments": more}, names, values),
    st.just({"type": "list_tools"}),
    values,
)
calls = st.builds(lambda name, more: {"name": name, "arguments": more}, names, st.just({}) | values)
requests = st.builds(
    lambda id, method, params: {"jsonrpc": "2.0", "id": id, "method": method, "params": params},
    st.integers(0, 9) | st.text(max_size=3) | values,
    st.sampled_from(["tools/call", "tools/list", "openenv/session/create", "resources/read", "reset"]),
    calls | values,
)
texts = st.one_of(
    st.builds(lambda data: {"type": "reset", "data": data}, st.just({"seed": 3}) | values),
    st.builds(lambda data: {"type": "step", "data": data}, actions),
    st.builds(lambda data: {"type": "mcp", "data": data}, requests | values),
    st.just({"type": "state"}),
    values,
).map(lambda frame: json.dumps(frame).encode()) | st.binary(max_size=20)


def kind_of(text):
    try:
        frame = json.loads(text)
    except (ValueError, UnicodeDecodeError):
        return None
    return frame.get("type") if isinstance(frame, dict) else None


@settings(max_examples=60)
@given(st.lists(texts.filter(lambda text: kind_of(text) != "close"), max_size=8))
def test_each_frame_has_one_answer_in_order_and_no_agent_sees_the_control_plane(said):
    answers = []

    @on_asyncio
    async def play():
        answers.extend(await converse(said))

    play()
    assert len(answers) == len(said)
    for text, answer in zip(said, answers, strict=True):
        kinds = {"reset": "observation", "step": "observation", "state": "state", "mcp": "mcp"}
        assert answer["type"] in {kinds.get(kind_of(text)), "error"}
        data = answer["data"]
        if answer["type"] == "mcp":
            id = json.loads(text)["data"].get("id")
            named = id if isinstance(id, int | str) and not isinstance(id, bool) else None
            assert data["id"] == named
            assert ("result" in data) != ("error" in data)
        shown = data["observation"] if answer["type"] == "observation" else data if answer["type"] == "mcp" else None
        for word in (SECRET, "muxsim/control", "control://", "total_reward"):
            # A client may be told again what it has said itself.
            assert word not in json.dumps(shown) or word.encode() in text
    assert MadeUp.live == 0


@on_asyncio
async def test_what_the_environment_hides_stands_beside_the_observation():
    step = b'{"type": "step", "data": {"tool_name": "env_step"}}'
    first, second = await converse([b'{"type": "reset", "data": {"seed": 3}}', step])
    assert first["data"]["observation"] == {"text": "start", "content": [{"type": "text", "text": "start"}]}
    assert first["data"]["metadata"]["info"] == {"is": SECRET}
    assert first["data"]["metadata"]["instructions"] == "be good"
    assert second["data"]["observation"]["result"]["content"] == [{"type": "text", "text": "seen"}]
    assert (second["data"]["reward"], second["data"]["done"]) == (0.5, False)
    assert second["data"]["metadata"]["info"] == {"is": SECRET}
    assert second["data"]["metadata"]["seed"] == 3


@on_asyncio
async def test_an_environment_that_has_gone_is_an_error_until_a_reset():
    broken, step = (b'{"type": "step", "data": {"tool_name": "%b"}}' % name for name in (b"break", b"env_step"))
    answers = await converse([broken, b'{"type": "reset"}', step])
    assert [answer["type"] for answer in answers] == ["error", "observation", "observation"]
    assert answers[0]["data"]["code"] == "EXECUTION_ERROR"


def test_tools_of_an_environment_are_forgotten_when_it_is_another():
    catalogues = Catalogues()
    before, after = SimpleNamespace(name="env", args=1), SimpleNamespace(name="env", args=2)
    catalogues.remember(before, Tools.of((tool("a"),)))
    assert catalogues.of(before) is not None
    assert catalogues.of(after) is None
