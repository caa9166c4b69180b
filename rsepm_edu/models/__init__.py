"""Networks: backbones, the DeepLabv3+ decoder, the single-stage network with both heads."""
