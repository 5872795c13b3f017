"""Metrics for Prometheus: the line's counters and gauges, latencies of its stages, the temperature of the device."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from ahl_runtime.http.status.temperature import temperatures
from ahl_runtime.line.monitor.state import State

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


def exposition(state: State, latencies: Collector) -> bytes:
    """The text format, version 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Line(state, latencies))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Line(Collector):
    def __init__(self, state: State, latencies: Collector) -> None:
        self.state = state
        self.latencies = latencies

    def collect(self) -> Iterator[Metric]:
        model = self.state.model
        yield InfoMetricFamily(
            "ahl_model", "The active bundle", {"name": model.name, "digest": model.digest, "engine": model.engine}
        )
        yield from self._counters()
        yield from self._gauges()
        yield from self._stages()

    def _counters(self) -> Iterator[Metric]:
        frames = CounterMetricFamily("ahl_frames", "Frames received", labels=["source"])
        dropped = CounterMetricFamily("ahl_dropped_frames", "Frames dropped without a decision", labels=["source"])
        decided = CounterMetricFamily("ahl_decisions", "Decisions by verdict", labels=["source", "verdict"])
        for s in self.state.sources:
            frames.add_metric([s.name], s.frames)
            dropped.add_metric([s.name], s.dropped)
            for verdict, count in (("pass", s.passed), ("unsure", s.unsure), ("reject", s.rejected)):
                decided.add_metric([s.name, verdict], count)
        yield from (frames, dropped, decided)

    def _gauges(self) -> Iterator[Metric]:
        live = GaugeMetricFamily("ahl_source_live", "1 while frames arrive, else 0", labels=["source"])
        queue = GaugeMetricFamily("ahl_queue_frames", "Frames that wait to be scored", labels=["source"])
        drift = GaugeMetricFamily("ahl_drift_alarm", "1 while the drift alarm is raised, else 0", labels=["source"])
        for s in self.state.sources:
            live.add_metric([s.name], s.state == "live")
            queue.add_metric([s.name], s.queue)
            if s.drift.state != "off":
                drift.add_metric([s.name], s.drift.state == "alarm")
        warm = GaugeMetricFamily("ahl_temperature_celsius", "Temperature of the device", labels=["zone"])
        for zone, degrees in temperatures().items():
            warm.add_metric([zone], degrees)
        faults = GaugeMetricFamily("ahl_faults", "Faults that need an operator", len(self.state.faults))
        yield from (live, queue, drift, faults, warm)

    def _stages(self) -> Iterator[Metric]:
        for family in self.latencies.collect():
            # a `_created` sample is OpenMetrics': this format would show it as one more metric
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family
