"""Measurements that write the figures of the documentation. They are not in the wheel."""
