"""Frames to features: the extractor, the items, extraction in batches, and the store that keeps features."""

from ahl_train.features.extractor import FINE, Extractor, supersample_for
from ahl_train.features.items import Item
from ahl_train.features.store import FeatureStore, default_cache

__all__ = ["FINE", "Extractor", "FeatureStore", "Item", "default_cache", "supersample_for"]
