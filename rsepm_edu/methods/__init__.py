"""One file per paper idea: pure functions on tensors, batch first, any device, any float type."""
