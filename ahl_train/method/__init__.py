"""Anomaly Heterogeneity Learning: HADG, CDL, importance, and how a run puts them together."""
