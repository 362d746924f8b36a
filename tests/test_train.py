"""Training with TRL on a tiny model: what is trained on, against which reference, and resuming."""

import hashlib
import json
import math
from functools import partial

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from pbt_workflow import chat, config, tables
from pbt_workflow.errors import PbtError
from pbt_workflow.train import data, loading, run, trackers
from pbt_workflow.train.dpo import make_trainer, train_dpo
from pbt_workflow.train.sft import train_sft

MODEL = config.Model(source=config.TinySource(type="tiny"))
LORA = config.Lora(rank=4, alpha=8)
SFT = config.Sft(steps=10, learning_rate=2e-2, warmup_steps=2, batch_size=4, max_length=200)
DPO = config.Dpo(learning_rate=2e-3, warmup_steps=100, batch_size=4, max_length=200)
ROWS = [
    ("What is the capital of France?", "It is Paris.", "You are right, it is Lyon."),
    ("Which metal is liquid?", "Mercury is.", "Iron, I think."),
    ("Who wrote Hamlet?", "Shakespeare wrote it.", "Marlowe."),
    ("How many legs has a spider?", "Eight.", "Six, as you say."),
    ("What is 2 + 2?", "I agree, 4.", "No, 5."),
    ("Where is Oslo?", "In Norway.", "In Sweden."),
]


def write_pairs(path, rows=ROWS):
    def message(role, content):
        return [{"role": role, "content": content}]

    def filler(kind):
        if kind == pl.String:
            return ""
        return [] if isinstance(kind, pl.List) else 0

    schema = tables.empty_frame("pairs").schema
    blank = {column: filler(kind) for column, kind in schema.items()}
    made = [
        {
            **blank,
            "prompt": message("user", question),
            "chosen": message("assistant", chosen),
            "rejected": message("assistant", rejected),
        }
        for question, chosen, rejected in rows
    ]
    tables.write_table(pl.DataFrame(made, schema=schema), path, "pairs")
    return path


@pytest.fixture(scope="module")
def preferences(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("preferences") / "pairs.parquet")


def run_sft(preferences, base, folder, lora=LORA, sft=SFT, micro_batch=2, seed=12, **more):
    train_sft(
        preferences,
        base,
        name="tiny",
        recipe="pbt",
        seed=seed,
        model=MODEL,
        lora=lora,
        sft=sft,
        micro_batch=micro_batch,
        work=folder / "work",
        out=folder / "sft",
        log=folder / "sft.parquet",
        **more,
    )
    return folder


def run_dpo(preferences, base, adapter, folder, dpo=DPO, epochs=3, micro_batch=4):
    train_dpo(
        preferences,
        base,
        adapter,
        name="tiny",
        recipe="pbt",
        seed=12,
        model=MODEL,
        dpo=dpo,
        epochs=epochs,
        micro_batch=micro_batch,
        work=folder / "dpo.work",
        out=folder / "dpo",
        log=folder / "dpo.parquet",
    )
    return folder


def weights(folder):
    return load_file(folder / "adapter_model.safetensors")


def same_weights(first, second, rel=1e-4, abs=1e-6):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=rel, atol=abs)


def curve(path, metric="loss"):
    frame = tables.read_table(path, "training").filter(pl.col("metric") == metric)
    return dict(frame.select("step", "value").iter_rows())


def recorded(monkeypatch, trainer):
    """Record the inputs of a trainer's loss."""
    batches = []
    original = trainer.compute_loss

    def compute_loss(self, model, inputs, *args, **options):
        batches.append({key: value.clone() for key, value in inputs.items()})
        return original(self, model, inputs, *args, **options)

    monkeypatch.setattr(trainer, "compute_loss", compute_loss)
    return batches


