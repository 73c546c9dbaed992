"""A pool whose environments are played by a test: nothing starts, and every call is told beforehand."""

import importlib
import sys
from types import ModuleType

from muxsim.errors import UnknownEnvironment
from muxsim.rollouts.data.trajectory import Control
from muxsim.rollouts.environments.environment import EnvironmentFailed, Opened, Tool, ToolResult

MOVE = Tool(
    "move",
    "Move one tile.",
    {
        "type": "object",
        "properties": {"direction": {"enum": ["left", "right"]}, "steps": {"type": "integer", "default": 1}},
        "required": ["direction"],
    },
)


def said(text, reward=0.0, **control):
    """A result with a control plane."""
    return ToolResult(text_block(text), is_error=False, control=Control(reward=reward, **control))


def text_block(text):
    return [{"type": "text", "text": text}]


class FakeEnvironment:
    """A session that says ``script`` one by one, and raises what in it is an exception."""

    def __init__(self, env, seed, script, opened, counts=True):
        self.id, self.env, self.seed, self.opened = f"session-{seed}", env, seed, opened
        self.counts = counts
        self.script = iter(script)
        self.called = []
        self.rewards = []
        self.closed = 0

    async def call(self, tool, arguments, *, timeout=None):
        self.called.append((tool, arguments))
        result = next(self.script)
        if isinstance(result, BaseException):
            raise result
        if result.control is not None and result.control.reward is not None:
            self.rewards.append(result.control.reward)
        return result

    async def earned(self, *, timeout=None, over=False):
        if over and not self.counts:
            raise EnvironmentFailed("control://status says otherwise")
        return float(sum(self.rewards)) if self.opened.published else None

    async def close(self):
        self.closed += 1


class FakePool:
    """Sessions that all say the same; a start that is an exception in ``starts`` raises it.

    Without ``counts`` an environment's own count of what was earned is another than that of its results.
    """

    def __init__(
        self, *script, tools=(MOVE,), published=True, state="Go.", instructions="Walk.", starts=(), counts=True
    ):
        self.script, self.counts = script, counts
        self.opened = Opened(
            instructions=instructions,
            tools=tuple(tools),
            initial_state=None if state is None else {"observation": state},
            published=published,
        )
        self.starts = iter(starts)
        self.sessions = []

    environments = ("lake",)

    async def open(self, env, seed, *, start_timeout=None):
        if env not in self.environments:
            raise UnknownEnvironment(f"no environment is called {env!r}")
        failure = next(self.starts, None)
        if failure is not None:
            raise failure
        self.sessions.append(FakeEnvironment(env, seed, self.script, self.opened, self.counts))
        return self.sessions[-1]


def stand_in(monkeypatch, adapter, **modules):
    """An adapter's module, imported over stand-ins for what it needs: names of modules, with ``__`` for dots."""
    for name, members in modules.items():
        dotted = name.replace("__", ".")
        for depth in range(dotted.count(".") + 1):
            package = dotted.rsplit(".", dotted.count(".") - depth)[0]
            if package not in sys.modules or not hasattr(sys.modules[package], "stands_in"):
                module = ModuleType(package)
                module.stands_in = True
                monkeypatch.setitem(sys.modules, package, module)
        vars(sys.modules[dotted]).update(members)
    monkeypatch.delitem(sys.modules, adapter, raising=False)
    made = importlib.import_module(adapter)
    monkeypatch.delitem(sys.modules, adapter)  # nobody else is to find it
    return made
