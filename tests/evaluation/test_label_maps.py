import torch

from rsepm_edu.data.transforms import normalise
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.evaluation.inference import multi_scale_maps, predict_labels
from rsepm_edu.evaluation.label_maps import label_maps
from rsepm_edu.evaluation.scoring import seed_maps
from rsepm_edu.evaluation.seed_options import SeedOptions
from rsepm_edu.evaluation.thresholds import labels_at
from rsepm_edu.models.network import build_network


def test_a_split_is_drawn_as_it_is_scored(creatures):
    torch.manual_seed(0)
    dataset = VocDataset(creatures, "val", masks=True)
    network = build_network("creatures", dataset.classes, decoder_channels=16, decoder_rates=(1, 2)).eval()
    scales = (1.0,)

    def drawn(**options):
        found = list(label_maps(network, dataset, SeedOptions(scales), progress=False, **options))
        assert [case.name for case in found] == dataset.names
        assert all(torch.equal(case.truth, dataset[i]["mask"]) for i, case in enumerate(found))
        assert all(torch.equal(case.image, dataset[i]["image"]) for i, case in enumerate(found))
        return [case.prediction for case in found]

    final, given, seeds = [], [], []
    for sample in dataset:
        image, tags = normalise(torch.as_tensor(sample["image"]))[None], sample["tags"][None]
        final.append(predict_labels(multi_scale_maps(network, image, scales=scales))[0])
        maps, argmax = seed_maps(network, image, tags, SeedOptions(scales))
        given.append(argmax[0])
        seeds.append(labels_at(maps["cam+pamr"], 0.3)[0])
    for found, wanted in (
        (drawn(tags=False), final),
        (drawn(tags=True), given),
        (drawn(tags=True, seed=("cam+pamr", 0.3)), seeds),
    ):
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(given, seeds, strict=True))
