"""Handing training's numbers to TensorBoard, Weights & Biases or trackio as they come."""

import os
from importlib.util import find_spec
from pathlib import Path

from pbt_workflow.errors import PbtError


def check_tracker(report_to: str) -> None:
    """Raise PbtError unless the package behind `runtime.report_to` can be imported."""
    if report_to != "none" and find_spec(report_to) is None:
        raise PbtError(
            f"{report_to} is not installed",
            where="config key `runtime.report_to`",
            hint=f"pip install {report_to}, or set the key to none",
        )


def follow(trainer, report_to: str, project: str, log: Path) -> None:
    """Let a tracker follow a trainer. Nothing about the training itself changes.

    TensorBoard's files lie beside the curve, in `{log without suffix}.tensorboard`; wandb and
    trackio have their own places and settings.

    Args:
        trainer: before its start.
        report_to: as in `runtime.report_to`.
        project: what the run is filed under.
        log: the file of the training curve, whose path names this training.
    """
    check_tracker(report_to)
    if not trainer.is_world_process_zero():
        return
    # .../adapters/{model}/{recipe}/seed{seed}/{stage}.parquet
    name = ".".join([*log.parts[-4:-1], log.stem])
    trainer.args.run_name, trainer.args.project = name, project
    if report_to == "tensorboard":
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        folder = log.with_suffix(".tensorboard")
        trainer.add_callback(TensorBoardCallback(SummaryWriter(str(folder))))
    elif report_to == "wandb":
        from transformers.integrations import WandbCallback

        os.environ.setdefault("WANDB_PROJECT", project)
        trainer.add_callback(WandbCallback)
    elif report_to == "trackio":
        from transformers.integrations import TrackioCallback

        trainer.add_callback(TrackioCallback)
