"""A reader of event streams as the HTML standard describes it (9.2.6), comments and retry included."""

import codecs
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    data: str
    name: str = "message"
    id: str = ""


class EventSource:
    """Takes bytes as they come; what has been dispatched so far is in ``events``."""

    def __init__(self):
        self.events = []
        self.comments = []
        self.last_id = ""
        self.retry = None
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._rest = ""
        self._name = ""
        self._data = []

    def receive_data(self, data):
        text = self._rest + self._decoder.decode(data)
        # A CR at the end may be half of a CR LF.
        held = "\r" if text.endswith("\r") else ""
        text = text.removesuffix(held).replace("\r\n", "\n").replace("\r", "\n")
        *lines, rest = text.split("\n")
        self._rest = rest + held
        for line in lines:
            self._take(line)

    def _take(self, line):
        if not line:
            self._dispatch()
        elif line.startswith(":"):
            self.comments.append(line[1:])
        else:
            field, _, value = line.partition(":")
            self._field(field, value.removeprefix(" "))

    def _field(self, field, value):
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
        elif field == "id" and "\0" not in value:
            self.last_id = value
        elif field == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value)

    def _dispatch(self):
        # An event without a data line is not dispatched; one with an empty data line has "" as its data here, as
        # the readers of MCP clients have it.
        if self._data:
            self.events.append(Event("\n".join(self._data), self._name or "message", self.last_id))
        self._name, self._data = "", []


def read_events(data):
    source = EventSource()
    source.receive_data(data)
    return source.events
