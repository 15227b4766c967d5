"""Every line is JSON, with where it happened and without what looks like a token."""

import json
import logging
import warnings

import pytest
import structlog
from structlog.contextvars import bound_contextvars

from app.logs import configure


@pytest.fixture
def lines(capsys):
    """What stands on standard error, line by line; the logs are as before afterwards."""
    root = logging.getLogger()
    before = list(root.handlers), root.level
    configure("info")
    yield lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    root.handlers, root.level = before
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def test_our_words_and_those_of_libraries_have_one_form(lines):
    with bound_contextvars(job="mrg_1", trace_id="ab"):
        structlog.get_logger().info("job.claimed", attempt=2)
        logging.getLogger("celery.worker").warning("Connection to %s lost", "broker")
    ours, theirs = lines()
    assert (ours["event"], ours["attempt"], ours["level"]) == ("job.claimed", 2, "info")
    assert (ours["job"], ours["trace_id"]) == ("mrg_1", "ab")
    assert theirs["event"] == "Connection to broker lost"
    assert (theirs["logger"], theirs["level"], theirs["job"]) == ("celery.worker", "warning", "mrg_1")
    assert ours.keys() >= {"timestamp"} <= theirs.keys()


def test_tokens_are_taken_out_of_both(lines):
    secret = "hf_" + "a1B2c3D4" * 4
    structlog.get_logger().info("said", header=f"Bearer {secret}")
    logging.getLogger("library").error("token=%s", secret)
    assert secret not in json.dumps(lines())


def test_a_library_that_is_chatty_is_not_heard_below_the_level(lines):
    logging.getLogger("library").debug("chatter")
    logging.getLogger("httpx2").info("GET /")
    assert lines() == []


def test_an_exception_is_one_line_with_its_calls(lines):
    try:
        int("inside")
    except ValueError:
        logging.getLogger("library").exception("it failed")
    [line] = lines()
    assert "ValueError: invalid literal" in line["exception"]


@pytest.mark.filterwarnings("default")
def test_warnings_are_lines_too(lines):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning("mind this", UserWarning, "file.py", 3)
    [line] = lines()
    assert "mind this" in line["event"]
    assert line["level"] == "warning"


def test_set_up_twice_says_it_once(lines):
    configure("info")
    logging.getLogger("library").warning("once")
    assert len(lines()) == 1
