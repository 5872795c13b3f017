"""Monitors of a running line: counts, newest frames and drift of each source, latencies of the stages."""
