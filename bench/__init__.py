"""Measurements against peers and limits, side by side in one run; ratios are what count."""
