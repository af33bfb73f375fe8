"""The body of a webhook."""

import json
from datetime import datetime, timedelta, timezone

import pytest

from aggregator.alerts.message import AlertFacts, alert_message

STARTED = datetime(2026, 3, 1, 12, 0, 0, 500_000, tzinfo=timezone(timedelta(hours=1)))


def facts(event: str, quantity: str = "cpu_percent", value: float = 2.5) -> AlertFacts:
    threshold = 1.0 if quantity == "cpu_percent" else 50 * 2.0**20
    ended = STARTED + timedelta(minutes=3)
    return AlertFacts("agent_overhead", 'web"1', event, STARTED, ended, quantity, value, threshold)


def test_a_start_has_the_shape_of_alertmanager_version_4() -> None:
    body = json.loads(alert_message(facts("firing")))
    assert set(body) == {
        *("version", "groupKey", "truncatedAlerts", "status", "receiver", "groupLabels"),
        *("commonLabels", "commonAnnotations", "externalURL", "alerts"),
    }
    assert (body["version"], body["status"], body["truncatedAlerts"]) == ("4", "firing", 0)
    (alert,) = body["alerts"]
    assert alert["status"] == "firing"
    assert alert["labels"] == {
        "alertname": "FlamefleetAgentOverhead",
        "host": 'web"1',
        "severity": "warning",
    }
    assert (alert["startsAt"], alert["endsAt"]) == (
        "2026-03-01T11:00:00.500Z",
        "0001-01-01T00:00:00Z",
    )
    assert "2.5% of the host of CPU, over the limit of 1%" in alert["annotations"]["summary"]


def test_an_end_has_the_same_identity_and_its_time() -> None:
    start = json.loads(alert_message(facts("firing")))
    end = json.loads(alert_message(facts("resolved")))
    assert end["status"] == end["alerts"][0]["status"] == "resolved"
    assert end["alerts"][0]["endsAt"] == "2026-03-01T11:03:00.500Z"
    assert end["groupKey"] == start["groupKey"]
    assert end["alerts"][0]["fingerprint"] == start["alerts"][0]["fingerprint"]
    assert "within its budget again" in end["alerts"][0]["annotations"]["summary"]


def test_memory_is_told_in_mebibytes() -> None:
    body = json.loads(alert_message(facts("firing", "memory_bytes", 75 * 2.0**20)))
    assert "75 MiB of memory, over the limit of 50 MiB" in body["commonAnnotations"]["summary"]


def test_a_message_that_is_sent_again_has_the_same_bytes() -> None:
    assert alert_message(facts("firing")) == alert_message(facts("firing"))


@pytest.mark.parametrize(
    ("rule", "value", "name", "start", "end"),
    [
        ("cloned_node", 1, "FlamefleetClonedNode", "2 hosts send as web-1", "no clone of web-1"),
        ("clock_offset", 12.5, "FlamefleetClockOffset", "12.5 s behind the", "right again"),
        ("clock_offset", -90, "FlamefleetClockOffset", "90 s ahead of the", "right again"),
        ("agent_paused", 110, "FlamefleetAgentPaused", "pauses sampling", "not paused any more"),
        ("agent_limited", 2, "FlamefleetAgentLimited", "unit: held back", "no limit of its unit"),
    ],
)
def test_other_rules_have_their_own_words(
    rule: str, value: float, name: str, start: str, end: str
) -> None:
    for event, words in (("firing", start), ("resolved", end)):
        told = AlertFacts(
            rule, "web-1", event, STARTED, STARTED, "", value, 10.0, words="held back"
        )
        body = json.loads(alert_message(told))
        assert body["commonLabels"]["alertname"] == name
        assert words in body["commonAnnotations"]["summary"]


def test_a_silent_nodes_clock_is_not_called_right() -> None:
    told = AlertFacts("clock_offset", "web-1", "resolved", STARTED, STARTED, "", 90, 10.0, True)
    summary = json.loads(alert_message(told))["commonAnnotations"]["summary"]
    assert "its clock is unknown" in summary
