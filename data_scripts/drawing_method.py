"""The master drawing: the whole method on one page, and the same with the place of a lesson marked.

After the structure of the overview figure of Jo, Yu & Kim's repository, in words and colours of our own. Targets come
from above, from the averaged teacher; what learns, the student, answers from below; the losses stand between.
"""

from drawing_canvas import Canvas

Box = tuple[float, float, float, float]

PARTS: dict[str, Box] = {
    "image": (36, 46, 100, 36),
    "tags": (138, 428, 64, 34),
    "teacher": (24, 112, 472, 122),
    "teacher_cam": (24, 180, 130, 110),
    "recurseed": (24, 256, 310, 150),
    "scg": (136, 288, 64, 38),
    "pamr": (222, 288, 70, 38),
    "scg_and_pamr": (136, 288, 156, 38),
    "m_rs": (40, 352, 72, 38),
    "cf": (142, 352, 44, 38),
    "m_seg": (216, 352, 76, 38),
    "epm": (350, 256, 146, 236),
    "ep": (366, 378, 114, 38),
    "mix": (366, 440, 114, 38),
    "losses": (40, 500, 256, 36),
    "tag_loss": (133, 424, 74, 112),
    "rec_loss": (36, 500, 80, 36),
    "outputs": (36, 574, 448, 40),
    "student": (24, 640, 472, 122),
    "student_cam": (36, 574, 84, 40),
    "mixed_losses": (360, 506, 126, 50),
}
"""Left, top, width and height of all that a lesson can stand at."""

LESSONS: dict[str, tuple[tuple[str, ...], str]] = {
    "00": (("image", "tags"), "data, masks and scores"),
    "01": (("student", "student_cam", "tag_loss"), "network, tag loss, CAM"),
    "02": (("student_cam",), "a CAM that agrees with its pieces"),
    "03": (("scg",), "features spread the map"),
    "04": (("pamr",), "colours sharpen the map"),
    "05": (("scg_and_pamr",), "why both, and in this order"),
    "06": (("recurseed", "losses"), "the loop of RecurSeed"),
    "07": (("mix",), "how two images are mixed"),
    "08": (("epm", "mixed_losses"), "edges decide, then mix"),
    "09": (("teacher", "student", "losses"), "everything in one run"),
    "10": (("image", "student"), "photographs, on a GPU"),
    "11": (("m_rs",), "what repairs a seed afterwards"),
    "12": (("outputs",), "reading the scores of these maps"),
}
"""By lesson: the parts it is about, and that in words."""


def master(lesson: str | None = None) -> Canvas:
    """The whole method; with the number of a lesson, its parts are framed."""
    where = f" Lesson {lesson} is about: {LESSONS[lesson][1]}." if lesson else ""
    title = "The whole method" + (f": you are in lesson {lesson}" if lesson else "")
    canvas = Canvas(
        title,
        "An image goes into two networks of one form. The teacher, a moving average of the student, gives a CAM; "
        "SCG and PAMR make M_rs of it, the conditional filter CF makes the mask M_seg. The student's tag scores "
        "are compared with the tags (L_cls), its CAM with M_rs (L_rec), its decoder's map with M_seg (L_seg). The "
        "teacher's decoder map, through PAMR and EdgePredict, says where images and their targets are cut and "
        "mixed; the student learns from the mixed image too." + where,
        width=540,
    )
    if lesson:
        canvas.badge(24, 8, 172, f"you are here: {lesson}")
        canvas.text(208, 28, LESSONS[lesson][1], anchor="start", style="head")
    else:
        canvas.text(24, 28, "The whole method, one training step", anchor="start", style="head")
    _inputs(canvas)
    _teacher(canvas)
    _recurseed(canvas)
    _edge_predict_mix(canvas)
    _losses(canvas)
    _student(canvas)
    for part in LESSONS[lesson][0] if lesson else ():
        canvas.here(*PARTS[part])
    return canvas


def _inputs(canvas: Canvas) -> None:
    canvas.box(*PARTS["image"], "image", "data")
    canvas.text(152, 70, "given: images and their tags, no masks", anchor="start", style="note")


