"""What runs of an environment's script have imported, kept from one run of muxsim to the next."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG

import msgspec

from muxsim.observe.events import CacheNotWritten, Listener, unheard
from muxsim.start.fork.content import Content

# Scripts are edited, and each version has its file: so many of the latest are kept.
KEPT = 200
# The learner writes one name after the other; a file of this size is not that.
_LARGEST = 2**20


@dataclass(frozen=True)
class Learned:
    """``modules`` in the order in which they were looked for; ``left_out`` tells of each why it cannot be held.

    ``seconds`` is how long the learner took to its first answer.
    """

    modules: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0


class LearnedModules:
    """A folder with one file for each interpreter with what is installed for it, and version of a script.

    A file that is no use counts as none.
    """

    def __init__(self, folder: Path, tell: Listener = unheard) -> None:
        self._folder = folder
        self._tell = tell
        self._fails: bool | None = None

    def load(self, key: str) -> Learned | None:
        """What is known; None if nothing is."""
        try:
            return msgspec.json.decode((self._folder / f"{key}.json").read_bytes(), type=Learned)
        except (OSError, msgspec.DecodeError):
            return None

    def save(self, key: str, learned: Learned) -> None:
        """Keep it, if there is room: the next run learns anew if there is not."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
                file.write(msgspec.json.encode(learned))
            os.replace(file.name, self._folder / f"{key}.json")
            self._prune()
        except OSError as error:
            self._tell(CacheNotWritten(str(self._folder), str(error), self._fails))
            self._fails = True

    def _prune(self) -> None:
        files = sorted(self._folder.iterdir(), key=lambda file: file.stat().st_mtime)
        for file in files[:-KEPT]:
            file.unlink(missing_ok=True)


def key_of(content: Content) -> str:
    """The name under which a program's modules are kept."""
    text = json.dumps([content.program.head, os.path.realpath(content.python), content.summary()])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def read_names(file: Path) -> tuple[str, ...]:
    """The names that a learner has written so far; a last line that is not whole yet is left."""
    try:
        # The script may have put there what it likes: nothing to wait for, and no other place.
        fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            text = os.read(fd, _LARGEST).decode("utf-8", "replace") if S_ISREG(os.fstat(fd).st_mode) else ""
        finally:
            os.close(fd)
    except OSError:
        return ()
    return tuple(dict.fromkeys(text.split("\n")[:-1]))
