"""Traces are exported only where that is configured and possible."""

import importlib.util

import pytest

from aggregator.telemetry import TRACER, Metrics, setup_tracing


def test_without_configuration_spans_go_nowhere():
    assert setup_tracing({}) is False
    with TRACER.start_as_current_span("nothing") as span:
        assert not span.is_recording()


@pytest.mark.skipif(
    importlib.util.find_spec("opentelemetry.exporter") is not None,
    reason="needs an environment without an OTLP exporter",
)
def test_missing_exporter_is_said_once_and_harms_nothing(caplog):
    assert setup_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}) is False
    assert "install opentelemetry-exporter-otlp-proto-http" in caplog.text


def test_counters_of_two_applications_are_apart():
    one, other = Metrics(), Metrics()
    one.refused.labels("malformed").inc()

    assert b'reason="malformed"' in one.exposition()
    assert b'reason="malformed"' not in other.exposition()
