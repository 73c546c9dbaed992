"""Cannot be made."""

from muxsim.mcpgym import GymServer


def make(seed):
    raise RuntimeError(f"no world for seed {seed}")


if __name__ == "__main__":
    GymServer("broken", make).run()
