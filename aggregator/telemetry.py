"""The aggregator's own telemetry: Prometheus counters, and traces where they are configured."""

import importlib.util
import logging
from collections.abc import Mapping

from opentelemetry import trace
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from aggregator.profiles.stack_ends import PYTHON_REASONS, REASONS

LOG = logging.getLogger(__name__)
TRACER = trace.get_tracer("flamefleet.aggregator")
EXPOSITION_TYPE = CONTENT_TYPE_LATEST
_EXPORTER = "opentelemetry.exporter.otlp.proto.http"
CLOSE_REASONS = (
    "limit",  # of all connections
    "address_limit",  # of one address
    "head_too_slow",
    "idle",
    "answer_not_read",
    "unread_answers",  # of all clients together
)
_DECODE_BUCKETS_S = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


class Metrics:
    """Counters of one application; whatever is refused or dropped is counted by its reason."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.batches = Counter(
            "flamefleet_batches",
            "Batches by result: stored, duplicate, refused, postponed, wanted_whole (short ones)",
            ["result"],
            registry=self.registry,
        )
        self.samples = Counter(
            "flamefleet_samples", "Samples in stored batches", registry=self.registry
        )
        self.lost_samples = Counter(
            "flamefleet_lost_samples",
            "Samples that agents lost, as stored batches say",
            registry=self.registry,
        )
        self.lost_batches = Counter(
            "flamefleet_lost_batches",
            "Batches that never came: gaps in the sequences of runs",
            registry=self.registry,
        )
        self.stack_ends = Counter(
            "flamefleet_stack_ends",
            "Samples in stored batches by how the user part of their stack ended",
            ["reason"],
            registry=self.registry,
        )
        for reason in REASONS:  # all are there from the start: a rate needs a first value
            self.stack_ends.labels(reason)
        self.python_ends = Counter(
            "flamefleet_python_ends",
            "Samples of Python programs in stored batches by how their Python part ended",
            ["reason"],
            registry=self.registry,
        )
        for reason in PYTHON_REASONS:
            self.python_ends.labels(reason)
        self.refused = Counter(
            "flamefleet_refused",
            "Requests refused, by the code of the error",
            ["reason"],
            registry=self.registry,
        )
        self.dropped = Counter(
            "flamefleet_dropped",
            "Parts of accepted messages that were not kept, by reason",
            ["reason"],
            registry=self.registry,
        )
        self.stacks_defined = Counter(
            "flamefleet_stacks_defined", "Stacks that got their frames", registry=self.registry
        )
        self.decode_seconds = Histogram(
            "flamefleet_decode_seconds",
            "Time to decode and check a batch",
            buckets=_DECODE_BUCKETS_S,
            registry=self.registry,
        )
        self.commit_seconds = Histogram(
            "flamefleet_commit_seconds",
            "Time of one commit, which several batches share",
            registry=self.registry,
        )
        self.commit_batches = Histogram(
            "flamefleet_commit_batches",
            "Batches in one commit",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )
        self.loop_delay = Gauge(
            "flamefleet_loop_delay_most_seconds",
            "How late the event loop was at most, in the last 10 to 20 s",
            registry=self.registry,
        )
        self.connections = Gauge(
            "flamefleet_connections", "Open connections", registry=self.registry
        )
        self.connections_closed = Counter(
            "flamefleet_connections_closed",
            "Connections closed by the aggregator, by reason: a limit of connections, a deadline",
            ["reason"],
            registry=self.registry,
        )
        for reason in CLOSE_REASONS:
            self.connections_closed.labels(reason)
        self.body_bytes = Gauge(
            "flamefleet_body_bytes", "Request bodies held in memory", registry=self.registry
        )
        self.given_up = Counter(
            "flamefleet_given_up",
            "Requests whose client hung up before the answer",
            registry=self.registry,
        )
        self.queued = Gauge(
            "flamefleet_queued_batches", "Batches waiting for a commit", registry=self.registry
        )

    def exposition(self) -> bytes:
        """The metrics in Prometheus's text format."""
        return generate_latest(self.registry)


def setup_tracing(environ: Mapping[str, str]) -> bool:
    """Export traces if OTEL_EXPORTER_OTLP_ENDPOINT is set and the exporter is installed.

    Without either, `TRACER` makes spans that cost nothing and go nowhere. True if exporting.
    """
    if not environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return False
    try:
        installed = importlib.util.find_spec(_EXPORTER) is not None
    except ModuleNotFoundError:
        installed = False
    if not installed:
        LOG.warning(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set but no exporter is installed, so no traces are "
            "sent: install opentelemetry-exporter-otlp-proto-http"
        )
        return False
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exporter = importlib.import_module(f"{_EXPORTER}.trace_exporter").OTLPSpanExporter()
    provider = TracerProvider(resource=Resource.create({"service.name": "flamefleet"}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return True
