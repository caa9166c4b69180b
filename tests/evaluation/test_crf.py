import torch

from rsepm_edu.evaluation.crf import FINAL_SIGMAS, LABEL_SIGMAS, refine_labels, refine_probabilities
from rsepm_edu.methods.dense_crf import dense_crf, dense_crf_labels


def two_pictures() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, 12, 14), dtype=torch.uint8, generator=generator)


def test_labels_are_refined_over_their_own_labels_alone() -> None:
    images = two_pictures()
    generator = torch.Generator().manual_seed(1)
    few = torch.randint(0, 2, (12, 14), generator=generator)
    labels = torch.stack([few * 17, torch.randint(0, 3, (12, 14), generator=generator)])
    refined = refine_labels(images, labels)
    assert refined.dtype == labels.dtype
    smooth, appearance, colour = LABEL_SIGMAS
    settings = {"smooth_sigma": smooth, "appearance_sigma": appearance, "colour_sigma": colour}
    assert torch.equal(refined[0], 17 * dense_crf_labels(images[:1], few[None], 2, **settings)[0])
    assert torch.equal(refined[1], dense_crf_labels(images[1:], labels[1:], 3, **settings)[0])


def test_a_picture_of_background_stays_and_one_without_gets_it_as_a_choice() -> None:
    images = two_pictures()
    labels = torch.zeros(2, 12, 14, dtype=torch.int64)
    labels[1] = 4
    assert torch.equal(refine_labels(images, labels), labels)


def test_probabilities_are_refined_over_the_labels_that_can_occur() -> None:
    images = two_pictures()
    logits = torch.randn(2, 5, 12, 14, generator=torch.Generator().manual_seed(2))
    logits[0, 3] = -10
    logits[1, 0] = -10  # background stays in
    probabilities = logits.softmax(1)
    refined = refine_probabilities(images, probabilities)
    smooth, appearance, colour = FINAL_SIGMAS
    settings = {"smooth_sigma": smooth, "appearance_sigma": appearance, "colour_sigma": colour}
    wanted = dense_crf(images[:1], probabilities[:1, [0, 1, 2, 4]], **settings)[0]
    torch.testing.assert_close(refined[0, [0, 1, 2, 4]], wanted)
    assert not refined[0, 3].any()
    torch.testing.assert_close(refined[1], dense_crf(images[1:], probabilities[1:], **settings)[0])
    torch.testing.assert_close(refined.sum(1), torch.ones(2, 12, 14))
