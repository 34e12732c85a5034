"""The synthetic dataset: shaped as promised, made of the factors it reports, and hard in the way it should be."""

import tracemalloc

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from corruptions import MODALITIES, InputError, corrupt
from robustbench_msa.data.dataset import SPLITS, batch_fingerprint
from robustbench_msa.data.synth import (
    EXPLANATIONS,
    FEATURE_STEP,
    SHARED_IN_VIDEO,
    SynthModality,
    SynthModel,
    explanation_view,
    labels_of,
    make_synth,
    shown_factors,
    true_factors,
)


@pytest.fixture(scope="module")
def explained():
    return make_synth(sizes=(1284, 20, 4000), explanations=True)


@pytest.fixture(scope="module")
def data():
    return make_synth()


@pytest.fixture(scope="module")
def test_factors():
    return true_factors(split="test", sizes=(10, 10, 20_000))


def correlation(a, b):
    return np.corrcoef(a, b)[0, 1]


def test_it_has_the_shape_of_mosi(data):
    assert (data.name, data.profile, data.text_at) == ("synth", "mosi", "tokens")
    assert data.parameters == {"generator": "synth", "seed": 1111, "sizes": [1284, 229, 686], "version": 1}
    assert [len(data.splits[s]) for s in SPLITS] == [1284, 229, 686]
    assert [len(set(data.splits[s].groups)) for s in SPLITS] == [52, 10, 31]
    shapes = [tuple(data.splits["test"].features(m).shape[1:]) for m in MODALITIES]
    assert shapes == [(24, 48), (40, 24), (32, 16)]


def test_ids_name_their_video_and_splits_share_none(data):
    ids = [set(data.splits[s].ids) for s in SPLITS]
    groups = [set(data.splits[s].groups) for s in SPLITS]
    assert len(set.union(*ids)) == 1284 + 229 + 686
    assert len(set.union(*groups)) == 52 + 10 + 31
    test = data.splits["test"]
    assert all(i.split("$_$")[0] == g for i, g in zip(test.ids, test.groups, strict=True))
    sizes = np.unique(data.splits["train"].groups, return_counts=True)[1]
    assert sizes.min() >= 5
    assert sizes.max() > 1.5 * sizes.min()


