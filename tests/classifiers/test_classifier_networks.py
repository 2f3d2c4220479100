"""Networks: torchvision's own, with keyed weights, and pretrained ones without their last layer."""

from __future__ import annotations

import pytest
import torch
from torchvision import models

from regimes.classifiers.networks import build_classifier, check_network_name
from regimes.errors import BadCheckpoint, ConfigError

NAME = "shufflenet_v2_x0_5"


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


def test_weights_depend_on_the_seed_and_leave_torchs_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    a, b, c = (build_classifier(NAME, 3, seed=s).state_dict() for s in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert equal(a, b)
    assert not equal(a, c)


@pytest.mark.parametrize("name", [NAME, "resnet18", "squeezenet1_1", "mobilenet_v3_small"])
def test_any_classifier_of_torchvision_gives_logits_of_the_classes(name):
    network = build_classifier(name, 3, seed=0).eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 3)


def test_pretrained_weights_are_kept_but_for_the_last_layer():
    state = models.get_model(NAME, weights=None, num_classes=10).state_dict()
    found = build_classifier(NAME, 3, seed=0, pretrained=state).state_dict()
    fresh = build_classifier(NAME, 3, seed=0).state_dict()
    head = {"fc.weight", "fc.bias"}
    assert all(torch.equal(found[k], state[k]) for k in found if k not in head)
    assert all(torch.equal(found[k], fresh[k]) for k in head)


def test_the_last_layer_starts_anew_even_if_it_would_fit():
    state = models.get_model(NAME, weights=None, num_classes=3).state_dict()
    found = build_classifier(NAME, 3, seed=0, pretrained=state).state_dict()
    assert not torch.equal(found["fc.weight"], state["fc.weight"])


def test_old_files_without_the_count_of_batches_are_accepted():
    state = models.get_model(NAME, weights=None).state_dict()
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert len(old) < len(state)
    found = build_classifier(NAME, 3, seed=0, pretrained=old).state_dict()
    assert torch.equal(found["conv1.0.weight"], old["conv1.0.weight"])


def test_weights_of_another_network_are_refused():
    state = models.get_model("squeezenet1_1", weights=None).state_dict()
    with pytest.raises(BadCheckpoint, match=f"expected those of {NAME}"):
        build_classifier(NAME, 3, seed=0, pretrained=state)


def test_an_unknown_network_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean resnet50"):
        check_network_name("resnet51")
    with pytest.raises(ConfigError, match="no such classifier"):
        check_network_name("fcn_resnet50")  # of torchvision, but no classifier
