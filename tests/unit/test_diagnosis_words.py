"""What a diagnosis says: changes of both sides by their signs, and the uniform curve by its best point alone."""

import numpy as np
import pytest

from worker.evaluation.diagnosis import Probe, diagnose


def sides(retention, gain):
    """A model's two sides, hardly any noise: 2 x (1 + draws)."""
    noise = 0.0005 * np.sin(np.arange(201))
    noise[0] = 0
    return np.stack([retention + noise, gain + noise])


def test_a_group_whose_undoing_wins_both_sides_is_told_by_signs():
    probed = [(Probe("embedding", "undone", {}), sides(0.731, 0.932)), (Probe("head", "undone", {}), sides(0.48, 0.85))]
    (said,) = diagnose(sides(0.5, 0.8), probed, auto=False, controls={})
    assert said["kind"] == "over_restored"
    assert "embedding: gain kept +13.2 points, retention +23.1;" in said["message"]
    assert "head: gain kept +5.0 points, retention -2.0)" in said["message"]
    assert said["changes"]["embedding"]["lost"]["value"] == pytest.approx(-0.231)


def test_what_costs_nothing_has_no_minus_sign():
    probed = [(Probe("norms", "further", {}), sides(0.6, 0.8))]
    (said,) = diagnose(sides(0.5, 0.8), probed, auto=True, controls={})
    assert said["kind"] == "under_restored"
    assert "half the way further to the base" in said["message"]
    assert "norms: retention +10.0 points, gain kept +0.0)" in said["message"]


def test_of_the_uniform_curve_only_its_best_point_is_named():
    controls = {"uniform t = 0.8": sides(0.5, 0.81), "uniform t = 0.7": sides(0.55, 0.86), "dg_hard": sides(0.5, 0.8),
                "random": sides(0.3, 0.9), "uniform t = 0.6": sides(0.7, 0.6)}  # fmt: skip
    found = diagnose(sides(0.5, 0.8), [], auto=False, controls=controls, curve={n for n in controls if "uniform" in n})
    assert [one["message"].partition(" keeps")[0] for one in found] == ["uniform t = 0.7", "dg_hard"]
    assert {one["kind"] for one in found} == {"control_as_good"}
