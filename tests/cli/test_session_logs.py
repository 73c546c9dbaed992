"""What sessions write on stderr is kept for their episodes, and for nothing else."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from muxsim.cli.rollout import _SessionLogs
from muxsim.observe.events import BackendStderr, SessionEnded, SessionStarted


class Writes:
    """A run's writer that keeps what it is given."""

    def __init__(self):
        self.kept = {}

    def write_stderr(self, session, lines):
        self.kept[session] = lines


def told(logs, kind, session, *details):
    logs.listen(kind(session, "lake", 0, 1, *details))


@given(st.lists(st.sampled_from(["start fails", "plays", "crashes at once"]), max_size=30))
def test_of_sessions_that_have_ended_nothing_is_held_whether_they_played_or_not(ways):
    logs = _SessionLogs()
    logs.writer = writer = Writes()
    for number, way in enumerate(ways):
        session = f"{way} {number}"
        told(logs, SessionStarted, session)
        told(logs, BackendStderr, session, "before")
        if way == "start fails":
            told(logs, SessionEnded, session, "exited", "it has exited", 0, None, 1.0)
            continue
        episode = SimpleNamespace(session=session)
        if way == "plays":
            logs.started(episode)
            told(logs, BackendStderr, session, "in it")
        told(logs, SessionEnded, session, "exited", "it has exited", 0, None, 1.0)
        logs.ended(episode)
    assert (logs._lines, logs._playing) == ({}, set())
    assert writer.kept == {f"{way} {n}": ["before", "in it"] for n, way in enumerate(ways) if way == "plays"}
