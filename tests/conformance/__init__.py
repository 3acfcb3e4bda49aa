"""Histories recorded elsewhere, judged as published: `pytest tests/conformance --vectors DIR`."""
