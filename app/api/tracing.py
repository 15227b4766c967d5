"""A span around every request, below the caller's `traceparent` if it sent one."""

from opentelemetry.trace import SpanKind, format_trace_id
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from app.tracing import HEADER, traceparent, tracing


class Traced:
    """The outermost layer: what is inside logs and writes with the trace's id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get(HEADER)
        with tracing.span("request", parent=sent, kind=SpanKind.SERVER) as span, bound_contextvars(request_id=None):
            scope.setdefault("state", {})["trace_id"] = format_trace_id(span.get_span_context().trace_id)

            async def answer(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    message["headers"].append((b"traceparent", (traceparent() or "").encode()))
                await send(message)

            try:
                await self._app(scope, receive, answer)
            finally:
                route = getattr(scope.get("route"), "path", "")
                span.update_name(f"{scope['method']} {route}".strip())
