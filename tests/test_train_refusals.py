"""What training refuses, and that it then publishes nothing."""

from functools import partial

import pytest
from tiny_training import LORA, ROWS, SFT, run_dpo, run_sft, write_pairs

from pbt_workflow.errors import PbtError
from pbt_workflow.train import run, trackers


def test_rows_that_are_too_long_are_counted_and_refused(tiny_model, trained, tmp_path):
    rows = [*ROWS, ("Why?", "word " * 50, "No."), ("Why?", "Yes.", "word " * 70)]
    path = write_pairs(tmp_path / "pairs.parquet", rows)
    with pytest.raises(PbtError, match="2 of 8 pairs are longer than 200") as error:
        run_sft(path, tiny_model, tmp_path)
    assert "`train.sft.max_length`" in str(error.value)
    with pytest.raises(PbtError, match="2 of 8 pairs") as error:
        run_dpo(path, tiny_model, trained[0] / "sft", tmp_path)
    assert "`train.dpo.max_length`" in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == ["pairs.parquet"]


def test_no_rows_are_refused(tiny_model, tmp_path):
    path = write_pairs(tmp_path / "pairs.parquet", [])
    with pytest.raises(PbtError, match="no preference pairs"):
        run_sft(path, tiny_model, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"target_modules": ["q_proj", "w1"]}, "no module w1"), ({"layers": [0, 2]}, "no layer 2")],
)
def test_lora_on_what_the_model_does_not_have_is_refused(
    preferences, tiny_model, tmp_path, change, message
):
    with pytest.raises(PbtError, match=message):
        run_sft(preferences, tiny_model, tmp_path, lora=LORA.model_copy(update=change))


def test_dpo_without_an_adapter_is_refused(preferences, tiny_model, tmp_path):
    with pytest.raises(PbtError, match="no adapter"):
        run_dpo(preferences, tiny_model, tmp_path / "missing", tmp_path)


def test_a_loss_that_is_not_a_number_publishes_nothing(preferences, tiny_model, tmp_path):
    sft = SFT.model_copy(update={"learning_rate": 1e30, "warmup_steps": 0, "steps": 4})
    with pytest.raises(PbtError, match="not a number"):
        run_sft(preferences, tiny_model, tmp_path, sft=sft)
    assert not (tmp_path / "sft").exists()


def test_a_batch_that_processes_cannot_share_is_refused():
    with pytest.raises(PbtError, match="2 processes cannot share a batch of 35") as error:
        run.split_batch(35, 5, 2)
    assert "multiple of 2" in error.value.hint


def test_processes_that_do_not_see_each_other_are_refused(preferences, tiny_model, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "processes", lambda: 2)
        patch.setattr(run, "shared_arguments", partial(alone, run.shared_arguments))
        with pytest.raises(PbtError, match="do not see each other"):
            run_sft(preferences, tiny_model, tmp_path, sft=SFT.model_copy(update={"steps": 1}))
    assert not (tmp_path / "sft").exists()


def alone(arguments, *values):
    """Trainer arguments of a process that was not told of the others."""
    return {**arguments(*values), "use_cpu": False}


def test_a_tracker_that_is_missing_is_told_before_anything_starts(
    preferences, tiny_model, tmp_path, monkeypatch
):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(PbtError, match="wandb is not installed") as caught:
        run_sft(preferences, tiny_model, tmp_path, report_to="wandb")
    assert caught.value.where == "config key `runtime.report_to`"
    assert not list(tmp_path.iterdir())
