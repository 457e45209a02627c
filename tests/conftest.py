"""Fixtures for all tests: small models of the true classes, a finished run built by hand, endpoints, and a bucket."""

pytest_plugins = ["small_models", "run_by_hand", "chat_server", "endpoints", "bucket"]
