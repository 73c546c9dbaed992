"""What happens to whom: drawn by lot from a seed, before anything of it happens."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One thing that is done to a session, and the seconds before it."""

    kind: str
    arguments: dict
    pause: float

    def __str__(self):
        return f"{self.kind}({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})"


@dataclass(frozen=True)
class Life:
    """One session from its making to its end. Its seed is its name: no other life has it."""

    slot: int
    number: int
    env: str
    way: str
    steps: tuple[Step, ...]
    farewell: str

    @property
    def seed(self):
        return self.slot * 100_000 + self.number


HARMLESS = {
    "say": ("after",),
    "pieces": (),
    "twice": (),
    "unknown_ids": (),
    "not_json": (),
    "not_messages": (),
    "bad_utf8": (),
    "progress": (),
    "log": (),
    "list_changed": (),
}
FATAL_TOOLS = ("exit", "kill_itself", "close_stdout", "half_a_line", "leave_stdout_behind", "close_stdin", "too_long")
HEALTHY = {"naughty": 20, "brisk": 4, "stubborn": 3, "idle": 2, "slow": 1}
UNABLE = {"leaving": 1, "mute": 1, "missing": 1}
ENVS = HEALTHY | {"brief": 2} | UNABLE
SHORT_LIVED = {"brief", *UNABLE}
WAYS = {"header": 6, "url": 4, "sse": 4, "modern": 3}
FAREWELLS = {"delete": 4, "delete by url": 3, "vanish": 1, "deletes at once": 1}
KINDS = {
    "say": 20,
    "harmless": 14,
    "burst": 8,
    "slow": 4,
    "sample": 4,
    "big": 2,
    "flood": 2,
    "stderr flood": 1,
    "close stderr": 1,
    "own error": 2,
    "bad answer": 2,
    "grandchild": 3,
    "cancel": 4,
    "drop": 4,
    "resume": 3,
    "same id twice": 3,
    "bad body": 3,
    "garbage": 2,
    "half body": 2,
    "listen": 2,
    "slow reader": 2,
    "never reads": 1,
    "much for who does not read": 1,
    "fatal": 5,
    "signal": 3,
    "delete in the middle": 2,
}


def drawn(lot, weights):
    return lot.choices([*weights], [*weights.values()])[0]


def draw_life(seed, slot, number):
    """The life that this seed has for this slot, whatever happens meanwhile."""
    lot = random.Random(f"{seed}/{slot}/{number}")
    env = drawn(lot, ENVS)
    steps = tuple(_draw_step(lot) for _ in range(lot.randint(1, 10)))
    return Life(slot, number, env, drawn(lot, WAYS), steps, drawn(lot, FAREWELLS))


def _draw_step(lot):
    kind = drawn(lot, KINDS)
    arguments = {
        "harmless": lambda: {"tool": lot.choice([*HARMLESS])},
        "burst": lambda: {"tools": [lot.choice([*HARMLESS]) for _ in range(lot.randint(2, 12))]},
        "slow": lambda: {"seconds": round(lot.uniform(0, 0.8), 2)},
        "flood": lambda: {"count": lot.randint(1, 300), "size": lot.choice([10, 1000, 20_000])},
        "bad answer": lambda: {"tool": lot.choice(["bad_utf8_reply", "old_reply"])},
        "grandchild": lambda: {"grandchild": lot.choice(["group", "setsid", "double"])},
        "cancel": lambda: {"tool": lot.choice(["hang", "slow"]), "after": round(lot.uniform(0, 0.3), 3)},
        "drop": lambda: {"tool": lot.choice(["hang", "log_then_wait", "big", "say"]), "after": lot.uniform(0, 0.1)},
        "bad body": lambda: {"body": lot.choice(["{", "[]", "null", '{"jsonrpc":"2.0","id":1}', "\ud800" * 3])},
        "garbage": lambda: {"noise": lot.randbytes(lot.randint(1, 300)).hex()},
        "half body": lambda: {"share": lot.random()},
        "slow reader": lambda: {"count": lot.randint(100, 400), "pause": lot.uniform(0, 1)},
        "fatal": lambda: {"tool": lot.choice(FATAL_TOOLS), "waiting": lot.randint(0, 5)},
        "signal": lambda: {"signal": lot.choice(["SIGKILL", "SIGTERM", "SIGSTOP", "SIGSEGV"])},
        "delete in the middle": lambda: {"waiting": lot.randint(1, 5)},
    }.get(kind, dict)()
    return Step(kind, arguments, round(lot.uniform(0, 0.25), 3))


@dataclass(frozen=True)
class Gust:
    """Something that is done to muxsim itself, so many seconds from the start."""

    at: float
    kind: str


def draw_weather(seed, seconds):
    """muxsim is stopped for a moment now and then; once its guardian is killed, or what sessions are forked from."""
    lot = random.Random(f"{seed}/weather")
    gusts = [Gust(lot.uniform(0, seconds), "pause") for _ in range(int(seconds / 15))]
    gusts.append(Gust(lot.uniform(seconds / 4, seconds * 3 / 4), lot.choice(["guardian", "zygotes"])))
    return tuple(sorted(gusts, key=lambda gust: gust.at))
