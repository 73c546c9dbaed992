"""What an agent may see of a session: everything but the control plane, and what a backend says on stderr."""

from __future__ import annotations

from typing import Final

from muxsim.session import agent_answers, agent_requests
from muxsim.session.attachment import Attachment
from transports import messages
from transports.errors import INTERNAL_ERROR, METHOD_NOT_FOUND
from transports.messages import Kind, Message, RequestId, error_code, member, members_of

BACKEND_ENDED: Final = "the backend has ended"
"""All that an agent is told of a failure whose reason may quote what the backend said."""


class AgentAttachment(Attachment):
    """A client that must not see the control plane: neither its resources nor its ``_meta``, whatever it asks for."""

    is_agent = True

    def receive(self, message: Message) -> None:
        """Take a message from the agent: what it may say goes on, made anew; another request is refused."""
        try:
            admitted = agent_requests.admitted(message)
        except agent_requests.NotForAgents as refusal:
            if message.kind is Kind.REQUEST:
                self._conversation.refuse(self, message, refusal.code, str(refusal))
            elif message.is_answer and message.id is not None:
                super().receive(messages.error(message.id, refusal.code, str(refusal)))
        else:
            admitted.origin = message.origin
            super().receive(admitted)

    def deliver(self, message: Message, about: RequestId | None = None) -> None:
        """Pass on what the backend says, without what the agent must not see."""
        try:
            super().deliver(agent_answers.heard(message), about)
        except agent_answers.Withheld:
            self._withhold(message, about)

    def tell(self, answer: Message, about: RequestId | None = None) -> None:
        """Send an answer of muxsim's own; of a backend's death, the bare fact."""
        super().tell(_bare(answer) if answer.kind is Kind.ERROR else answer, about)

    def _withhold(self, message: Message, about: RequestId | None) -> None:
        if message.is_answer:
            self.tell(messages.error(message.id, INTERNAL_ERROR, "the answer is not for an agent"), about)
        elif message.kind is Kind.REQUEST:
            super().receive(messages.error(message.id, METHOD_NOT_FOUND, "this client may not be asked that"))


def _bare(error: Message) -> Message:
    """The error without what a backend left behind, its status and its last lines on stderr, and who ended it."""
    data = members_of(member(error.members["error"], "data"))
    if data.keys() <= {"cause"}:
        return error
    said = BACKEND_ENDED if "exit_status" in data else "the session has ended"
    bare = messages.error(error.id, error_code(error) or INTERNAL_ERROR, said, {"cause": data.get("cause")})
    return bare if error.id is None else bare.with_id(error.id, error.raw_id)
