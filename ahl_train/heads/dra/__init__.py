"""DRA, with its Winograd convolution."""
