"""What can go wrong, and who gets to read it."""


class ToolError(Exception):
    """The call failed, and the message is for the agent: the result has `isError` and this text.

    Raise it from a tool for a failure that the agent can do something about. Any other exception is a
    defect: the agent reads only its type, and the traceback goes to stderr.
    """


class InvalidArguments(ToolError):
    """The arguments do not fit the tool's schema. Nothing has happened to the environment."""


class InvalidAction(InvalidArguments):
    """The action is not an element of the action space. Nothing has happened to the environment."""


class EpisodeEnded(ToolError):
    """A step was asked for after the end of the episode. Nothing has happened to the environment."""


class EnvironmentFailed(ToolError):
    """`env.step` raised, or returned what Gymnasium does not allow. No reward was recorded for that step."""


class UnsupportedSpace(TypeError):
    """No JSON schema can be made for this action space: the author has to write tools."""
