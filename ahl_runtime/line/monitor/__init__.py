"""What is known of each source while the line runs: counts, newest frames, drift, latencies."""
