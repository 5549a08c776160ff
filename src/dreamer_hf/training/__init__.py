"""Training: what both scripts share."""
