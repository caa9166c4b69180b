"""Pictures of the worst and the best cases: image, truth, prediction, and what is wrong where."""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from rsepm_edu.data.palette import VOID, colourise
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.evaluation.cases import Case, Extremes
from rsepm_edu.files import atomic_path
from rsepm_edu.viz.panels import EXTRA, MISSED, RIGHT, Array, Picture, class_colours, panel, picture

CONFUSED = (204, 121, 167)
"""Purple of pixels given to another class than theirs (Okabe and Ito's, as the other three)."""

VERDICTS = {"right": RIGHT, "superfluous": EXTRA, "missed": MISSED, "other class": CONFUSED}


def label_verdict(image: Array, prediction: Array, truth: Array) -> Picture:
    """What is right and wrong in the label map of a picture, over the darkened image.

    Right (green): an object's pixel with its label. Superfluous (orange): a class where background is. Missed (blue):
    background where an object is. Other class (purple): one class where another is. Background that is right, and void,
    stay as they are. `panels.verdict` shows the same for one class.

    Args:
        image: uint8 3×H×W or H×W×3.
        prediction: integer labels H×W.
        truth: integer labels H×W, or VOID.

    Returns:
        uint8 H×W×3.

    Raises:
        ValueError: sizes differ.
    """
    under = picture(image)
    found, labels = np.asarray(prediction), np.asarray(truth)
    if found.shape != under.shape[:2] or labels.shape != under.shape[:2]:
        raise ValueError(f"expected labels {under.shape[:2]}, got {found.shape} and {labels.shape}")
    shown = (0.35 * under + 0.65 * under.mean(axis=2, keepdims=True)) * 0.6
    counted, agree = labels != VOID, found == labels
    parts = {
        "right": agree & (labels > 0),
        "superfluous": (found > 0) & (labels == 0),
        "missed": (found == 0) & (labels > 0),
        "other class": ~agree & (found > 0) & (labels > 0),
    }
    for name, part in parts.items():
        part &= counted
        shown[part] = 0.25 * shown[part] + 0.75 * np.array(VERDICTS[name])
    return shown.astype(np.uint8)


def cases_panel(cases: Sequence[Case], images: Sequence[Array], class_names: Sequence[str]) -> Figure:
    """A row a case: image, ground truth, prediction, verdict; at its left the picture's name and score.

    The score is the mean IoU over the labels of that one picture, in %: it says why a picture stands here and is never
    averaged (see ``evaluation.cases``).

    Args:
        cases: see ``Extremes``.
        images: uint8 3×H×W of each case.
        class_names: the K foreground classes.

    Raises:
        ValueError: no cases, or sizes differ.
    """
    rows = [
        [image, colourise(case.truth), colourise(case.prediction), label_verdict(image, case.prediction, case.truth)]
        for case, image in zip(cases, images, strict=True)
    ]
    there = {int(label) for case in cases for labels in (case.truth, case.prediction) for label in labels.unique()}
    names = [name for label, name in enumerate(["background", *class_names]) if label in there]
    colours = class_colours(class_names)
    legend = {name: colours[name] for name in names}
    if VOID in there:
        legend["void"] = colours["void"]
    legend |= {name: f"#{bytes(colour).hex()}" for name, colour in VERDICTS.items()}
    titles = [f"{case.name}\n{100 * case.score:.1f}" for case in cases]
    return panel(rows, ["image", "ground truth", "prediction", "verdict"], titles, legend=legend, size=1.9)


def save_cases(folder: str | os.PathLike[str], extremes: Extremes, dataset: VocDataset) -> None:
    """Write worst.png and best.png into a folder, each whole or not at all.

    Args:
        folder: made if it is not there.
        extremes: of pictures of ``dataset``.
        dataset: gives the images.
    """
    for name, cases in (("worst", extremes.worst), ("best", extremes.best)):
        images = [dataset.sample(dataset.names.index(case.name), masks=False)["image"] for case in cases]
        figure = cases_panel(cases, images, dataset.classes)
        with atomic_path(os.path.join(folder, f"{name}.png")) as temporary:
            figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
