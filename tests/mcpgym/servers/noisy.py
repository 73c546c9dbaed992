"""Writes to stdout in all the ways that environment code does, at every moment from the first call of `make` on."""

import atexit
import ctypes
import os
import subprocess
import sys

import gymnasium
from gymnasium import spaces

from muxsim.mcpgym import GymServer

libc = ctypes.CDLL(None)


def make_noise(when):
    print(f"NOISE print {when}")
    sys.stdout.write(f"NOISE no newline {when}")
    sys.__stdout__.write(f"NOISE dunder {when}\n")
    os.write(1, f"NOISE fd {when}\n".encode())
    libc.puts(f"NOISE libc {when}".encode())
    subprocess.run(["echo", f"NOISE child {when}"], check=True)


class Noisy(gymnasium.Env):
    action_space = spaces.Discrete(2)
    observation_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        make_noise("reset")
        return sys.stdin.read(), {}

    def step(self, action):
        make_noise("step")
        return sys.stdin.read(), 0.0, False, False, {}

    def close(self):
        make_noise("close")


def make(seed):
    make_noise("make")
    return Noisy()


server = GymServer("noisy", make)

if __name__ == "__main__":
    print("NOISE before the run")
    atexit.register(make_noise, "exit")
    server.run()
