"""The multi-stage road on one page: from a network's seeds to a DeepLab, and where a stage may be left out."""

from drawing_canvas import Canvas

LEFT, MIDDLE, WIDTH = 24, 156, 264


def multistage() -> Canvas:
    """Six stages from top to bottom; on the right what is chosen at each without masks."""
    canvas = Canvas(
        "The multi-stage road",
        "A trained network gives a seed for each image with tags. A threshold theta chosen by colour, with margins, "
        "gives confident labels: classes, background and void between. They teach a walk network where boundaries are, "
        "and the seeds walk within these. The walked seed is kept only if its score without masks is better than the "
        "seed's. A new theta, chosen by colour, makes masks of it; a dense CRF refines them and is kept only if their "
        "score is better. The pseudo masks teach a DeepLab, which needs no tags. No true mask is used on the way.",
    )
    canvas.text(LEFT, 28, "The multi-stage road: no true mask on the way", anchor="start", style="head")
    _seeds(canvas)
    _walk(canvas)
    _masks(canvas)
    _segmenter(canvas)
    return canvas


def _step(canvas: Canvas, y: float, text: str, kind: str, note: str = "", round_: float = 6) -> None:
    canvas.box(LEFT, y, WIDTH, 36, text, kind, round_)
    if note:
        canvas.text(LEFT + WIDTH + 20, y + 23, note, anchor="start", style="note small")


def _down(canvas: Canvas, top: float, bottom: float) -> None:
    canvas.arrow((MIDDLE, top), (MIDDLE, bottom))


def _question(canvas: Canvas, y: float, back: float, no: str) -> None:
    """Whether what was made is better than what it was made of; if not, that is taken from where it stands."""
    canvas.loss(MIDDLE, y + 18, "mask-free score up?", width=210)
    canvas.arrow((LEFT + WIDTH, back), (516, back), (516, y + 18), (MIDDLE + 105, y + 18))
    canvas.text(508, y + 11, no, anchor="end", style="note small")


def _seeds(canvas: Canvas) -> None:
    _step(canvas, 46, "images with tags", "data")
    _down(canvas, 82, 100)
    _step(canvas, 100, "trained network", "net", "its CAM or its decoder")
    _down(canvas, 136, 154)
    _step(canvas, 154, "1  seeds", "map", round_=12)


def _walk(canvas: Canvas) -> None:
    _down(canvas, 190, 214)
    _step(canvas, 214, "two θ, a CRF after each", "step", "θ by colour, + and −")
    _down(canvas, 250, 268)
    _step(canvas, 268, "2  confident labels, else void", "mask", round_=12)
    _down(canvas, 304, 322)
    _step(canvas, 322, "3  walk network: boundaries", "net", "learns from the labels")
    _down(canvas, 358, 376)
    _step(canvas, 376, "4  the seeds walk", "step", "over a share of the picture")
    _down(canvas, 412, 436)
    _question(canvas, 436, 172, "no: seeds")


def _masks(canvas: Canvas) -> None:
    _down(canvas, 472, 496)
    _step(canvas, 496, "masks at θ, chosen anew", "mask", round_=12)
    _down(canvas, 532, 550)
    _step(canvas, 550, "dense CRF", "step")
    _down(canvas, 586, 610)
    _question(canvas, 610, 514, "no: masks at θ")
    _down(canvas, 646, 670)
    _step(canvas, 670, "5  pseudo masks", "mask", round_=12)


def _segmenter(canvas: Canvas) -> None:
    _down(canvas, 706, 730)
    _step(canvas, 730, "6  DeepLab learns from them", "net")
    _down(canvas, 766, 790)
    _question(canvas, 790, 688, "no: pseudo masks")
    _down(canvas, 826, 850)
    _step(canvas, 850, "segments without tags", "data")
