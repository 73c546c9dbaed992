"""A pool of this process without children: a walk to the right, which says what it earns or does not."""

from muxsim.rollouts.data.trajectory import Control
from muxsim.rollouts.environments.environment import EnvironmentGone, Opened, Tool, ToolResult

GO = Tool("go", "Go on.", {"type": "object", "properties": {"action": {"type": "string"}}})


class Walk:
    """Each call goes a step; the last of ``length`` ends it. ``rewards`` are those of the calls."""

    def __init__(self, pool, env, seed):
        self.id, self.env, self.seed, self.pool = f"s{len(pool.opened)}", env, seed, pool
        self.at = 0
        state = {"observation": {"at": 0}, "seed": seed} if pool.shows else None
        self.opened = Opened(instructions=pool.instructions, tools=(GO,), initial_state=state)

    async def call(self, tool, arguments, *, timeout=None):
        pool = self.pool
        pool.calls.append((self.seed, tool, arguments))
        if arguments.get("action") == "CRASH":
            raise EnvironmentGone("it is gone")
        if arguments.get("action") == "WRONG":
            return ToolResult([{"type": "text", "text": "no"}], is_error=True, control=self._control(None))
        self.at += 1
        content = [{"type": "text", "text": f'{{"at": {self.at}}}'}, *pool.pictures]
        reward = pool.rewards[(self.at - 1) % len(pool.rewards)]
        problem = "it says nothing" if reward is None else None
        control = self._control(reward, problem) if pool.scored else None
        return ToolResult(content, is_error=False, control=control)

    def _control(self, reward, problem=None):
        ended = self.at >= self.pool.length + self.seed % 2
        return Control(reward=reward, terminated=ended, step=self.at, info={"at": self.at}, problem=problem)

    async def earned(self, *, timeout=None, over=False):
        return None

    async def finish(self):
        pass

    async def close(self):
        self.pool.open_now.discard(self)


class Walks:
    environments = ("walk",)

    def __init__(self, length=3, rewards=(1.0,), scored=True, shows=True, instructions="", pictures=()):
        self.length, self.rewards, self.scored, self.shows = length, rewards, scored, shows
        self.instructions, self.pictures = instructions, list(pictures)
        self.opened, self.calls, self.open_now = [], [], set()

    async def open(self, env, seed, *, start_timeout=None):
        walk = Walk(self, env, seed)
        self.opened.append(walk)
        self.open_now.add(walk)
        return walk


def rows(count=2, template="See {observation}.", **context):
    return [
        {
            "id": f"row-{at}",
            "system_prompt": "Walk.",
            "user_prompt_template": template,
            "environment_context": {"seed": at, **context},
        }
        for at in range(count)
    ]
