"""Pictures with a slider, one for each idea of the course: import them from here."""

from rsepm_edu.viz.explorers.cam import CamExplorer, cam_explorer
from rsepm_edu.viz.explorers.pamr import PamrExplorer, pamr_explorer
from rsepm_edu.viz.explorers.plane import PlaneExplorer, plane_explorer
from rsepm_edu.viz.explorers.scg import ScgExplorer, scg_explorer

__all__ = [
    "CamExplorer",
    "PamrExplorer",
    "PlaneExplorer",
    "ScgExplorer",
    "cam_explorer",
    "pamr_explorer",
    "plane_explorer",
    "scg_explorer",
]
