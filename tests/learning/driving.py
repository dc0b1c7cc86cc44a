"""A learner driven by the training loop for some iterations."""

from gcn_cli.learning.trainer import Learner, Metrics, train


def run(which: Learner, done: int, until: int) -> list[Metrics]:
    """Iterations `done` + 1 to `until`; their metrics."""
    rows: list[Metrics] = []
    train(
        which,
        done=done,
        should_stop=lambda: done + len(rows) >= until,
        on_step=lambda _, metrics: rows.append(metrics),
    )
    return rows
