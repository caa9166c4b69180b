"""The two labels that mean the same everywhere; classes are 1 … K."""

BACKGROUND = 0

VOID = 255
"""Pixels that count neither as an object nor as background."""
