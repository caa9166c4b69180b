"""Dense conditional random field (CRF): labels move to the edges of the photograph, every pixel heeding every other.

Krähenbühl & Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", NIPS 2011.

Our reading, where the paper is silent, follows the authors' released program and pydensecrf: kernels are normalised
symmetrically, a pixel is its own neighbour, probabilities are clipped at 1e-5. It differs from them in one point: the
smoothness kernel is summed exactly along rows and columns, where they use a lattice.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rsepm_edu.labels import VOID
from rsepm_edu.methods.permutohedral import permutohedral_lattice
from rsepm_edu.methods.shapes import expect_maps, expect_range

FEW = 8
"""Where fewer numbers lie side by side, torch's soft-max and products that repeat a number are several times slower."""

Kernel = Callable[[Tensor], Tensor]
"""From values v at the pixels, B×H×W×C, to Σ_j k(f_i, f_j) v_j of the same shape; a constant factor does not matter."""


@torch.no_grad()
def dense_crf(
    image: Tensor,
    probabilities: Tensor,
    *,
    iterations: int = 10,
    smooth_sigma: float = 1,
    smooth_weight: float = 3,
    appearance_sigma: float = 67,
    colour_sigma: float = 3,
    appearance_weight: float = 4,
) -> Tensor:
    """Refine class probabilities by the dense CRF (Krähenbühl & Koltun 2011); the defaults are those for segmentation.

    ``mean_field`` with two kernels: smoothness exp(−|p_i − p_j|² / 2σ²) with σ = ``smooth_sigma``, and appearance
    exp(−|p_i − p_j|² / 2σ_xy² − |I_i − I_j|² / 2σ_rgb²) with σ_xy = ``appearance_sigma`` and σ_rgb =
    ``colour_sigma``. The appearance kernel goes through a permutohedral lattice, built once for the whole batch.

    Time and memory grow with the number of classes: give the channels of those that can occur in the picture. No
    gradient is computed.

    Args:
        image: B×3×H×W, uint8 or floating, values in 0…255. A floating one of which nothing is above 1 is refused, but
            for one that is black: it is one in 0…1.
        probabilities: B×C×H×W in [0, 1]; they need not add up to one (the unary is −log p).
        iterations: ≥ 0.
        smooth_sigma, appearance_sigma: in pixels, > 0.
        colour_sigma: in units of the image, > 0.
        smooth_weight, appearance_weight: of the two messages, ≥ 0.

    Returns:
        B×C×H×W, adding up to one over the classes, in the dtype of ``probabilities``.

    Raises:
        ValueError: shapes do not go together, or a setting or a number is out of range or NaN.
        TypeError: a tensor has a wrong dtype.
    """
    expect_maps(probabilities=probabilities)
    _expect_photographs(image, (probabilities.shape[0], *probabilities.shape[2:]))
    settings = [smooth_weight, appearance_weight]
    if min(smooth_sigma, appearance_sigma, colour_sigma) <= 0 or min(settings) < 0:
        sigmas = [smooth_sigma, appearance_sigma, colour_sigma]
        raise ValueError(f"expected sigmas > 0 and weights >= 0, got {sigmas} and {settings}")
    if probabilities.numel() == 0:
        return probabilities.clone()
    _expect_colours(image)
    exact = torch.promote_types(probabilities.dtype, torch.float32)  # half precision cannot hold sums over a picture
    features = pixel_features(image.to(exact), appearance_sigma, colour_sigma)
    kernels = [(smooth_weight, smooth_kernel(smooth_sigma)), (appearance_weight, lattice_kernel(features))]
    return mean_field(probabilities, kernels, iterations=iterations)


