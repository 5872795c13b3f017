"""`ahl-runtime serve` as a process: its settings, its log, and what systemd hears."""
