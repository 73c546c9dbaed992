"""Scores an episode by the files that it has left."""

from pathlib import Path

from muxsim.rollouts import Trajectory


def files(trajectory: Trajectory, workspace: Path) -> dict[str, float]:
    """1 if every file that the row names says what it should, and none of it is missing; ``right`` is their share."""
    wanted = trajectory.info["files"]
    right = sum(_text(workspace / path) == text for path, text in wanted.items())
    return {"reward": float(right == len(wanted)), "right": right / len(wanted)}


def _text(path: Path) -> str | None:
    if path.is_symlink() or not path.is_file():
        return None
    return path.read_text(encoding="utf-8", errors="replace")