@torch.no_grad()
def dense_crf_labels(
    image: Tensor,
    labels: Tensor,
    num_labels: int,
    *,
    confidence: float = 0.7,
    iterations: int = 10,
    smooth_sigma: float = 3,
    smooth_weight: float = 3,
    appearance_sigma: float = 50,
    colour_sigma: float = 5,
    appearance_weight: float = 10,
) -> Tensor:
    """Refine labels by the dense CRF, with the settings that IRNet (Ahn, Cho & Kwak 2019) uses on its seeds.

    The probability of a pixel's label is ``confidence``, the others share the rest; void pixels have all labels alike
    and take one in the result.

    Args:
        image: B×3×H×W, uint8 or floating, values in 0…255.
        labels: B×H×W, integers in 0 … num_labels − 1 or void (255).
        num_labels: ≥ 2. As few as can be: number the labels of a picture from 0 on.
        confidence: in (0, 1).
        iterations, smooth_sigma, smooth_weight, appearance_sigma, colour_sigma, appearance_weight: see ``dense_crf``.

    Returns:
        B×H×W in 0 … num_labels − 1, in the dtype of ``labels``.

    Raises:
        ValueError: shapes do not go together, a label or a setting is out of range.
        TypeError: a tensor has a wrong dtype.
    """
    if labels.ndim != 3:
        raise ValueError(f"labels: expected BxHxW, got shape {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"labels: expected an integer dtype, got {labels.dtype}")
    if num_labels < 2 or not 0 < confidence < 1:
        raise ValueError(f"expected num_labels >= 2 and confidence in (0, 1), got {num_labels} and {confidence}")
    void = labels == VOID
    wanted = labels.long().masked_fill(void, 0)
    if ((wanted < 0) | (wanted >= num_labels)).any():
        raise ValueError(f"labels: expected 0 ... {num_labels - 1} or {VOID}, got {labels.unique().tolist()}")
    shape = (labels.shape[0], num_labels, *labels.shape[1:])
    probabilities = torch.full(shape, (1 - confidence) / (num_labels - 1), device=labels.device)
    probabilities.scatter_(1, wanted[:, None], confidence)
    refined = dense_crf(
        image,
        probabilities.masked_fill_(void[:, None], 1 / num_labels),
        iterations=iterations,
        smooth_sigma=smooth_sigma,
        smooth_weight=smooth_weight,
        appearance_sigma=appearance_sigma,
        colour_sigma=colour_sigma,
        appearance_weight=appearance_weight,
    )
    return refined.argmax(1).to(labels.dtype)


def with_background(seed: Tensor, *, power: float = 2.0) -> Tensor:
    """Put the background score (1 − max_k m_k)^power before the maps of a seed; 2 is RecurSeed's released setting.

    Args:
        seed: B×K×H×W in [0, 1], K ≥ 1.
        power: > 0; smaller means more background.

    Returns:
        B×(K+1)×H×W in [0, 1], background first.

    Raises:
        ValueError: ``seed`` is not B×K×H×W or ``power`` is not positive.
        TypeError: ``seed`` is not floating.
    """
    expect_maps(seed=seed)
    if power <= 0:
        raise ValueError(f"power: expected > 0, got {power}")
    return torch.cat([(1 - seed.amax(1, keepdim=True)).clamp(min=0) ** power, seed], dim=1)


@torch.no_grad()
def mean_field(probabilities: Tensor, kernels: Sequence[tuple[float, Kernel]], *, iterations: int = 10) -> Tensor:
    """Mean-field inference with Potts compatibility (Krähenbühl & Koltun 2011, algorithm 1).

    Q ← softmax(log p) first, then in every iteration Q_i ← softmax(log p_i + Σ_m w_m Σ_j n_mi k_m(f_i, f_j) n_mj Q_j)
    with n_mi = (Σ_j k_m(f_i, f_j))^(−1/2). With ``all_pairs_kernel`` this is exact, for tiny pictures.

    Args:
        probabilities: B×C×H×W in [0, 1].
        kernels: weight w_m and kernel k_m of each message.
        iterations: ≥ 0.

    Returns:
        B×C×H×W, adding up to one over the classes, in the dtype of ``probabilities``.

    Raises:
        ValueError: ``probabilities`` is not B×C×H×W or not in [0, 1], or ``iterations`` is negative.
        TypeError: ``probabilities`` is not floating.
    """
    expect_maps(probabilities=probabilities)
    if iterations < 0:
        raise ValueError(f"iterations: expected >= 0, got {iterations}")
    expect_range("probabilities", probabilities, 0, 1)  # logits, above all, are none
    exact = torch.promote_types(probabilities.dtype, torch.float32)
    # Classes last: what a pixel gives and takes lies side by side in memory. Contiguous before anything else is done.
    logits = probabilities.to(exact).permute(0, 2, 3, 1).contiguous().clamp(1e-5, 1).log_()
    with torch.autocast(probabilities.device.type, enabled=False):
        ones = logits.new_ones(*logits.shape[:3], 1)
        norms = [kernel(ones).rsqrt() for _, kernel in kernels]
        if logits.shape[-1] < FEW:
            norms = [norm.expand_as(logits).contiguous() for norm in norms]
        beliefs = _softmax(logits)
        for _ in range(iterations):
            total = logits.clone()
            for (weight, kernel), norm in zip(kernels, norms, strict=True):
                total.addcmul_(kernel(beliefs * norm), norm, value=weight)
            beliefs = _softmax(total)
    return beliefs.permute(0, 3, 1, 2).to(probabilities.dtype, memory_format=torch.contiguous_format)


def pixel_features(image: Tensor, sigma: float, colour_sigma: float | None = None) -> Tensor:
    """What a kernel compares: column and row over ``sigma`` and, where given, the colours over ``colour_sigma``.

    Args:
        image: B×C×H×W, floating.
        sigma: in pixels.
        colour_sigma: in units of the image; None leaves the colours out.

    Returns:
        B×H×W×2 or B×H×W×(2+C).
    """
    batch, _, height, width = image.shape
    column = torch.arange(width, device=image.device, dtype=image.dtype).expand(height, width)
    row = torch.arange(height, device=image.device, dtype=image.dtype)[:, None].expand(height, width)
    places = torch.stack([column, row], dim=-1).expand(batch, -1, -1, -1) / sigma
    if colour_sigma is None:
        return places
    return torch.cat([places, image.permute(0, 2, 3, 1) / colour_sigma], dim=-1)


def all_pairs_kernel(features: Tensor) -> Kernel:
    """The Gaussian summed over all pairs of pixels, exactly: a matrix of HW×HW numbers, so for tiny pictures.

    Args:
        features: B×H×W×d in units of their standard deviations.
    """
    points = features.flatten(1, 2)
    weights = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist").square().mul(-0.5).exp()
    return lambda values: (weights @ values.flatten(1, 2)).view(values.shape)


def lattice_kernel(features: Tensor) -> Kernel:
    """The Gaussian by a permutohedral lattice: nearly as exact, in a time that grows with the number of pixels.

    Args:
        features: B×H×W×d in units of their standard deviations, float32 or float64.
    """
    lattice = permutohedral_lattice(features.flatten(1, 2))
    return lambda values: lattice.filter(values.flatten(1, 2)).view(values.shape)


def smooth_kernel(sigma: float) -> Kernel:
    """The Gaussian of the places alone, along columns and then rows, cut off where it is below 4e-6.

    Args:
        sigma: in pixels.
    """

    def smooth(values: Tensor) -> Tensor:
        height, width, channels = values.shape[1:]
        reach = min(math.ceil(5 * sigma), max(height, width) - 1)
        distance = torch.arange(-reach, reach + 1, device=values.device, dtype=values.dtype)
        taps = (-0.5 * (distance / sigma).square()).exp().expand(channels, 1, -1)
        maps = values.permute(0, 3, 1, 2)  # channels last in memory, where this convolution is quick
        maps = F.conv2d(maps, taps[..., None], padding=(reach, 0), groups=channels)
        maps = F.conv2d(maps, taps[:, :, None], padding=(0, reach), groups=channels)
        return maps.permute(0, 2, 3, 1)

    return smooth


def _softmax(logits: Tensor) -> Tensor:
    """The soft-max over the last dimension."""
    if logits.shape[-1] >= FEW:
        return logits.softmax(-1)
    powers = (logits - logits.amax(-1, keepdim=True)).exp_()
    return powers.div_(powers.sum(-1, keepdim=True))


def _expect_photographs(image: Tensor, size: tuple[int, ...]) -> None:
    """Check that ``image`` is B×3×H×W, uint8 or floating, for ``size`` = (B, H, W)."""
    if image.ndim != 4 or image.shape[1] != 3 or (image.shape[0], *image.shape[2:]) != size:
        batch, height, width = size
        raise ValueError(f"image: expected Bx3xHxW = {(batch, 3, height, width)}, got shape {tuple(image.shape)}")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise TypeError(f"image: expected uint8 or a floating dtype, got {image.dtype}")


def _expect_colours(image: Tensor) -> None:
    """Check that the numbers of a floating image are in 0…255, and not in 0…1."""
    if image.dtype == torch.uint8:
        return
    expect_range("image", image, 0, 255)
    most = float(image.max())
    if 0 < most <= 1:
        raise ValueError(f"image: expected values in 0 ... 255, got none above {most:g}, as in 0 ... 1")
