"""From g to a bundle that a device can trust."""
