"""Fixtures: real servers, a local Hub, small real models."""

pytest_plugins = [
    "tests.fixtures.servers", "tests.fixtures.hub", "tests.fixtures.models", "tests.fixtures.jobs",
    "tests.fixtures.service", "tests.fixtures.api", "tests.fixtures.receiver", "tests.fixtures.live",
]
