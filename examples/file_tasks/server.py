"""Three tools for the files of a workspace, and nothing outside of it."""

import os
from pathlib import Path

from mcp.server.mcpserver import MCPServer

HERE = Path(os.environ["MUXSIM_WORKSPACE"]).resolve()
server = MCPServer("file_tasks", instructions="Work on the files of your folder, then say that you are done.")


def _inside(path: str) -> Path:
    place = (HERE / path).resolve()
    if not place.is_relative_to(HERE):
        raise ValueError(f"{path} is outside of your folder")
    return place


@server.tool()
def list_files() -> list[str]:
    """The files there are."""
    return sorted(str(path.relative_to(HERE)) for path in HERE.rglob("*") if path.is_file())


@server.tool()
def read_file(path: str) -> str:
    """What a file says."""
    return _inside(path).read_text(encoding="utf-8")


@server.tool()
def write_file(path: str, text: str) -> str:
    """Write a file, in place of what it said."""
    place = _inside(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text, encoding="utf-8")
    return f"{path} has {len(text)} characters."


if __name__ == "__main__":
    server.run()
