"""Asks the interpreter of an environment what is installed there, and whether it starts (inside/installed.py)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import msgspec

from muxsim import inside
from muxsim.errors import PackageError
from muxsim.inside.installed import ANSWER
from muxsim.processes.command import ProcessStartError
from muxsim.provision.installer import telling_lines
from muxsim.provision.provider import Place
from muxsim.spec import passed_variables


class Told(msgspec.Struct, frozen=True):
    """What an interpreter says of itself."""

    packages: dict[str, str]
    elsewhere: dict[str, str]
    """Those of them that came from a path, an address or a conda channel, and not from an index.

    Each with the address of its commit, as requirements have it, where it came from a repository; else "".
    """

    unlike: dict[str, tuple[str, ...]]
    """By package the files whose contents are not what it says of them, if that was asked."""

    markers: dict[str, str]
    python: str
    fault: str


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to run there: one of these."""

    script: str = ""
    module: str = ""
    command: str = ""

    folders: tuple[str, ...] = ()
    """Where a module may be beside what is installed."""

    def __str__(self) -> str:
        return self.script or self.module or self.command


async def probe(place: Place, entry: Entry, *, files: bool = False) -> Told:
    """What the environment's interpreter says, with ``files`` of the contents of files too.

    Raises PackageError if it does not start, or says nothing.
    """
    python = place.bin / "python"
    asked = msgspec.json.encode({**asdict(entry), "files": files}).decode()
    argv = (str(python), "-I", "-B", inside.INSTALLED, asked)
    # What is imported is not to see what installers may: tokens of an index, say.
    environ = passed_variables(place.tools.variables)
    try:
        done = await place.tools.run(argv, cwd=place.prefix, environ=environ, lock=place.lock)
    except (OSError, ProcessStartError) as error:
        raise PackageError(f"its interpreter {python} does not start: {error}") from error
    for line in reversed(done.stdout.decode(errors="replace").splitlines()):
        if line.startswith(ANSWER):
            try:
                return msgspec.json.decode(line.removeprefix(ANSWER), type=Told)
            except msgspec.MsgspecError:
                break
    raise PackageError(
        f"its interpreter {python} does not say what is installed (exit status {done.returncode})",
        output=telling_lines(done.stdout),
    )
