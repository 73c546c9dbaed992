"""Reading and comparing result tables, without a suite."""

import json

import pytest

from .run import JSON_OR_STREAM_ID, Check, differences, failures, read_results, render


def check(status, id="a-check", name="ACheck", message=""):
    return Check(id, name, status, message)


def test_tables_that_differ_in_messages_only_are_equal():
    direct = {"ping": [check("WARNING", message="port 1111")]}
    proxied = {"ping": [check("WARNING", message="port 2222")]}
    assert differences(direct, proxied) == []


@pytest.mark.parametrize("status", ["FAILURE", "WARNING", "SKIPPED", "INFO"])
def test_a_check_with_another_status_is_shown_from_both_sides(status):
    lines = differences({"ping": [check("SUCCESS")]}, {"ping": [check(status)]})
    assert lines == ["ping: direct  SUCCESS a-check (ACheck)", f"ping: proxied {status:7} a-check (ACheck)"]


def test_a_check_that_is_made_once_instead_of_twice_is_a_difference():
    assert differences({"ping": [check("SUCCESS")] * 2}, {"ping": [check("SUCCESS")]}) == [
        "ping: direct  SUCCESS a-check (ACheck)"
    ]


def test_a_scenario_that_only_one_side_ran_is_a_difference():
    assert differences({"ping": []}, {"tools-list": []}) == ["ping: only direct", "tools-list: only proxied"]


def test_a_server_may_answer_with_json_or_with_a_stream():
    streams = {"server-sse-multiple-streams": [check("SUCCESS", JSON_OR_STREAM_ID)]}
    assert differences(streams, {"server-sse-multiple-streams": [check("INFO", JSON_OR_STREAM_ID)]}) == []
    assert differences(streams, {"server-sse-multiple-streams": [check("WARNING", JSON_OR_STREAM_ID)]}) != []


def test_only_failures_fail():
    table = {"ping": [check("SUCCESS"), check("WARNING"), check("INFO"), check("FAILURE", message="no answer")]}
    assert failures(table) == ["ping: FAILURE a-check (ACheck): no answer"]
    assert render(table).endswith("0 of 1 scenarios passed")


def test_results_are_read_by_scenario_without_the_rows_that_only_trace_the_traffic(tmp_path):
    rows = [
        {"id": "outgoing-request", "name": "OutgoingRequest", "status": "INFO"},
        {"id": "ping", "name": "Ping", "status": "SUCCESS"},
        {"id": "incoming-sse-event", "name": "IncomingSseEvent", "status": "FAILURE", "errorMessage": "isError"},
    ]
    folder = tmp_path / "server-server-sse-polling-2026-07-28T01-02-03-456Z"
    folder.mkdir()
    (folder / "checks.json").write_text(json.dumps(rows))
    assert read_results(tmp_path) == {
        "server-sse-polling": [
            Check("ping", "Ping", "SUCCESS"),
            Check("incoming-sse-event", "IncomingSseEvent", "FAILURE", "isError"),
        ]
    }


def test_a_scenario_that_left_no_checks_has_failed(tmp_path):
    (tmp_path / "server-ping-2026-07-28T01-02-03-456Z").mkdir()
    assert failures(read_results(tmp_path)) != []