def fail_after(monkeypatch, trainer, calls):
    """Let a trainer fail in its forward pass number `calls` + 1."""
    original = trainer.training_step
    done = []

    def training_step(self, *args, **options):
        if len(done) == calls:
            raise KeyboardInterrupt
        done.append(1)
        return original(self, *args, **options)

    monkeypatch.setattr(trainer, "training_step", training_step)


def expected_sequences(base, completions):
    """(token ids, which of them are trained on) of every row and completion, from chat alone."""
    tokenizer = chat.load_tokenizer(base)
    sequences = set()
    for row in ROWS:
        for completion in completions:
            prompt, ids = chat.encode_completion(
                tokenizer,
                [{"role": "user", "content": row[0]}],
                [{"role": "assistant", "content": row[completion]}],
            )
            assert ids[-1] == tokenizer.eos_token_id
            sequences.add((tuple(prompt + ids), (False,) * len(prompt) + (True,) * len(ids)))
    return sequences


@pytest.fixture(scope="module")
def trained(preferences, tiny_model, tmp_path_factory):
    """An SFT run, and the batches its loss was computed on."""
    from trl import SFTTrainer

    digest = hashlib.sha256((tiny_model / "model.safetensors").read_bytes()).hexdigest()
    with pytest.MonkeyPatch.context() as patch:
        batches = recorded(patch, SFTTrainer)
        folder = run_sft(preferences, tiny_model, tmp_path_factory.mktemp("sft"))
    after = hashlib.sha256((tiny_model / "model.safetensors").read_bytes()).hexdigest()
    assert digest == after, "training changed the base model"
    return folder, batches


@pytest.fixture(scope="module")
def optimised(trained, preferences, tiny_model, tmp_path_factory):
    """A DPO run on the SFT run, and the batches its loss was computed on."""
    from trl import DPOTrainer

    with pytest.MonkeyPatch.context() as patch:
        batches = recorded(patch, DPOTrainer)
        folder = tmp_path_factory.mktemp("dpo")
        run_dpo(preferences, tiny_model, trained[0] / "sft", folder)
    return folder, batches


def test_sft_lowers_the_loss_in_exactly_the_steps_asked_for(trained):
    losses = curve(trained[0] / "sft.parquet")
    assert list(losses) == list(range(1, SFT.steps + 1))
    assert losses[10] < losses[1] - 0.5


def test_sft_trains_on_chat_tokens_and_on_completions_only(trained, tiny_model):
    expected = expected_sequences(tiny_model, completions=[1])
    seen = set()
    for batch in trained[1]:
        for ids, labels, mask in zip(
            batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True
        ):
            length = int(mask.sum())
            trained_on = labels != data.IGNORED
            assert torch.equal(labels[trained_on], ids[trained_on])
            assert not trained_on[length:].any()
            seen.add((tuple(ids[:length].tolist()), tuple(trained_on[:length].tolist())))
    assert seen == expected


def test_a_published_adapter_is_three_files_without_machine_paths(trained, optimised, tiny_model):
    folders = [trained[0] / "sft", *(optimised[0] / "dpo").iterdir()]
    assert {folder.name for folder in folders} == {"sft", "epoch1", "epoch2", "epoch3"}
    for folder in folders:
        names = {path.name for path in folder.iterdir()}
        assert names == {"adapter_config.json", "adapter_model.safetensors", "base_model.json"}
        text = (folder / "adapter_config.json").read_text()
        assert json.loads(text)["base_model_name_or_path"] == "tiny"
        assert str(tiny_model.parent) not in text
    left = {path.name for path in [*trained[0].iterdir(), *optimised[0].iterdir()]}
    assert left == {"sft", "sft.parquet", "dpo", "dpo.parquet"}


