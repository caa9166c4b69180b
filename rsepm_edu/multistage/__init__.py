"""From pseudo masks to a segmenter: seeds, walks and dense CRF, stage by stage, each in files on the disk."""
