"""Gymnasium environments inside a world."""
