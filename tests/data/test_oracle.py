"""The oracle against Monte Carlo over the factors, numerical integration, calibration, and models that it must beat."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import softmax
from scipy.stats import multivariate_normal, norm
from sklearn.linear_model import RidgeCV
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from corruptions import MODALITIES, Batch, InputError
from corruptions.keyed_random import keyed_normals, keyed_uniforms
from robustbench_msa.data.oracle import Mixture, clipped_mean, clipped_median, decisions, posterior
from robustbench_msa.data.synth import SynthModality, SynthModel, make_synth, true_factors

DRAWS = 200_000
SIZES = (1284, 2, 4000)


def small_model(strength=0.5):
    """Few steps and features, loadings that are not orthogonal; weak ones suit importance sampling from the prior."""
    shapes = {"text": (3, 4), "audio": (4, 3), "vision": (3, 2)}
    loadings = {m: strength * keyed_normals(f"small {m}", (d, 3)) for m, (_, d) in shapes.items()}
    parts = {
        m: SynthModality(steps, loadings[m], 0.9 + 0.2 * i, depth=0.6, cycles=1, phase=float(i))
        for i, (m, (steps, _)) in enumerate(shapes.items())
    }
    return SynthModel(**parts, a_synergy=0.6)


def small_batch():
    """Three samples: whole; with lost steps and one modality told absent; with one modality silently zero."""
    model = small_model()
    x = {m: keyed_normals(f"x {m}", (3, model.part(m).steps, len(model.part(m).loadings))) for m in MODALITIES}
    lengths = {"text": [3, 2, 3], "audio": [4, 3, 2], "vision": [2, 3, 3]}
    for modality in MODALITIES:
        for i, length in enumerate(lengths[modality]):
            x[modality][i, length:] = 0
    x["text"][1, 0] = x["audio"][1, 2] = x["vision"][2] = 0
    present = torch.tensor([[True, True, True], [True, True, False], [True, True, True]])
    return Batch(**x, **{f"{m}_lengths": torch.tensor(v) for m, v in lengths.items()}, present=present)


def monte_carlo(batch, row, model, noise_std, conflict):
    """Scores c y* drawn from the prior and their importance weights, by the generative equations step by step."""
    r, donor_r = keyed_normals("r", (DRAWS,)), keyed_normals("donor r", (DRAWS,))
    which = keyed_uniforms("hypothesis", (DRAWS,))
    audio_swapped = (which < conflict / 3) | ((which > 2 * conflict / 3) & (which < conflict))
    vision_swapped = (which > conflict / 3) & (which < conflict)
    swapped = {"text": np.zeros(DRAWS, bool), "audio": audio_swapped, "vision": vision_swapped}
    y, synergy, log = model.a_redundant * r, np.ones(DRAWS), np.zeros(DRAWS)
    for i, modality in enumerate(MODALITIES):
        part, length = model.part(modality), int(batch.lengths(modality)[row])
        own = [r, keyed_normals(f"u {i}", (DRAWS,)), np.sign(keyed_uniforms(f"b {i}", (DRAWS,)) - 0.5)]
        other = [donor_r, keyed_normals(f"du {i}", (DRAWS,)), np.sign(keyed_uniforms(f"db {i}", (DRAWS,)) - 0.5)]
        y, synergy = y + model.a_unique[i] * own[1], synergy * own[2]
        shown = np.where(swapped[modality], np.array(other), np.array(own)).T  # (DRAWS, 3)
        if not batch.present[row, i]:
            continue
        std = np.sqrt(part.noise**2 + np.asarray(noise_std.get(modality, 0.0)) ** 2)
        for t in range(1, length + 1):
            x = batch.features(modality)[row, t - 1].numpy()
            if x.any():
                log += norm.logpdf(x, part.gain(np.array(t / length)) * shown @ part.loadings.T, std).sum(axis=1)
    y = y + model.a_synergy * synergy + model.noise * keyed_normals("eps", (DRAWS,))
    weights = np.exp(log - log.max())
    return model.scale * y, weights / weights.sum()


NOISE = {"audio": np.array([0.3, 1.0, 2.0]), "vision": 0.7}


@pytest.mark.parametrize(("noise_std", "conflict"), [({}, 0.0), (NOISE, 0.0), (NOISE, 0.6), ({}, 1.0)])
def test_posterior_agrees_with_importance_sampling_over_the_factors(noise_std, conflict):
    model, batch = small_model(), small_batch()
    found = posterior(batch, model, noise_std, conflict)
    made = decisions(found)
    for row in range(len(batch)):
        score, weights = monte_carlo(batch, row, model, noise_std, conflict)
        moments = {
            "mean": (np.clip(score, -3, 3), made["mean"][row]),
            "p_positive": (score > 0, made["p_positive"][row]),
            "below -1.5": (score < -1.5, found.below(-1.5)[row]),
            "second moment": (score**2, (found.weights * (found.variances + found.means**2)).sum(axis=1)[row]),
        }
        for name, (values, exact) in moments.items():
            estimate = weights @ values
            error = np.sqrt(weights**2 @ (values - estimate) ** 2)
            assert error < 0.03 * max(1, estimate), name  # or the next line could not fail
            assert abs(exact - estimate) < 4 * error, name


def joint_gaussian(batch, row, model, noise_std, conflict):
    """Weights, means and variances of c y*, by conditioning the whole joint Gaussian of y* and all surviving values.

    Latent: (r, u_T, u_A, u_V, donor's r, u_A, u_V); one component for each hypothesis and each sign of host and donor.
    """
    a = np.array([model.a_redundant, *model.a_unique, 0, 0, 0])
    log, means, variances = [], [], []
    for swapped, prior in (((), 1 - conflict), ((1,), conflict / 3), ((2,), conflict / 3), ((1, 2), conflict / 3)):
        for *b, donor_audio, donor_vision in product((-1, 1), repeat=5):
            donor = {1: donor_audio, 2: donor_vision}
            rows, offset, x, var = [], [], [], []
            for i, modality in enumerate(MODALITIES):
                part, length = model.part(modality), int(batch.lengths(modality)[row])
                std = np.broadcast_to(noise_std.get(modality, 0.0), len(part.loadings))
                for t in range(length if batch.present[row, i] else 0):
                    seen, g = (
                        batch.features(modality)[row, t].numpy(),
                        part.gain(np.array((t + 1) / length)) * part.loadings,
                    )
                    if seen.any():
                        loading = np.zeros((len(g), 7))
                        loading[:, [4, 4 + i] if i in swapped else [0, 1 + i]] = g[:, :2]
                        rows, offset = [*rows, *loading], [*offset, *g[:, 2] * (donor[i] if i in swapped else b[i])]
                        x, var = [*x, *seen], [*var, *part.noise**2 + std**2]
            A, rest = np.array(rows), np.array(x) - offset
            S = A @ A.T + np.diag(var)
            gain = np.linalg.solve(S, A @ a)
            log.append(np.log(prior) + multivariate_normal.logpdf(rest, cov=S))
            means.append(model.scale * (gain @ rest + model.a_synergy * np.prod(b)))
            variances.append(model.scale**2 * (a @ a + model.noise**2 - gain @ A @ a))
    return Mixture(softmax(log)[None], np.array([means]), np.array([variances]))


@pytest.mark.parametrize("strength", [0.5, 2.0])
@pytest.mark.parametrize("conflict", [0.3, 0.9])
def test_posterior_agrees_with_conditioning_the_joint_gaussian(strength, conflict):
    model, batch = small_model(strength), small_batch()
    found = posterior(batch, model, NOISE, conflict)
    for row in range(len(batch)):
        exact = joint_gaussian(batch, row, model, NOISE, conflict)
        np.testing.assert_allclose(clipped_mean(found)[row], clipped_mean(exact)[0], rtol=1e-9)
        for threshold in (-2.0, -0.3, 1.1):
            np.testing.assert_allclose(found.below(threshold)[row], exact.below(threshold)[0], rtol=1e-9)


def random_mixtures(count=12, k=8):
    weights = keyed_uniforms("weights", (count, k)) ** 3
    means = 2.5 * keyed_normals("means", (count, k))
    means[0] -= 9  # almost surely clipped
    return Mixture(weights / weights.sum(axis=1, keepdims=True), means, 0.02 + keyed_uniforms("var", (count, k)))


def test_closed_forms_agree_with_numerical_integration():
    mixture = random_mixtures()
    for i, (mean, median) in enumerate(zip(clipped_mean(mixture), clipped_median(mixture), strict=True)):
        parts = [norm(m, np.sqrt(v)) for m, v in zip(mixture.means[i], mixture.variances[i], strict=True)]
        w = mixture.weights[i]
        below, above = (w @ [p.cdf(-3) for p in parts], w @ [p.sf(3) for p in parts])
        inside = quad(lambda z, w=w, parts=parts: z * (w @ [p.pdf(z) for p in parts]), -3, 3, limit=200)[0]
        np.testing.assert_allclose(mean, 3 * above - 3 * below + inside, atol=1e-7)
        if below > 0.5 or above > 0.5:
            np.testing.assert_allclose(median, -3 if below > 0.5 else 3, atol=1e-8)
        else:
            np.testing.assert_allclose(w @ [p.cdf(median) for p in parts], 0.5, atol=1e-7)


def test_class_decisions_maximise_the_probability_of_the_rounded_label():
    mixture = random_mixtures(200)
    made = decisions(mixture)
    labels = np.arange(-15, 16) / 5  # every value that a label can take
    edges = np.concatenate([[-np.inf], (labels[1:] + labels[:-1]) / 2, [np.inf]])
    cdf = norm.cdf(edges, mixture.means[..., None], np.sqrt(mixture.variances)[..., None])
    probability = np.einsum("nk,nkl->nl", mixture.weights, np.diff(cdf, axis=-1))  # (N, labels)
    rows = np.arange(len(probability))
    for limit in (1, 2, 3):
        classes = np.rint(np.clip(labels, -limit, limit))
        expected = np.stack([probability[:, classes == c].sum(axis=1) for c in range(-limit, limit + 1)], axis=1)
        np.testing.assert_array_equal(made[f"acc{2 * limit + 1}"], expected.argmax(axis=1) - limit)
        assert len(set(made[f"acc{2 * limit + 1}"])) == 2 * limit + 1
    negative, zero = probability[:, labels < 0].sum(axis=1), probability[rows, 15]
    np.testing.assert_array_equal(made["acc2_has0"] > 0, negative < 0.5)
    np.testing.assert_array_equal(made["acc2_non0"] > 0, 1 - negative - zero > negative)
    for decision in ("acc2_has0", "acc2_non0"):
        np.testing.assert_array_equal(np.abs(made[decision]), 1)
        np.testing.assert_array_equal(made[decision.replace("acc2", "f1")], made[decision])


def test_the_two_binary_decisions_differ_where_zero_is_likely():
    made = decisions(Mixture(np.ones((1, 1)), np.array([[-0.05]]), np.array([[0.04]])))
    assert (made["acc2_has0"][0], made["acc2_non0"][0]) == (1.0, -1.0)


def data_mixtures(batch, **options):
    return posterior(batch, SynthModel.default(), **options)


@pytest.fixture(scope="module")
def data():
    return make_synth(1111, SIZES)


def test_weights_sum_to_one_over_signs_and_hypotheses(data):
    test = data.splits["test"].select(range(300))
    for conflict, components in ((0.0, 8), (0.5, 32), (1.0, 32)):
        mixture = data_mixtures(test, conflict=conflict)
        assert mixture.weights.shape == mixture.means.shape == mixture.variances.shape == (300, components)
        np.testing.assert_allclose(mixture.weights.sum(axis=1), 1, rtol=1e-12)
        assert mixture.variances.min() > 0
    np.testing.assert_array_equal(mixture.weights[:, :8], 0)  # conflict 1 rules out "none"


def test_with_nothing_left_the_posterior_is_the_prior(data):
    model, test = SynthModel.default(), data.splits["test"].select(range(5))
    mixture = data_mixtures(test.replace(present=torch.zeros(5, 3, dtype=torch.bool)))
    np.testing.assert_allclose(mixture.weights, 1 / 8)
    np.testing.assert_allclose(np.abs(mixture.means), model.scale * model.a_synergy)
    variance = model.a_redundant**2 + np.square(model.a_unique).sum() + model.noise**2
    np.testing.assert_allclose(mixture.variances, model.scale**2 * variance)
    np.testing.assert_allclose(clipped_mean(mixture), 0, atol=1e-12)


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_lost_modality_drops_out_however_it_is_lost(data, modality):
    test = data.splits["test"].select(range(50))
    x = test.features(modality)
    present = torch.ones(50, 3, dtype=torch.bool)
    present[:, MODALITIES.index(modality)] = False
    told = data_mixtures(test.replace(present=present))
    ways = {
        "zeros": test.replace(**{modality: torch.zeros_like(x)}),
        "no steps": test.replace(**{f"{modality}_lengths": torch.zeros(50, dtype=torch.int64)}),
        "told, other content": test.replace(**{modality: 100 * x.flip(0), "present": present}),
    }
    for lost in ways.values():
        mixture = data_mixtures(lost)
        np.testing.assert_allclose(mixture.weights, told.weights, rtol=1e-12)
        np.testing.assert_allclose(mixture.means, told.means, rtol=1e-12)
        np.testing.assert_allclose(mixture.variances, told.variances, rtol=1e-12)
    assert (told.variances > data_mixtures(test).variances).all()


def test_other_samples_do_not_matter(data):
    test = data.splits["test"].select(range(600))
    whole, some = data_mixtures(test, conflict=0.3), data_mixtures(test.select([599, 3]), conflict=0.3)
    np.testing.assert_allclose(some.means, whole.means[[599, 3]], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(some.weights, whole.weights[[599, 3]], rtol=1e-8, atol=1e-12)


def test_a_small_conflict_is_no_conflict(data):
    test = data.splits["test"].select(range(200))
    with_doubt, without = data_mixtures(test, conflict=1e-9), data_mixtures(test)
    np.testing.assert_allclose(clipped_mean(with_doubt), clipped_mean(without), atol=1e-5)


def spread(mixture):
    """Variance of each sample's mixture, ``(N,)``."""
    mean = (mixture.weights * mixture.means).sum(axis=1)
    return (mixture.weights * (mixture.variances + mixture.means**2)).sum(axis=1) - mean**2


def noisy(batch, std, name):
    """Audio and vision with noise of these standard deviations per feature on valid steps."""
    changes = {}
    for m in ("audio", "vision"):
        x = batch.features(m)
        z = torch.from_numpy(keyed_normals(f"{name} {m}", tuple(x.shape)))
        changes[m] = (x + torch.from_numpy(std[m]) * z * batch.valid(m)[..., None]).float()
    return batch.replace(**changes)


def feature_std(batch):
    return {m: batch.features(m)[batch.valid(m)].std(dim=0).double().numpy() for m in ("audio", "vision")}


def test_more_noise_leaves_more_variance_on_average(data):
    test, sigma = data.splits["test"], feature_std(data.splits["train"])
    found = []
    for rho in (0.0, 0.3, 1.0, 3.0, 10.0):
        std = {m: rho * s for m, s in sigma.items()}
        found.append(spread(data_mixtures(noisy(test, std, "more"), noise_std=std)).mean())
    assert (np.diff(found) > 0.002).all()


def stressed(batch, stress, sigma, name):
    """A corrupted batch and what the oracle is told of it."""
    n = len(batch)
    if stress == "noise":
        std = {m: 0.5 * s for m, s in sigma.items()}
        batch = noisy(batch, std, name)
        for m in MODALITIES:  # half of the steps are lost
            kept = torch.from_numpy(keyed_uniforms(f"{name} steps {m}", tuple(batch.features(m).shape[:2])) < 0.5)
            batch = batch.replace(**{m: batch.features(m) * kept[..., None]})
        return batch, {"noise_std": std}
    if stress == "missing":  # told for even samples, silent for odd ones
        gone = torch.from_numpy(keyed_uniforms(f"{name} missing", (n, 3)) < 0.4)
        zeroed = {m: batch.features(m) * ~gone[:, i, None, None] for i, m in enumerate(MODALITIES)}
        return batch.replace(**zeroed, present=~gone | (torch.arange(n)[:, None] % 2 == 1)), {}
    if stress == "conflict":  # donors are random here, so that the oracle's hypotheses are the truth
        donors, which = torch.arange(n).roll(n // 2), keyed_uniforms(f"{name} conflict", (n,))
        changes = {}
        for m, swapped in (
            ("audio", (which < 0.2) | (which > 0.8)),
            ("vision", (which > 0.2) & (which < 0.4) | (which > 0.8)),
        ):
            index = torch.where(torch.from_numpy(swapped), donors, torch.arange(n))
            changes |= {m: batch.features(m)[index], f"{m}_lengths": batch.lengths(m)[index]}
        return batch.replace(**changes), {"conflict": 0.6}
    return batch, {}


def pooled(batch):
    """Means over surviving steps and which modalities have any, ``(N, sum of d + 3)``."""
    columns = []
    for m in MODALITIES:
        alive = (batch.features(m) != 0).any(dim=2).sum(dim=1, keepdim=True)
        columns += [batch.features(m).sum(dim=1) / alive.clamp(min=1), (alive > 0).float()]
    return torch.cat(columns, dim=1).numpy()


@pytest.mark.parametrize("stress", ["clean", "noise", "missing", "conflict"])
def test_posterior_is_calibrated(data, stress):
    sigma = feature_std(data.splits["train"])
    batch, told = stressed(data.splits["test"], stress, sigma, "test")
    mixture = data_mixtures(batch, **told)
    y_star = true_factors(1111, "test", SIZES)["y_star"]
    error = 1.5 * y_star - (mixture.weights * mixture.means).sum(axis=1)
    np.testing.assert_allclose(np.mean(error**2 / spread(mixture)), 1, atol=0.09)  # 4 standard errors
    p, positive = decisions(mixture)["p_positive"], y_star > 0
    bins = np.digitize(p, [0.2, 0.4, 0.6, 0.8])
    for b in range(5):
        inside = bins == b
        tolerance = 4 * np.sqrt(0.25 / inside.sum())
        assert inside.sum() > 100
        np.testing.assert_allclose(positive[inside].mean(), p[inside].mean(), atol=tolerance)


@pytest.mark.parametrize("stress", ["clean", "noise", "missing"])
def test_no_model_trained_for_the_stress_beats_the_oracle(data, stress):
    train, test, sigma = data.splits["train"], data.splits["test"], feature_std(data.splits["train"])
    seen, _ = stressed(train, stress, sigma, "train")
    batch, told = stressed(test, stress, sigma, "test")
    made = decisions(data_mixtures(batch, **told))
    network = {"hidden_layer_sizes": (64,), "alpha": 1.0, "batch_size": 64, "early_stopping": True}
    rivals = [RidgeCV(np.logspace(0, 4, 9)), MLPRegressor(**network, max_iter=200, random_state=0)]
    y = test.labels.numpy()
    predictions = [np.full(len(y), train.labels.numpy().mean())]
    for rival in rivals:
        fitted = make_pipeline(StandardScaler(), rival).fit(pooled(seen), train.labels.numpy())
        predictions.append(fitted.predict(pooled(batch)))
    nonzero = y != 0
    for p in predictions:
        assert np.mean((made["mean"] - y) ** 2) < np.mean((p - y) ** 2)
        assert np.mean(np.abs(made["mae"] - y)) < np.mean(np.abs(p - y))
        assert np.mean(((made["acc2_non0"] > 0) == (y > 0))[nonzero]) > np.mean(((p > 0) == (y > 0))[nonzero])
        assert np.mean((made["acc2_has0"] >= 0) == (y >= 0)) > np.mean((p >= 0) == (y >= 0))
        assert np.mean(made["acc7"] == np.rint(y)) > np.mean(np.rint(np.clip(p, -3, 3)) == np.rint(y))


@pytest.mark.parametrize("conflict", [-0.1, 1.5, float("nan")])
def test_a_conflict_that_is_no_probability_is_refused(conflict):
    with pytest.raises(InputError, match=r"conflict must be a probability in \[0, 1\]"):
        posterior(small_batch(), small_model(), conflict=conflict)


@pytest.mark.parametrize(
    ("noise_std", "message"),
    [
        ({"text": 0.1}, "noise_std is for audio and vision .* got text"),
        ({"audio": np.ones(4)}, "must be one number or 3"),
        ({"vision": -1.0}, "finite and at least 0"),
        ({"vision": np.nan}, "finite and at least 0"),
    ],
)
def test_noise_that_does_not_fit_is_refused(noise_std, message):
    with pytest.raises(InputError, match=message):
        posterior(small_batch(), small_model(), noise_std)


def test_data_of_another_shape_is_refused():
    with pytest.raises(InputError, match="the synthetic model has 48 text features, the batch has 4"):
        posterior(small_batch(), SynthModel.default())
    with pytest.raises(InputError, match="text is token ids"):
        posterior(small_batch().replace(text=torch.ones(3, 3, dtype=torch.int64)), small_model())
