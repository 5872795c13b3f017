"""`ahl-runtime serve` as a process: its settings, its log, and its messages to systemd."""
