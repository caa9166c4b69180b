"""Every way to mix that a run can have, in one table: a new one is a file in ``methods/`` and its lines here."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from rsepm_edu.methods.cda import context_decoupling
from rsepm_edu.methods.classmix import class_mix
from rsepm_edu.methods.cutmix import cut_mix
from rsepm_edu.methods.edgepredictmix import edge_predict_and_mix
from rsepm_edu.methods.mixing import Mixed
from rsepm_edu.methods.saliency_grafting import saliency_grafting

Mixing = Literal["none", "epm", "classmix", "cda", "cutmix", "saliency-grafting"]
"""What the setting ``mixing`` may be."""


class MixingMethod(NamedTuple):
    """mix: by the interface of ``methods.mixing``. label: in tables. thresholds: of the conditional filter, if it takes
    them. pamr: whether it works on the decoder's map after PAMR, as EdgePredict does."""

    mix: Callable[..., Mixed]
    label: str
    thresholds: bool = True
    pamr: bool = False


MIXINGS: dict[Mixing, MixingMethod] = {
    "epm": MixingMethod(edge_predict_and_mix, "EPM", pamr=True),
    "classmix": MixingMethod(class_mix, "ClassMix", thresholds=False),
    "cda": MixingMethod(context_decoupling, "CDA"),
    "cutmix": MixingMethod(cut_mix, "CutMix"),
    "saliency-grafting": MixingMethod(saliency_grafting, "Saliency Grafting"),
}
"""By their names in the settings."""
