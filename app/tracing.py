"""W3C trace context through API, message and worker. Spans are always made, and sent only where an endpoint is set.

The trace's id stands in log lines, events and problems by way of structlog's context variables, so that the database's
side needs no tracing library.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, format_trace_id, get_current_span, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from structlog.contextvars import bound_contextvars

HEADER = "traceparent"
_W3C = TraceContextTextMapPropagator()


class Tracing:
    """Where this process's spans go."""

    def __init__(self) -> None:
        self._provider = TracerProvider(resource=Resource({"service.name": "spear-merge"}), shutdown_on_exit=False)

    def send_to(self, endpoint: str, *, service: str) -> None:
        """Send from now on; without an endpoint nothing is ever sent. Call it in the process that makes the spans."""
        if endpoint:
            self._provider = TracerProvider(resource=Resource({"service.name": service}), shutdown_on_exit=True)
            self.add(BatchSpanProcessor(OTLPSpanExporter(endpoint), schedule_delay_millis=1000))

    def add(self, processor: SpanProcessor) -> None:
        """Hand every span that ends to this as well."""
        self._provider.add_span_processor(processor)

    @contextmanager
    def span(
        self, name: str, *, parent: str | None = None, kind: SpanKind = SpanKind.INTERNAL,
        **attributes: str | int | float,
    ) -> Iterator[Span]:
        """A span around the block: below `parent` (a traceparent) if that is given, else below the current one."""
        context = _W3C.extract({HEADER: parent}, context=Context()) if parent else None
        tracer = self._provider.get_tracer("spear")
        made = tracer.start_span(name, context=context, kind=kind, attributes=attributes)
        with (
            use_span(made, end_on_exit=True, record_exception=False, set_status_on_exception=False),
            bound_contextvars(trace_id=format_trace_id(made.get_span_context().trace_id)),
        ):
            try:
                yield made
            except BaseException as error:
                made.set_status(StatusCode.ERROR, type(error).__name__)  # a message may hold what no trace may show
                raise


def traceparent() -> str | None:
    """The current span, as the header that carries it on."""
    carrier: dict[str, str] = {}
    if get_current_span().get_span_context().is_valid:
        _W3C.inject(carrier)
    return carrier.get(HEADER)


def mark_failed(code: str) -> None:
    """The current span ended with an error of ours."""
    get_current_span().set_status(StatusCode.ERROR, code)


tracing = Tracing()
"""of this process"""
