"""From seeds to a segmenter of its own, by way of walks, dense CRF and pseudo masks: each stage leaves files."""
