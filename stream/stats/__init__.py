"""Figures of a run: latencies, drops, JSON lines, Prometheus."""
