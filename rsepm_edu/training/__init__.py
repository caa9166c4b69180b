"""How a network learns: configuration, losses, the loop, checkpoints."""
