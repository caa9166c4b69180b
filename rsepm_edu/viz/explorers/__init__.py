"""Pictures with a slider, one for each idea of the course: import them from here."""

from rsepm_edu.viz.explorers.cam import CamExplorer, cam_explorer

__all__ = ["CamExplorer", "cam_explorer"]
