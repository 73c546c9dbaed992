"""`FastMCP` as far as servers of reward-kit's use it: tools and resources by decorator, one session over stdio."""

import inspect
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any, NoReturn, Protocol, TypeVar, get_args

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
    ToolAnnotations,
)
from mcp_types import Tool as ToolDefinition
from pydantic import Field
from pydantic.fields import FieldInfo

from muxsim.mcpgym.arguments import Read, arguments
from muxsim.mcpgym.control import CONTROL_META_KEY
from muxsim.mcpgym.errors import ToolError
from muxsim.mcpgym.observation import to_content
from muxsim.mcpgym.protocol import is_exact
from muxsim.mcpgym.reward_kit.contents import for_agent
from muxsim.mcpgym.reward_kit.context import Context
from muxsim.mcpgym.reward_kit.endpoints import INITIAL_STATE, OLD_INITIAL_STATE, SCHEME, told_text
from muxsim.mcpgym.tools import named_parameters
from muxsim.mcpgym.tracing import where_seen
from muxsim.mcpgym.wire import Connection

_FunctionT = TypeVar("_FunctionT", bound=Callable[..., Any])
_JSON = "application/json"
_ACTION = "action"

logger = logging.getLogger(__name__)


class Plane(Protocol):
    """The control plane of a server, which stands around its calls."""

    async def call(self, run: Callable[[], Any], *, wish: Any) -> tuple[CallToolResult, dict[str, Any] | None]:
        """The result of a call, and what it has earned if the `wish` is for that and it can be told here."""

    @property
    def resources(self) -> Mapping[str, Callable[[], Awaitable[str]]]:
        """What there is to be read, as JSON text, by URI."""

    @property
    def exact_resources(self) -> Mapping[str, Callable[[], Awaitable[str]]]:
        """Those that have more for who wants what the environment itself gave."""


@dataclass(frozen=True)
class _Tool:
    definition: ToolDefinition
    parse: Read
    function: Callable[..., Any]
    context: str | None
    defaults: dict[str, Any]


@dataclass(frozen=True)
class _Resource:
    definition: Resource
    read: Callable[[], Awaitable[str]]


