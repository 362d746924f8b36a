"""Many logistic regressions at once, for the bootstrap and permutation tests. Pure NumPy."""

import numpy as np

STEPS = 30
TOLERANCE = 1e-6
# Refits whose arrays are held together.
CHUNK = 200


def cluster_weights(clusters: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """How often a bootstrap of whole clusters draws each row; [resamples, rows].

    Args:
        clusters: number of each row's cluster, from 0; [rows].
        rng: source of the draws.
        resamples: how many.
    """
    count = clusters.max() + 1
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    return drawn[:, clusters].astype(float)


def shuffle_between(
    clusters: np.ndarray, rng: np.random.Generator, permutations: int
) -> np.ndarray:
    """Row numbers that give each cluster the values of another one; [permutations, rows].

    Rows of one cluster stay together: a cluster's k-th row takes from the other's k-th row,
    from its first again after its last.
    """
    order = np.argsort(clusters, kind="stable")
    sizes = np.bincount(clusters)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    place = np.empty(len(clusters), dtype=int)
    place[order] = np.arange(len(clusters)) - np.repeat(starts, sizes)
    sources = rng.permuted(np.tile(np.arange(len(sizes)), (permutations, 1)), axis=1)[:, clusters]
    return order[starts[sources] + place % sizes[sources]]


def refit(
    design: np.ndarray,
    outcome: np.ndarray,
    weights: np.ndarray,
    start: np.ndarray,
    ridge: float = 0.0,
    shuffled: tuple[int, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regressions by Newton's method, one per row of `weights`.

    Each maximises the weighted log-likelihood less ridge / 2 times the squared coefficients; the
    first column is the intercept and is not penalised.

    Args:
        design: with the intercept's column; [rows, columns].
        outcome: 0 or 1; [rows].
        weights: of the rows; [fits, rows], or [fits, 1] for equal ones.
        start: coefficients to begin with; [columns].
        ridge: strength of the penalty.
        shuffled: a column of the design and, per fit, which rows its values come from
            ([fits, rows]); None leaves the design as it is.

    Returns:
        Coefficients [fits, columns], and whether each fit converged [fits].
    """
    found, converged = [], []
    for first in range(0, len(weights), CHUNK):
        part = slice(first, first + CHUNK)
        columns = design
        if shuffled is not None:
            column, order = shuffled
            columns = np.repeat(design[None], len(order[part]), axis=0)
            columns[:, :, column] = design[:, column][order[part]]
        beta, done = _newton(columns, outcome, weights[part], start, ridge)
        found.append(beta)
        converged.append(done)
    return np.concatenate(found), np.concatenate(converged)


def _newton(
    design: np.ndarray,
    outcome: np.ndarray,
    weights: np.ndarray,
    start: np.ndarray,
    ridge: float,
) -> tuple[np.ndarray, np.ndarray]:
    beta = np.tile(start, (len(weights), 1))
    penalty = np.full(len(start), ridge)
    penalty[0] = 0.0
    # Keeps the matrix invertible where a resample is separated and the fit runs away.
    diagonal = np.diag(penalty + 1e-9)
    transposed = np.swapaxes(design, -1, -2)
    for _ in range(STEPS):
        logits = (design @ beta[:, :, None])[:, :, 0]
        share = 1 / (1 + np.exp(-np.clip(logits, -500, 500)))
        residual = weights * (outcome - share)
        gradient = (residual[:, None, :] @ design)[:, 0] - penalty * beta
        curvature = (transposed * (weights * share * (1 - share))[:, None, :]) @ design
        step = np.linalg.solve(curvature + diagonal, gradient[:, :, None])[:, :, 0]
        # A long step overshoots; a bounded one comes back.
        beta += np.clip(step, -3, 3)
        done = np.abs(step).max(1) < TOLERANCE
        if done.all():
            break
    return beta, done
