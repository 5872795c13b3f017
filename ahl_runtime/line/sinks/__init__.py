"""Sinks: receivers of decisions, one module for each kind."""
