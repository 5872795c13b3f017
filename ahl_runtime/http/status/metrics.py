"""What Prometheus reads: counters and gauges of the line's state, latencies of its stages, the device's temperature."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from ahl_runtime.http.status.temperature import temperatures
from ahl_runtime.line.monitor.latency import Latency
from ahl_runtime.line.monitor.state import State

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


def exposition(state: State, latencies: Mapping[str, Latency]) -> bytes:
    """The text format, version 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Line(state, latencies))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Line(Collector):
    def __init__(self, state: State, latencies: Mapping[str, Latency]) -> None:
        self.state = state
        self.latencies = latencies

    def collect(self) -> Iterator[Metric]:
        model = self.state.model
        yield InfoMetricFamily(
            "ahl_model", "The bundle", {"name": model.name, "digest": model.digest, "engine": model.engine}
        )
        yield from self._counters()
        yield from self._gauges()
        yield from self._stages()

    def _counters(self) -> Iterator[Metric]:
        frames = CounterMetricFamily("ahl_frames", "Frames that came in", labels=["source"])
        dropped = CounterMetricFamily("ahl_dropped_frames", "Frames that were let go undecided", labels=["source"])
        decided = CounterMetricFamily("ahl_decisions", "Decisions", labels=["source", "verdict"])
        for s in self.state.sources:
            frames.add_metric([s.name], s.frames)
            dropped.add_metric([s.name], s.dropped)
            for verdict, count in (("pass", s.passed), ("unsure", s.unsure), ("reject", s.rejected)):
                decided.add_metric([s.name, verdict], count)
        yield from (frames, dropped, decided)

    def _gauges(self) -> Iterator[Metric]:
        live = GaugeMetricFamily("ahl_source_live", "1: frames come; 0: they do not", labels=["source"])
        queue = GaugeMetricFamily("ahl_queue_frames", "Frames that wait", labels=["source"])
        drift = GaugeMetricFamily("ahl_drift_alarm", "1: the line has drifted", labels=["source"])
        for s in self.state.sources:
            live.add_metric([s.name], s.state == "live")
            queue.add_metric([s.name], s.queue)
            if s.drift.state != "off":
                drift.add_metric([s.name], s.drift.state == "alarm")
        warm = GaugeMetricFamily("ahl_temperature_celsius", "Of the device", labels=["zone"])
        for zone, degrees in temperatures().items():
            warm.add_metric([zone], degrees)
        faults = GaugeMetricFamily("ahl_faults", "What an operator should see to", len(self.state.faults))
        yield from (live, queue, drift, faults, warm)

    def _stages(self) -> Iterator[Metric]:
        family = HistogramMetricFamily("ahl_stage_seconds", "How long a frame took in a stage", labels=["stage"])
        for stage, latency in self.latencies.items():
            total = 0
            buckets = []
            for bound, count in zip((*latency.bounds, float("inf")), latency.counts, strict=True):
                total += count
                buckets.append(("+Inf" if math.isinf(bound) else repr(bound), float(total)))
            family.add_metric([stage], buckets, latency.seconds)
        yield family
