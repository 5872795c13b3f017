"""Anomaly Heterogeneity Learning: HADG, CDL, importance, and their combination in a run."""
