"""The checks that every request passes first: Host, Origin, token, rate, size."""
