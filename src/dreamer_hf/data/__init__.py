"""Data: recording, converting, storing and reading episodes. Imports no model code."""
