"""What can go wrong in muxsim, by whose fault it is.

The message says what to do about it; everything muxsim raises on purpose is a `MuxsimError`.
"""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def raised_as_itself() -> Iterator[None]:
    """Have an exception come out as itself which our own nurseries have wrapped in groups, if it is the only one."""
    try:
        yield
    except BaseExceptionGroup as group:
        only: BaseException = group
        while isinstance(only, BaseExceptionGroup) and len(only.exceptions) == 1:
            only = only.exceptions[0]
        if isinstance(only, BaseExceptionGroup):
            raise
        raise only from only.__cause__


class MuxsimError(Exception):
    """The root of muxsim's own exceptions."""


class ConfigError(MuxsimError):
    """The config is wrong. ``str()`` is one line: file, table, key, value, what to do.

    ``file`` is the path as the user gave it (or ``the command line``), ``table`` a dotted name
    (``environments.frozen_lake``), ``value`` the value as it stands in the file; ``""`` where there is none.
    """

    def __init__(self, advice: str, *, file: str = "", table: str = "", key: str = "", value: str = "") -> None:
        self.advice = advice
        self.file = file
        self.table = table
        self.key = key
        self.value = value
        super().__init__(": ".join(part for part in (file, self._where(), advice) if part))

    def _where(self) -> str:
        key = f"{self.key} = {self.value}" if self.value else self.key
        return " ".join(part for part in (self.table and f"[{self.table}]", key) if part)


class UnknownEnvironment(MuxsimError):
    """No environment has the name that was asked for, or none was named where several are served."""


class StartError(MuxsimError):
    """A backend could not be started. The message names the environment, the cause and what to do."""


class PlaceError(StartError):
    """A backend could not be started, and its environment is not to blame: there is no folder, say, or no cgroup."""


class PackageError(StartError):
    """What an environment needs could not be installed, is not what was asked for, or has nothing to run.

    ``message`` is one line, ``output`` the lines of an installer that tell why, oldest first; ``str()`` has both.
    """

    def __init__(self, message: str, *, output: tuple[str, ...] = ()) -> None:
        self.message = message
        self.output = output
        super().__init__("\n  ".join((message, *output)))


class Busy(MuxsimError):
    """No session can start now, and waiting for one was no use either; ``retry_after`` is in seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class TooMuch(Busy):
    """This client has too many sessions, or asks for them too fast; others are served."""


class SessionExists(MuxsimError):
    """A session with the id that was asked for is there already."""


class NotRunning(MuxsimError):
    """No muxsim is there to be asked, or not the one that was meant."""


class Gone(NotRunning):
    """The muxsim that was asked was there, and is no more."""


class NotDone(MuxsimError):
    """What an operator wished cannot be done; the message says why."""


class NotThere(NotDone):
    """For there is no such session, or no such command."""


class ListenError(MuxsimError):
    """The address to listen on cannot be had."""


class InUse(ListenError):
    """Somebody listens there already."""
