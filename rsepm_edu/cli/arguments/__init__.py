"""The options of every command, a file each. Nothing here imports torch, so that help comes at once."""
