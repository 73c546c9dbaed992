"""Python tools as environments: `uvx package[@version]` installed once, then run without uv in the process tree."""

from __future__ import annotations

import platform
import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from muxsim.errors import PackageError
from muxsim.provision.cache import key, made_whole
from muxsim.provision.installer import Installer, Program
from muxsim.provision.uvx import UvxCall, is_uvx, parse_uvx
from muxsim.spec import EnvSpec, literal

_UV: Final = Program(
    name="uv",
    needs=("uv",),
    get_it="install uv (https://docs.astral.sh/uv)",
    installs="Python tool",
    source="package index",
    unreachable=re.compile(rb"(?i)error sending request|failed to fetch|could not connect|dns error|timed out"),
    offline={"UV_OFFLINE": "1"},
)


class UvTools:
    """What `uvx` names, see `provider.Provider`."""

    program = _UV

    def takes(self, spec: EnvSpec) -> bool:
        """Whether it is a command line of uvx."""
        return is_uvx(spec.command)

    async def prepare(self, spec: EnvSpec, installer: Installer) -> EnvSpec:
        """The spec with its tool installed and its command resolved to the tool's own."""
        try:
            call = parse_uvx(spec.args)
        except ValueError as error:
            raise PackageError(str(error)) from error
        # The machine is in the key because packages may hold compiled parts and home folders are shared.
        home = installer.cache / key(call.command, call.package, *call.options, platform.machine())

        async def build(home: Path, before: Path, lock: int) -> None:
            args = ("tool", "install", *call.options, "--", call.package)
            folders = {"UV_TOOL_DIR": str(home / "tools"), "UV_TOOL_BIN_DIR": str(home / "bin"), "UV_NO_PROGRESS": "1"}
            # What a session compiles, only it has.
            folders["UV_COMPILE_BYTECODE"] = "1"
            await installer.install(args, home, lock, what=call.package, folders=folders)

        await made_whole(home, build)
        command, *first = map(literal, _command_line(home, call))
        return replace(spec, command=command, args=(*first, *call.args), package=call.package, installed=(str(home),))


def _command_line(home: Path, call: UvxCall) -> tuple[str, ...]:
    """What to execute: a Python script by its own interpreter, so that it can be started as one; others as they are."""
    entry = home / "bin" / call.command
    if not entry.exists():
        there = ", ".join(sorted(path.name for path in (home / "bin").iterdir())) or "it has none"
        raise PackageError(f"{call.package} has no command {call.command}: use uvx --from with one of its own: {there}")
    script = entry.resolve()
    python = script.with_name("python")
    with script.open("rb") as file:
        is_script = file.read(2) == b"#!"
    return (str(python), str(script)) if is_script and python.exists() else (str(entry),)