def test_lengths_cover_a_quarter_to_all_of_the_steps(data):
    train = data.splits["train"]
    for modality in MODALITIES:
        lengths, steps = train.lengths(modality).numpy(), train.features(modality).shape[1]
        np.testing.assert_array_equal(np.unique(lengths), np.arange(steps // 4, steps + 1))


def test_padding_is_zero_and_valid_steps_are_not(data):
    for split in SPLITS:
        for modality in MODALITIES:
            x, valid = data.splits[split].features(modality), data.splits[split].valid(modality)
            np.testing.assert_array_equal((x != 0).any(dim=2).numpy(), valid.numpy())


def test_features_are_multiples_of_their_step(data):
    for modality in MODALITIES:
        fine = data.splits["test"].features(modality).double().numpy() / FEATURE_STEP
        np.testing.assert_array_equal(fine, np.rint(fine))


def test_a_seed_has_one_fingerprint():
    small = make_synth(7, (30, 10, 20))
    # Any change here is a change of the data: raise VERSION with it.
    assert small.fingerprint == "1ed0a0174e6c51a4279f35d34aea1583f406254401f8b80d402d0803fdca786d"
    assert make_synth(8, (30, 10, 20)).fingerprint != small.fingerprint


def test_a_seed_with_explanations_has_one_fingerprint():
    explained = make_synth(7, (30, 10, 20), explanations=True)
    # As above: a change here is a change of the data.
    assert explained.fingerprint == "a9f3a9fc00473a1404a94a0b9855cbe72170e1b4cc851154a9423ecc0c311620"
    assert (explained.name, explained.profile, explained.text_at) == ("synth-explained", "mosi", "tokens")
    expected = {"generator": "synth-explained", "seed": 7, "sizes": [30, 10, 20], "version": 1, "explanations": True}
    assert explained.parameters == expected


def test_explanations_change_nothing_else():
    plain, explained = make_synth(7, (30, 10, 20)), make_synth(7, (30, 10, 20), explanations=True)
    for split in SPLITS:
        assert not plain.splits[split].derived
        bare = explained.splits[split].replace(derived={})
        assert batch_fingerprint(bare) == batch_fingerprint(plain.splits[split])
    assert (plain.derived_dims, explained.derived_dims) == ({}, dict.fromkeys(EXPLANATIONS, 16))


def test_explanations_are_short_ragged_and_padded_with_zeros(explained):
    train = explained.splits["train"]
    assert {name: d.sources for name, d in train.derived.items()} == {
        "explanation_audio": ("audio",),
        "explanation_vision": ("vision",),
        "comment": ("text", "audio", "vision"),
    }
    lengths = {}
    for name, d in train.derived.items():
        assert d.values.shape == (1284, 8, 16)
        fine = d.values.double().numpy() / FEATURE_STEP
        np.testing.assert_array_equal(fine, np.rint(fine))
        there = (d.values != 0).any(dim=2).numpy()
        lengths[name] = there.sum(axis=1)
        np.testing.assert_array_equal(there, np.arange(8) < lengths[name][:, None])
        np.testing.assert_array_equal(np.unique(lengths[name]), np.arange(2, 9))
    assert abs(correlation(lengths["explanation_audio"], lengths["comment"])) < 0.1


def test_explanations_are_noisy_views_of_the_factors_of_their_sources(explained):
    f = true_factors(1111, "test", (1284, 20, 4000))
    everything = ("r", "u_T", "u_A", "u_V", "b_T", "b_A", "b_V")
    assert shown_factors(EXPLANATIONS["comment"]) == everything
    factors, residuals = np.stack([f[name] for name in everything], axis=1), []
    for name, d in explained.splits["test"].derived.items():
        x, view, there = d.values.double().numpy(), explanation_view(name), (d.values != 0).any(dim=2).numpy()
        sample, step = there.nonzero()
        found, *_ = np.linalg.lstsq(factors[sample], x[sample, step], rcond=None)
        expected = np.zeros((7, 16))
        expected[[everything.index(n) for n in shown_factors(d.sources)]] = view.loadings.T
        np.testing.assert_allclose(found, expected, atol=0.08)
        residual = x[sample, step] - factors[sample] @ found
        np.testing.assert_allclose(residual.std(axis=0), view.noise, rtol=0.04)
        first = np.concatenate([[True], sample[1:] != sample[:-1]])  # each sample's first step
        residuals.append(residual[first])
    for i, j in ((0, 1), (0, 2), (1, 2)):
        np.testing.assert_allclose(np.mean(residuals[i] * residuals[j], axis=0), 0, atol=0.4)  # noise of its own


def test_explanations_are_lost_with_their_sources(explained):
    batch = explained.splits["test"].select(np.arange(200))
    out = corrupt(batch, "missing", 0.6, seed=3)
    lost = ~out.present
    assert lost.any(dim=0).all()
    for name, d in batch.derived.items():
        gone = lost[:, [MODALITIES.index(source) for source in d.sources]].any(dim=1)
        values = out.derived[name].values
        np.testing.assert_array_equal(values[gone], 0)
        np.testing.assert_array_equal(values[~gone], d.values[~gone])


def test_explanations_help_and_give_nothing_away(explained):
    train, test = explained.splits["train"], explained.splits["test"]

    def corr(modalities, names):
        x = [
            np.concatenate([pooled(batch, modalities), *(explained_mean(batch, name) for name in names)], axis=1)
            for batch in (train, test)
        ]
        fitted = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 4, 9))).fit(x[0], train.labels.numpy())
        return correlation(fitted.predict(x[1]), test.labels.numpy())

    without, with_all = corr(MODALITIES, []), corr(MODALITIES, EXPLANATIONS)
    assert 0.015 < with_all - without < 0.08
    assert corr(["audio"], ["explanation_audio"]) > corr(["audio"], []) + 0.03
    assert corr(["text"], ["comment"]) < with_all


