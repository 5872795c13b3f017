"""Who is told: one file a kind."""
