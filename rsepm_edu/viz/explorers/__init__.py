"""Pictures with a slider, one for each idea of the course: import them from here."""

from rsepm_edu.viz.explorers.average import AverageExplorer, average_explorer
from rsepm_edu.viz.explorers.budget import BudgetExplorer, budget_explorer
from rsepm_edu.viz.explorers.cam import CamExplorer, cam_explorer
from rsepm_edu.viz.explorers.edgepredictmix import EdgePredictExplorer, edge_predict_explorer
from rsepm_edu.viz.explorers.mask import MaskExplorer, mask_explorer
from rsepm_edu.viz.explorers.mixing import MixingExplorer, mixing_explorer
from rsepm_edu.viz.explorers.pamr import PamrExplorer, pamr_explorer
from rsepm_edu.viz.explorers.plane import PlaneExplorer, plane_explorer
from rsepm_edu.viz.explorers.puzzle import PuzzleExplorer, puzzle_explorer
from rsepm_edu.viz.explorers.ranges import RangesExplorer, ranges_explorer
from rsepm_edu.viz.explorers.recurseed import RecurSeedExplorer, recurseed_explorer
from rsepm_edu.viz.explorers.scg import ScgExplorer, scg_explorer
from rsepm_edu.viz.explorers.walk import WalkExplorer, walk_explorer

__all__ = [
    "AverageExplorer",
    "BudgetExplorer",
    "CamExplorer",
    "EdgePredictExplorer",
    "MaskExplorer",
    "MixingExplorer",
    "PamrExplorer",
    "PlaneExplorer",
    "PuzzleExplorer",
    "RangesExplorer",
    "RecurSeedExplorer",
    "ScgExplorer",
    "WalkExplorer",
    "average_explorer",
    "budget_explorer",
    "cam_explorer",
    "edge_predict_explorer",
    "mask_explorer",
    "mixing_explorer",
    "pamr_explorer",
    "plane_explorer",
    "puzzle_explorer",
    "ranges_explorer",
    "recurseed_explorer",
    "scg_explorer",
    "walk_explorer",
]
