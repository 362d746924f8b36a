"""Training that was interrupted: it goes on from its last whole checkpoint, or only publishes."""

import pytest
from tiny_training import curve, fail_after, recorded, run_dpo, run_sft, same_weights, weights

from pbt_workflow.train import loading, run


def test_interrupted_sft_ends_as_if_it_had_not_been(
    trained, preferences, tiny_model, tmp_path, monkeypatch
):
    from trl import SFTTrainer

    with monkeypatch.context() as patch:
        fail_after(patch, SFTTrainer, calls=11)
        with pytest.raises(KeyboardInterrupt):
            run_sft(preferences, tiny_model, tmp_path)
    assert not (tmp_path / "sft").exists()
    assert not (tmp_path / "sft.parquet").exists()
    assert [path.name for path in run.complete_checkpoints(tmp_path / "work")] == [
        "checkpoint-6",
        "checkpoint-7",
    ]
    # What a kill in the middle of saving leaves behind.
    half = tmp_path / "work" / "checkpoint-8"
    half.mkdir()
    (half / "adapter_model.safetensors").write_bytes(b"")
    batches = recorded(monkeypatch, SFTTrainer)
    run_sft(preferences, tiny_model, tmp_path)
    # Steps 8 and 10 end an epoch, on two rows; step 9 is two passes of two rows.
    assert len(batches) == 4
    assert curve(tmp_path / "sft.parquet") == pytest.approx(curve(trained[0] / "sft.parquet"))
    same_weights(weights(tmp_path / "sft"), weights(trained[0] / "sft"))


def test_interrupted_dpo_ends_as_if_it_had_not_been(
    trained, optimised, preferences, tiny_model, tmp_path, monkeypatch
):
    from trl import DPOTrainer

    with monkeypatch.context() as patch:
        fail_after(patch, DPOTrainer, calls=3)
        with pytest.raises(KeyboardInterrupt):
            run_dpo(preferences, tiny_model, trained[0] / "sft", tmp_path)
    assert not (tmp_path / "dpo").exists()
    batches = recorded(monkeypatch, DPOTrainer)
    run_dpo(preferences, tiny_model, trained[0] / "sft", tmp_path)
    assert len(batches) == 4
    for metric in ("loss", "rewards/margins"):
        assert curve(tmp_path / "dpo.parquet", metric) == pytest.approx(
            curve(optimised[0] / "dpo.parquet", metric), abs=1e-6
        )
    for epoch in ("epoch1", "epoch2", "epoch3"):
        same_weights(weights(tmp_path / "dpo" / epoch), weights(optimised[0] / "dpo" / epoch))


def test_a_run_killed_while_publishing_only_publishes(
    trained, preferences, tiny_model, tmp_path, monkeypatch
):
    from trl import SFTTrainer

    with monkeypatch.context() as patch:
        patch.setattr(loading, "publish_adapter", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_sft(preferences, tiny_model, tmp_path)
    assert not (tmp_path / "sft").exists()
    batches = recorded(monkeypatch, SFTTrainer)
    run_sft(preferences, tiny_model, tmp_path)
    assert batches == []
    same_weights(weights(tmp_path / "sft"), weights(trained[0] / "sft"))
    assert curve(tmp_path / "sft.parquet") == curve(trained[0] / "sft.parquet")


def test_checkpoints_of_other_settings_are_not_resumed(tmp_path):
    work = tmp_path / "work"
    run.prepare_work(work, {"learning_rate": 1})
    (work / "checkpoint-1").mkdir()
    run.prepare_work(work, {"learning_rate": 1})
    assert (work / "checkpoint-1").is_dir()
    run.prepare_work(work, {"learning_rate": 2})
    assert not (work / "checkpoint-1").exists()
