"""One plug-in of each kind, a file each. Start your own from one of them."""
