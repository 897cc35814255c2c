"""Fixtures for all tests: the real servers of tests/cluster."""

pytest_plugins = ["tests.cluster.fixtures"]