class FastMCP:
    """Tools and resources. What belongs to HTTP is passed over: muxsim serves that."""

    def __init__(self, name: str | None = None, instructions: str | None = None, **settings: Any) -> None:
        self.name = name or "server"
        self.instructions = instructions
        self.settings = SimpleNamespace(**{"host": "127.0.0.1", "port": 0, "log_level": "INFO", **settings})
        self._tools: dict[str, _Tool] = {}
        self._resources: dict[str, _Resource] = {}
        self._plane: Plane | None = None
        self._one_call_at_a_time = anyio.Lock()

    def __repr__(self) -> str:
        return f"<FastMCP {self.name!r}: {', '.join(self._tools) or 'no tools'}>"

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"the FastMCP of muxsim.mcpgym.reward_kit has no {name!r}: it has tool, resource and run, over stdio; "
            "muxsim itself serves HTTP"
        )

    def tool(
        self,
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        annotations: ToolAnnotations | None = None,
        **_more: Any,
    ) -> Callable[[_FunctionT], _FunctionT]:
        """Decorator: the function is a tool. A parameter that is annotated with `Context` is no argument of it.

        Raises: TypeError: it stands without parentheses, or its parameters cannot be given by name.
        """
        if callable(name):
            raise TypeError("write @mcp.tool(), with parentheses")

        def register(function: _FunctionT) -> _FunctionT:
            self.add_tool(function, name=name, title=title, description=description, annotations=annotations)
            return function

        return register

    def add_tool(
        self,
        fn: Callable[..., Any],
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        annotations: ToolAnnotations | None = None,
        **_more: Any,
    ) -> None:
        """Have a function as a tool, as `tool` does. One of the same name is in its place from then on."""
        parameters = named_parameters(fn)
        context = next((one.name for one in parameters if _is_context(one.annotation)), None)
        taken = [_with_field(one) for one in parameters if one.name != context]
        schema, parse = arguments(taken)
        # Python's own default of a parameter may be a description of one.
        defaults = {one.name: one.default for one in taken if one.default is not one.empty}
        definition = ToolDefinition(
            name=name or fn.__name__,
            title=title,
            description=description or inspect.getdoc(fn) or "",
            input_schema=schema,
            annotations=annotations,
        )
        self._tools[definition.name] = _Tool(definition, parse, fn, context, defaults)

    def resource(
        self,
        uri: str,
        *,
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        mime_type: str | None = None,
        **_more: Any,
    ) -> Callable[[_FunctionT], _FunctionT]:
        """Decorator: what the function returns is a resource; as `control://...` it is the control plane's.

        Raises: ValueError: the URI is a template, which stands for many.
        """
        if "{" in uri:
            raise ValueError(f"{uri} is a template, and those are not served: give each resource a URI of its own")

        def register(function: _FunctionT) -> _FunctionT:
            async def read() -> str:
                value = function()
                return _as_text(await value if inspect.isawaitable(value) else value)

            definition = Resource(
                uri=uri,
                name=name or function.__name__,
                title=title,
                description=description or inspect.getdoc(function) or "",
                mime_type=mime_type or "text/plain",
            )
            self._resources[uri] = _Resource(definition, read)
            return function

        return register

    def custom_route(self, path: str, methods: list[str], **_more: Any) -> Callable[[_FunctionT], _FunctionT]:
        """Decorator that does nothing: a route of HTTP has nobody to ask for it over stdio."""
        logger.warning("%s: %s %s is not served: muxsim serves HTTP", self.name, "/".join(methods), path)
        return lambda function: function

    def hide(self, names: Collection[str]) -> None:
        """Take tools out, if they are there."""
        for name in names:
            if self._tools.pop(name, None) is not None:
                logger.warning("%s: no agent is shown the tool %s", self.name, name)

    def name_actions(self, names: Sequence[str]) -> None:
        """Tell agents what an `action` may be, in the schema of each tool that takes any text as one.

        The tool itself takes what it took before: many do not mind small letters.
        """
        for tool in self._tools.values():
            action = tool.definition.input_schema.get("properties", {}).get(_ACTION, {})
            if action.get("type") == "string" and "enum" not in action:
                action["enum"] = [*names]

    def score_with(self, plane: Plane) -> None:
        """Have a control plane stand around the calls."""
        self._plane = plane

    @property
    def own_resources(self) -> frozenset[str]:
        """The URIs of those that are registered here."""
        return frozenset(self._resources)

    def server(self) -> Server[Any]:
        """The SDK's server for it, connected to nothing yet."""
        server: Server[Any] = Server(
            self.name,
            instructions=self.instructions,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_read_resource=self._read_resource,
        )
        server.middleware[:] = where_seen(server.middleware)
        return server

    def run(self, transport: str = "stdio", **_options: Any) -> None:
        """Serve on stdin and stdout until stdin ends, whatever the `transport` is called."""
        with Connection(self.server()) as connection:
            connection.divert()
            if transport != "stdio":
                logger.warning("%s: over stdio, not %s: muxsim serves HTTP", self.name, transport)
            connection.serve()

    async def _list_tools(self, _context: Any, _params: Any) -> ListToolsResult:
        return ListToolsResult(tools=[tool.definition for tool in self._tools.values()])

    async def _list_resources(self, _context: Any, _params: Any) -> ListResourcesResult:
        own = [resource.definition for resource in self._resources.values()]
        others = [uri for uri in self._readers() if uri not in self._resources]
        return ListResourcesResult(
            resources=own + [Resource(uri=uri, name=uri.removeprefix(SCHEME), mime_type=_JSON) for uri in others]
        )

    async def _read_resource(self, _context: Any, params: ReadResourceRequestParams) -> ReadResourceResult:
        uri = str(params.uri)
        read = self._readers().get(uri)
        if self._plane and is_exact((params.meta or {}).get(CONTROL_META_KEY)) and uri not in self._resources:
            read = self._plane.exact_resources.get(uri, read)
        if read is None:
            raise MCPError(code=INVALID_PARAMS, message="Resource not found", data={"uri": uri})
        text = await read()
        is_control = uri.startswith(SCHEME)
        known = self._resources.get(uri)
        mime_type = _JSON if is_control or known is None else known.definition.mime_type
        content = told_text(uri, text) if is_control else text
        return ReadResourceResult(contents=[TextResourceContents(uri=uri, mime_type=mime_type, text=content)])

    def _readers(self) -> dict[str, Callable[[], Awaitable[str]]]:
        """What can be read: that which the server has registered itself before that of its control plane."""
        readers = {**(self._plane.resources if self._plane else {})}
        readers |= {uri: resource.read for uri, resource in self._resources.items()}
        if OLD_INITIAL_STATE in readers:
            readers.setdefault(INITIAL_STATE, readers[OLD_INITIAL_STATE])
        return readers

    async def _call_tool(self, _context: Any, params: CallToolRequestParams) -> CallToolResult:
        tool = self._tools.get(params.name)
        if tool is None:
            known = ", ".join(self._tools)
            raise MCPError(code=INVALID_PARAMS, message=f"Unknown tool: {params.name!r:.80}. There is: {known}")
        wish = (params.meta or {}).get(CONTROL_META_KEY)
        given = params.arguments or {}

        def run() -> Any:
            named = {**tool.defaults, **tool.parse(given)}
            return tool.function(**named, **({tool.context: Context()} if tool.context else {}))

        # Steps are taken in the order in which they came, and no call's rewards run into another's.
        async with self._one_call_at_a_time:
            if self._plane is None:
                return await _called(tool.definition.name, run)
            result, control = await self._plane.call(run, wish=wish)
            if control is None:
                return result
            return result.model_copy(update={"meta": {**(result.meta or {}), CONTROL_META_KEY: control}})


def failed_result(error: BaseException) -> CallToolResult:
    """The result of a tool that has raised: servers of reward-kit's tell the agent in this way what it did wrong."""
    text = str(error) or type(error).__name__
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


async def _called(name: str, run: Callable[[], Any]) -> CallToolResult:
    try:
        value = run()
        return for_agent(await value if inspect.isawaitable(value) else value, ())
    except ToolError as error:
        return failed_result(error)
    except MCPError:
        raise
    except Exception as error:  # whatever the author's code raises is told to who called it, as FastMCP does
        logger.warning("the tool %s failed", name, exc_info=True)
        return failed_result(error)


def _is_context(annotation: Any) -> bool:
    candidates = (annotation, *get_args(annotation))
    return any(isinstance(one, type) and issubclass(one, Context) for one in candidates)


def _with_field(parameter: inspect.Parameter) -> inspect.Parameter:
    """A parameter whose default is pydantic's `Field(...)` as one that is annotated with it."""
    described = parameter.default
    if not isinstance(described, FieldInfo):
        return parameter
    default = parameter.empty if described.is_required() else described.get_default(call_default_factory=True)
    said = Field(description=described.description)  # a default has no place in the schema's own types
    return parameter.replace(annotation=Annotated[parameter.annotation, said, *described.metadata], default=default)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else "".join(getattr(block, "text", "") for block in to_content(value))
