"""Beyond one machine: conversion, encoding, evaluation, dreaming and serving on a Ray cluster.

Ray is imported in this folder only, and only by the modules that start something on a cluster. What they start comes
from the other rooms of the package: this room decides where it runs, and what happens when a node dies.
"""