def test_a_split_does_not_depend_on_the_others_sizes():
    a, b = make_synth(3, (20, 5, 40)).splits["test"], make_synth(3, (60, 9, 40)).splits["test"]
    for modality in MODALITIES:
        np.testing.assert_array_equal(a.features(modality).numpy(), b.features(modality).numpy())
    assert a.ids == b.ids


def test_labels_are_rounded_clipped_scores(data):
    labels, factors = data.splits["test"].labels.numpy(), true_factors(split="test")
    np.testing.assert_array_equal(labels, labels_of(1.5 * factors["y_star"]))
    fifths = np.rint(labels.astype(np.float64) * 5)
    np.testing.assert_array_equal(labels, (fifths / 5).astype(np.float32))
    assert (labels.min(), labels.max()) == (-3.0, 3.0)
    assert not np.signbit(labels[labels == 0]).any()
    np.testing.assert_allclose(labels, np.clip(1.5 * factors["y_star"], -3, 3), atol=0.1 + 1e-6)


def test_factors_are_standard_and_independent(test_factors):
    names = ["r", "u_T", "u_A", "u_V", "b_T", "b_A", "b_V"]
    matrix = np.stack([test_factors[n] for n in names])
    np.testing.assert_allclose(np.cov(matrix), np.eye(7), atol=0.05)  # r varies more: its videos count
    assert set(np.unique(matrix[4:])) == {-1.0, 1.0}


def test_clips_of_a_video_share_their_part_of_r():
    sizes = (10, 10, 4000)
    groups, f = np.array(make_synth(1111, sizes).splits["test"].groups), true_factors(1111, "test", sizes)
    same = groups[1:] == groups[:-1]
    np.testing.assert_allclose((f["r"][1:] * f["r"][:-1])[same].mean(), SHARED_IN_VIDEO, atol=0.1)
    np.testing.assert_allclose((f["u_T"][1:] * f["u_T"][:-1])[same].mean(), 0, atol=0.07)


def test_the_score_is_the_weighted_sum_of_factors_with_a_three_way_synergy(test_factors):
    model, f = SynthModel.default(), test_factors
    product = f["b_T"] * f["b_A"] * f["b_V"]
    columns = np.stack([f["r"], f["u_T"], f["u_A"], f["u_V"], product], axis=1)
    found, *_ = np.linalg.lstsq(columns, f["y_star"], rcond=None)
    expected = [model.a_redundant, *model.a_unique, model.a_synergy]
    np.testing.assert_allclose(found, expected, atol=0.015)  # 4 standard errors
    np.testing.assert_allclose((f["y_star"] - columns @ found).std(), model.noise, rtol=0.02)
    for a, b in (("b_T", "b_A"), ("b_T", "b_V"), ("b_A", "b_V")):
        assert abs(correlation(f[a] * f[b], f["y_star"])) < 0.03


def test_features_are_the_loadings_times_factors_along_the_gain(data):
    model, train, f = SynthModel.default(), data.splits["train"], true_factors(split="train")
    for modality, m in zip(MODALITIES, "TAV", strict=True):
        part, lengths = model.part(modality), train.lengths(modality).numpy()
        x = train.features(modality).double().numpy()
        shown = np.stack([f["r"], f[f"u_{m}"], f[f"b_{m}"]], axis=1)
        tau = np.arange(1, x.shape[1] + 1) / lengths[:, None]
        design = (part.gain(tau)[:, :, None] * shown[:, None, :])[tau <= 1]
        found, *_ = np.linalg.lstsq(design, x[tau <= 1], rcond=None)
        np.testing.assert_allclose(found.T, part.loadings, atol=0.1)
        residual = x[tau <= 1] - design @ part.loadings.T
        np.testing.assert_allclose(residual.std(axis=0), part.noise, rtol=0.04)