def _teacher(canvas: Canvas) -> None:
    canvas.panel(*PARTS["teacher"])
    canvas.text(260, 205, "Teacher: the average", style="head")
    canvas.text(260, 225, "of the students so far", style="head")
    canvas.box(190, 144, 140, 36, "backbone", "net")
    canvas.box(36, 188, 100, 36, "CAM head", "net")
    canvas.box(384, 188, 100, 36, "decoder", "net")
    canvas.arrow((86, 82), (86, 100), (260, 100), (260, 144))
    canvas.arrow((190, 162), (86, 162), (86, 188))
    canvas.arrow((330, 162), (434, 162), (434, 188))


def _recurseed(canvas: Canvas) -> None:
    canvas.panel(*PARTS["recurseed"])
    canvas.text(322, 278, "RecurSeed (RS)", anchor="end", style="head")
    canvas.arrow((60, 224), (60, 288))
    canvas.box(36, 288, 72, 38, "CAM", "map", 12)
    canvas.box(*PARTS["scg"], "SCG", "step")
    canvas.box(*PARTS["pamr"], "PAMR", "step")
    canvas.box(*PARTS["m_rs"], "M_{rs}", "map", 12)
    canvas.box(*PARTS["cf"], "CF", "step")
    canvas.box(*PARTS["m_seg"], "M_{seg}", "mask", 12)
    canvas.arrow((108, 307), (136, 307))
    canvas.arrow((200, 307), (222, 307))
    canvas.arrow((292, 307), (310, 307), (310, 339), (76, 339), (76, 352))
    canvas.arrow((112, 371), (142, 371))
    canvas.arrow((186, 371), (216, 371))


def _edge_predict_mix(canvas: Canvas) -> None:
    canvas.panel(*PARTS["epm"])
    canvas.text(368, 279, "EPM", anchor="start", style="head")
    canvas.arrow((466, 224), (466, 290))
    canvas.box(366, 290, 114, 32, "PAMR", "step")
    canvas.box(376, 334, 94, 32, "M_{dec}", "map", 12)
    canvas.box(366, 378, 114, 38, "EP: edges", "step")
    canvas.box(366, 440, 114, 38, "mix", "step")
    canvas.arrow((423, 322), (423, 334))
    canvas.arrow((423, 366), (423, 378))
    canvas.arrow((423, 416), (423, 440))
    canvas.arrow((100, 390), (100, 414), (342, 414), (342, 459), (366, 459))


def _losses(canvas: Canvas) -> None:
    canvas.box(*PARTS["tags"], "tags", "data")
    canvas.loss(76, 518, "L_{rec}")
    canvas.loss(170, 518, "L_{cls}")
    canvas.loss(264, 518, "L_{seg}")
    canvas.arrow((62, 390), (62, 500))
    canvas.arrow((264, 390), (264, 500))
    canvas.arrow((170, 462), (170, 500))
    canvas.box(*PARTS["mixed_losses"], ("L_{rec}, L_{seg}", "when mixed"), "loss", 18)
    canvas.arrow((423, 478), (423, 506))


def _student(canvas: Canvas) -> None:
    canvas.box(36, 574, 84, 40, "CAM", "map", 12)
    canvas.box(140, 574, 84, 40, "scores", "data", 12)
    canvas.box(244, 574, 240, 40, "decoder's map", "mask", 12)
    canvas.arrow((76, 574), (76, 536))
    canvas.arrow((170, 574), (170, 536))
    canvas.arrow((264, 574), (264, 536))
    canvas.arrow((423, 574), (423, 556))
    canvas.arrow((120, 594), (140, 594))
    canvas.panel(*PARTS["student"])
    canvas.text(260, 669, "Student: the network", style="head")
    canvas.text(260, 689, "that learns", style="head")
    canvas.box(36, 652, 100, 36, "CAM head", "net")
    canvas.box(384, 652, 100, 36, "decoder", "net")
    canvas.box(190, 700, 140, 36, "backbone", "net")
    canvas.arrow((86, 652), (86, 614))
    canvas.arrow((434, 652), (434, 614))
    canvas.arrow((190, 718), (86, 718), (86, 688))
    canvas.arrow((330, 718), (434, 718), (434, 688))
    canvas.arrow((36, 64), (12, 64), (12, 790), (240, 790), (240, 736))
    canvas.arrow((480, 459), (508, 459), (508, 790), (280, 790), (280, 736))
    canvas.text(394, 783, "mixed image", style="note")
    canvas.text(124, 783, "image", style="note")
    canvas.arrow((496, 701), (526, 701), (526, 173), (496, 173), dashed=True)
