"""The active model, its owner, and the checks before and after a deployment."""
