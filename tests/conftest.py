"""Fixtures for all tests: small models of the true classes, and a finished run built by hand."""

pytest_plugins = ["small_models", "run_by_hand", "chat_server"]