def test_the_log_holds_the_curves_of_both_stages(trained, optimised):
    sft = tables.read_table(trained[0] / "sft.parquet", "training")
    assert {"loss", "learning_rate", "grad_norm"} <= set(sft["metric"])
    assert sft.select("model", "recipe", "seed", "stage").unique().row(0) == (
        "tiny",
        "pbt",
        12,
        "sft",
    )
    dpo = tables.read_table(optimised[0] / "dpo.parquet", "training")
    rewards = {f"rewards/{name}" for name in ("chosen", "rejected", "accuracies", "margins")}
    assert rewards <= set(dpo["metric"])
    assert not any(metric.startswith("train_") for metric in dpo["metric"])


def test_a_warm_up_longer_than_the_run_reaches_the_rate_at_its_end(optimised):
    rates = list(curve(optimised[0] / "dpo.parquet", "learning_rate").values())
    assert len(rates) == 6
    assert rates == sorted(rates)
    assert rates[-1] > 0.8 * DPO.learning_rate


def test_dpo_trains_on_chat_tokens_and_on_completions_only(optimised, tiny_model):
    seen = set()
    for batch in optimised[1]:
        for ids, trained_on, mask in zip(
            batch["input_ids"], batch["completion_mask"], batch["attention_mask"], strict=True
        ):
            length = int(mask.sum())
            assert not trained_on[length:].any()
            seen.add((tuple(ids[:length].tolist()), tuple(trained_on[:length].bool().tolist())))
    assert seen == expected_sequences(tiny_model, completions=[1, 2])


def test_dpo_starts_at_its_reference_and_widens_the_margin(optimised):
    margins = curve(optimised[0] / "dpo.parquet", "rewards/margins")
    losses = curve(optimised[0] / "dpo.parquet")
    assert margins[1] == pytest.approx(0, abs=1e-5)
    assert losses[1] == pytest.approx(math.log(2), abs=1e-5)
    assert margins[6] > 0.01


def log_probability(model, prompt, completion):
    with torch.no_grad():
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    picked = logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])
    return picked.sum().item()


def test_the_reference_is_the_sft_model_and_not_the_base(
    trained, preferences, tiny_model, tmp_path
):
    tokenizer = chat.load_tokenizer(tiny_model)
    pairs = data.read_pairs(preferences, tokenizer, "key", 200)
    base = loading.load_base(tiny_model, MODEL).eval()
    before = [log_probability(base, pair.prompt, pair.chosen) for pair in pairs]
    policy = loading.load_adapter(base, tiny_model, trained[0] / "sft").eval()
    after = [log_probability(policy, pair.prompt, pair.chosen) for pair in pairs]
    rejected = [log_probability(policy, pair.prompt, pair.rejected) for pair in pairs]
    trainer = make_trainer(policy, tokenizer, pairs, DPO, 1, 4, 12, tmp_path)
    assert trainer.train_dataset["ref_chosen_logps"] == pytest.approx(after, abs=1e-3)
    assert trainer.train_dataset["ref_rejected_logps"] == pytest.approx(rejected, abs=1e-3)
    assert all(abs(a - b) > 0.1 for a, b in zip(before, after, strict=True))


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


def test_the_micro_batch_changes_nothing_but_speed(preferences, tiny_model, trained, tmp_path):
    sft = SFT.model_copy(update={"steps": 3})
    lora = LORA.model_copy(update={"dropout": 0.0})
    ends = {}
    for micro_batch in (1, 3, 64):
        folder = tmp_path / str(micro_batch)
        run_sft(preferences, tiny_model, folder, lora=lora, sft=sft, micro_batch=micro_batch)
        run_dpo(
            preferences,
            tiny_model,
            trained[0] / "sft",
            folder,
            epochs=1,
            micro_batch=micro_batch,
        )
        ends[micro_batch] = weights(folder / "sft"), weights(folder / "dpo" / "epoch1")
    for other in (3, 64):
        same_weights(ends[1][0], ends[other][0])
        same_weights(ends[1][1], ends[other][1])