def test_loadings_are_orthogonal_with_the_given_gains():
    model = SynthModel.default()
    for modality, gains in (("text", (1.38, 1.20, 5)), ("audio", (0.40, 0.95, 5)), ("vision", (0.40, 1.10, 5))):
        loadings = model.part(modality).loadings
        np.testing.assert_allclose(loadings.T @ loadings, np.diag(np.square(gains)), atol=1e-12)


def test_gains_are_positive_differ_and_have_mean_square_one():
    model, tau = SynthModel.default(), np.linspace(0, 1, 1001)
    gains = [model.part(m).gain(tau) for m in MODALITIES]
    for gain, modality in zip(gains, MODALITIES, strict=True):
        assert gain.min() > 0
        np.testing.assert_allclose(np.mean(gain[:-1] ** 2), 1)
        weights = model.part(modality).weights(np.array([10, 16]), 16)
        np.testing.assert_allclose((weights**2).sum(axis=1), [10, 16])  # exact for whole periods
        np.testing.assert_array_equal(weights[0, 10:], 0)
    assert max(abs(correlation(gains[i], gains[j])) for i, j in ((0, 1), (0, 2), (1, 2))) < 0.01


def test_weights_of_an_empty_sequence_are_zero():
    part = SynthModality(4, np.eye(3), 1.0, depth=0.5)
    np.testing.assert_array_equal(part.weights(np.array([0]), 4), np.zeros((1, 4)))


def test_working_memory_stays_below_the_size_of_the_data():
    tracemalloc.start()
    try:
        made = make_synth(1, (10, 10, 1500))
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(made.splits["test"]) == 1500
    assert peak - kept < 0.6 * kept


@pytest.mark.parametrize("sizes", [(1284, 229), (10, 0, 10), (10, 2.5, 10), "abc"])
def test_sizes_that_are_not_three_counts_are_refused(sizes):
    with pytest.raises(InputError, match="three whole numbers of at least 1"):
        make_synth(1, sizes)


def test_an_unknown_split_is_refused():
    with pytest.raises(InputError, match="split must be one of train, valid, test; got 'dev'"):
        true_factors(split="dev")


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 3, 5)])
def test_tiny_splits_work(sizes):
    made = make_synth(5, sizes)
    assert tuple(len(made.splits[s]) for s in SPLITS) == sizes


def pooled(batch, modalities):
    """Features averaged over valid steps, ``(N, sum of d)``."""
    means = [(batch.features(m).sum(dim=1) / batch.lengths(m)[:, None]).numpy() for m in modalities]
    return np.concatenate(means, axis=1)


def explained_mean(batch, name):
    values = batch.derived[name].values
    return (values.sum(dim=1) / (values != 0).any(dim=2).sum(dim=1)[:, None]).numpy()


def test_a_pooled_mlp_beats_ridge_and_single_modalities_are_weak():
    made = make_synth(1111, (1284, 2, 4000))
    train, test = made.splits["train"], made.splits["test"]

    def corr(regressor, modalities):
        fitted = make_pipeline(StandardScaler(), regressor).fit(pooled(train, modalities), train.labels.numpy())
        return correlation(fitted.predict(pooled(test, modalities)), test.labels.numpy())

    network = {"hidden_layer_sizes": (64,), "alpha": 1.0, "batch_size": 32, "learning_rate_init": 2e-3}
    network |= {"early_stopping": True, "n_iter_no_change": 15, "max_iter": 300, "random_state": 0}
    ridge = corr(RidgeCV(np.logspace(0, 4, 9)), MODALITIES)
    assert corr(MLPRegressor(**network), MODALITIES) > ridge + 0.02
    assert 0.62 < corr(RidgeCV(np.logspace(0, 4, 9)), ["text"]) < ridge - 0.03
    for modality in ("audio", "vision"):
        assert 0.25 < corr(RidgeCV(np.logspace(0, 4, 9)), [modality]) < 0.45
        assert 0.25 < corr(MLPRegressor(**network), [modality]) < 0.45
