"""Fixtures for all tests: small models of the true classes, Ray, a run built by hand, endpoints, and a bucket."""

pytest_plugins = ["small_models", "small_qwen", "one_ray", "run_by_hand", "chat_server", "endpoints", "bucket"]
