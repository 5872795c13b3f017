"""The line over HTTP: the Open Inference Protocol, scoring and decisions, metrics, and the operator's page."""
