"""The server's side of MCP: tools for the agent, `control://` resources for the trainer."""

import inspect
import json
import logging
from collections.abc import Mapping
from typing import Any

import anyio
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListResourcesResult,
    ListToolsResult,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    TextContent,
    TextResourceContents,
)

from muxsim.mcpgym.control import CONTROL_META_KEY, CONTROL_RESOURCES, ControlPlane
from muxsim.mcpgym.errors import ToolError
from muxsim.mcpgym.observation import to_content
from muxsim.mcpgym.tools import Tool
from muxsim.mcpgym.tracing import where_seen

_JSON = "application/json"

logger = logging.getLogger(__name__)


class Endpoint:
    """The SDK's server for one episode, which may be made before the episode. It speaks both eras of the protocol."""

    def __init__(self, name: str, *, title: str | None = None, version: str = "") -> None:
        self._handlers = _Handlers()
        self.server: Server[Any] = Server(
            name,
            title=title,
            version=version,
            on_list_tools=self._handlers.list_tools,
            on_call_tool=self._handlers.call_tool,
            on_list_resources=self._handlers.list_resources,
            on_read_resource=self._handlers.read_resource,
        )
        self.server.middleware[:] = where_seen(self.server.middleware)

    def begin(self, tools: Mapping[str, Tool], control: ControlPlane, instructions: str | None) -> None:
        """Serve an episode, before the first request comes."""
        self._handlers.tools, self._handlers.control = tools, control
        self.server.instructions = instructions


class _Handlers:
    tools: Mapping[str, Tool]
    control: ControlPlane

    def __init__(self) -> None:
        self._one_call_at_a_time = anyio.Lock()

    async def list_tools(self, _context: Any, _params: Any) -> ListToolsResult:
        return ListToolsResult(tools=[tool.definition for tool in self.tools.values()])

    async def call_tool(self, _context: Any, params: CallToolRequestParams) -> CallToolResult:
        tool = self.tools.get(params.name)
        if tool is None:
            known = ", ".join(self.tools)
            raise MCPError(code=INVALID_PARAMS, message=f"Unknown tool: {params.name!r:.80}. There is: {known}")
        # A client may send the next call before it has the answer, and an author's tool may await: steps
        # are taken in the order in which they came, and the rewards of one call never run into another's.
        async with self._one_call_at_a_time:
            self.control.begin_call()
            result = await _call(tool, params.arguments or {}, self.control)
            wish = (params.meta or {}).get(CONTROL_META_KEY)
            if wish is not True and not isinstance(wish, Mapping):
                return result
            control = self.control.of_call(failed=result.is_error, exact=is_exact(wish))
            # A copy: the author may return the same result again, to a call that does not ask.
            return result.model_copy(update={"meta": {**(result.meta or {}), CONTROL_META_KEY: control}})

    async def list_resources(self, _context: Any, _params: Any) -> ListResourcesResult:
        return ListResourcesResult(
            resources=[
                Resource(uri=uri, name=resource.name, description=resource.description, mime_type=_JSON)
                for uri, resource in CONTROL_RESOURCES.items()
            ]
        )

    async def read_resource(self, _context: Any, params: ReadResourceRequestParams) -> ReadResourceResult:
        resource = CONTROL_RESOURCES.get(params.uri)
        if resource is None:
            raise MCPError(code=INVALID_PARAMS, message="Resource not found", data={"uri": params.uri})
        exactly = is_exact((params.meta or {}).get(CONTROL_META_KEY)) and resource.read_exact
        text = json.dumps((exactly or resource.read)(self.control), ensure_ascii=False, allow_nan=False)
        contents = TextResourceContents(uri=params.uri, mime_type=_JSON, text=text)
        return ReadResourceResult(contents=[contents])


async def _call(tool: Tool, arguments: dict[str, Any], control: ControlPlane) -> CallToolResult:
    """The tool's result: failures of any kind are results with `isError`, as the protocol wants them."""
    try:
        parsed = tool.parse(arguments)
        control.require_sound()
        returned = tool.function(**parsed)
        if inspect.isawaitable(returned):
            returned = await returned
        return returned if isinstance(returned, CallToolResult) else CallToolResult(content=to_content(returned))
    except ToolError as error:
        if error.__cause__ is not None:
            logger.warning("%s: %s", tool.definition.name, error, exc_info=error.__cause__)
        return _error(str(error))
    except MCPError:
        raise
    except Exception as error:  # whatever the author's code raises is its own failure, and not the server's end
        logger.exception("the tool %s failed", tool.definition.name)
        return _error(str(control.fail(f"the tool {tool.definition.name} failed ({type(error).__name__})", error)))


def _error(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


def is_exact(wish: Any) -> bool:
    """Whether what is asked for under `CONTROL_META_KEY` is what the environment itself gave, too."""
    return isinstance(wish, Mapping) and wish.get("exact") is True