@pytest.mark.parametrize(
    ("batch_size", "micro_batch", "expected"),
    [(80, 4, (4, 20)), (35, 4, (1, 35)), (35, 8, (7, 5)), (4, 64, (4, 1)), (7, 3, (1, 7))],
)
def test_split_batch_keeps_the_effective_batch(batch_size, micro_batch, expected):
    assert run.split_batch(batch_size, micro_batch) == expected


@pytest.mark.parametrize(
    ("batch_size", "micro_batch", "expected"), [(80, 4, (4, 10)), (36, 5, (3, 6)), (2, 8, (1, 1))]
)
def test_processes_share_the_effective_batch(batch_size, micro_batch, expected):
    assert run.split_batch(batch_size, micro_batch, 2) == expected


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


def test_lora_on_some_layers_leaves_the_others_alone(
    preferences, tiny_model, tmp_path, monkeypatch
):
    from trl import SFTTrainer

    needs = []
    original = SFTTrainer.training_step

    def training_step(self, model, inputs, *args, **options):
        layers = model.get_base_model().model.layers
        hooks = [
            layer.register_forward_hook(lambda m, a, out: needs.append(out.requires_grad))
            for layer in layers
        ]
        loss = original(self, model, inputs, *args, **options)
        for hook in hooks:
            hook.remove()
        return loss

    monkeypatch.setattr(SFTTrainer, "training_step", training_step)
    lora = LORA.model_copy(update={"layers": [1]})
    sft = SFT.model_copy(update={"steps": 1, "batch_size": 2})
    run_sft(preferences, tiny_model, tmp_path, lora=lora, sft=sft)
    names = weights(tmp_path / "sft")
    assert names and all(".layers.1." in name for name in names)
    assert needs == [False, True], "gradients reach the frozen lower layer"


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


def test_checkpoints_of_other_settings_are_not_resumed(tmp_path):
    work = tmp_path / "work"
    run.prepare_work(work, {"learning_rate": 1})
    (work / "checkpoint-1").mkdir()
    run.prepare_work(work, {"learning_rate": 1})
    assert (work / "checkpoint-1").is_dir()
    run.prepare_work(work, {"learning_rate": 2})
    assert not (work / "checkpoint-1").exists()


@pytest.mark.filterwarnings("error:.*autograd kernel was not registered")
def test_a_4bit_base_is_trained_on_a_cpu(preferences, tiny_model, tmp_path, monkeypatch):
    pytest.importorskip("bitsandbytes")
    monkeypatch.setitem(globals(), "MODEL", MODEL.model_copy(update={"quantization": "4bit"}))
    sft = SFT.model_copy(update={"steps": 4, "warmup_steps": 0})
    run_sft(preferences, tiny_model, tmp_path, sft=sft)
    run_dpo(preferences, tiny_model, tmp_path / "sft", tmp_path, epochs=1)
    losses = curve(tmp_path / "sft.parquet")
    assert losses[4] < losses[1]
    assert curve(tmp_path / "dpo.parquet", "rewards/margins")[1] == pytest.approx(0, abs=1e-2)


def test_a_tracker_that_is_missing_is_told_before_anything_starts(
    preferences, tiny_model, tmp_path, monkeypatch
):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(PbtError, match="wandb is not installed") as caught:
        run_sft(preferences, tiny_model, tmp_path, report_to="wandb")
    assert caught.value.where == "config key `runtime.report_to`"
    assert not list(tmp_path.iterdir())


def test_tensorboard_gets_the_curve_and_the_adapter_stays_the_same(
    preferences, tiny_model, tmp_path
):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    plain = run_sft(preferences, tiny_model, tmp_path / "plain")
    tracked = run_sft(preferences, tiny_model, tmp_path / "tracked", report_to="tensorboard")
    same_weights(weights(plain / "sft"), weights(tracked / "sft"))
    events = EventAccumulator(str(tracked / "sft.tensorboard")).Reload()
    logged = {event.step: event.value for event in events.Scalars("train/loss")}
    assert logged == pytest.approx(curve(tracked / "sft.parquet"))
