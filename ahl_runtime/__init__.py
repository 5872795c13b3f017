"""The line-side runtime: a bundle and frames in, decisions out. No torch; numpy, Pillow and one engine."""
