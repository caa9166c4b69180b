"""Names and defaults that help texts show, once more: the modules they come from import torch, which takes seconds.

``tests/test_cli_start.py`` holds each of them against its original.
"""

PRESETS = (
    *("creatures-cpu", "voc-sample-cpu", "voc-sample-gpu", "voc-gpu", "voc-t4", "voc-multi-gpu"),
    "coco-gpu",
)
STAGE_PRESETS = ("creatures-cpu", "voc-sample-cpu", "voc-gpu")
SCALES = (1.0, 0.5, 1.5, 2.0)
NEAR_SCALES = (1.0, 0.75, 1.25)
LEAST_SCALE, GREATEST_SCALE = 0.1, 4.0
CRITERIA = ("colour", "stability", "classifier", "otsu")
DEFAULT_CRITERIA = ("colour",)
PICTURES = 100
LONGEST = 1000
MAPS = ("cam", "decoder", "argmax")
SEED_MAPS = ("cam", "decoder")
WALKS = ("boundary", "affinity", "none")
HEADS = ("deeplabv2", "deeplabv3+")
TAG_THRESHOLD = 0.34
ARGMAX = "decoder (arg-max)"
CELL_SECONDS = 300.0
MEMORY_GB = 4.0
