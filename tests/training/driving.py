"""Runs a trainer for some iterations."""

from gcn_cli.training.loop import Metrics, Trainer, run_iterations


def run(trainer: Trainer, done: int, until: int) -> list[Metrics]:
    """Iterations `done` + 1 to `until`; their metrics."""
    rows: list[Metrics] = []
    run_iterations(
        trainer,
        done=done,
        should_stop=lambda: done + len(rows) >= until,
        on_steps=lambda _, metrics: rows.extend(metrics),
    )
    return rows
