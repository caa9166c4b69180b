"""What the notebooks need: `start` is their first line of code, `checks` looks at the exercises."""
