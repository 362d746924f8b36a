"""Base models and adapters, as training loads and publishes them."""

import json
import shutil
from pathlib import Path

from pbt_workflow import config
from pbt_workflow.errors import PbtError
from pbt_workflow.models import check_model

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"


def load_base(base: Path, model: config.Model):
    """A base model for training: on CUDA in its configured dtype, on a CPU in full precision.

    With `quantization` the base weights are 4-bit (nf4) or 8-bit and frozen (QLoRA, Dettmers et
    al. 2023), and the layers that stay unquantised are in float32.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    check_model(base)
    cuda = torch.cuda.is_available()
    quantization = {
        "none": None,
        "8bit": BitsAndBytesConfig(load_in_8bit=True),
        "4bit": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.bfloat16 if cuda else torch.float32,
        ),
    }[model.quantization]
    loaded = AutoModelForCausalLM.from_pretrained(
        str(base),
        dtype=getattr(torch, model.dtype) if cuda else torch.float32,
        quantization_config=quantization,
        device_map="auto" if cuda else None,
        local_files_only=True,
    )
    if quantization is not None:
        from peft import prepare_model_for_kbit_training

        # The trainer switches gradient checkpointing on where it is wanted.
        loaded = prepare_model_for_kbit_training(loaded, use_gradient_checkpointing=False)
    # Loaded models are in evaluation mode. A forward pass in it (DPO's reference) makes
    # bitsandbytes repack 4-bit weights on a CPU, and no gradient flows through those.
    return loaded.train()


def lora_config(loaded, lora: config.Lora):
    """PEFT's LoRA configuration for a loaded base model.

    Raises:
        PbtError: the model has no such modules or layers. PEFT would leave them out silently.
    """
    from peft import LoraConfig, TaskType

    names = {name.rsplit(".", 1)[-1] for name, _ in loaded.named_modules()}
    if unknown := [name for name in lora.target_modules if name not in names]:
        raise PbtError(
            f"the model has no module {', '.join(unknown)}",
            where="config key `train.lora.target_modules`",
            hint=f"it has: {', '.join(sorted(n for n in names if n.endswith('proj')))}",
        )
    count = loaded.config.num_hidden_layers
    if outside := [layer for layer in lora.layers or [] if not 0 <= layer < count]:
        raise PbtError(
            f"the model has no layer {', '.join(map(str, outside))}",
            where="config key `train.lora.layers`",
            hint=f"its layers are 0 to {count - 1}",
        )
    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules),
        layers_to_transform=lora.layers,
    )


def load_adapter(loaded, base: Path, adapter: Path):
    """A base model with a trained adapter on it that can be trained further.

    It is given to DPOTrainer without a `peft_config`: TRL then copies the adapter and freezes
    the copy as the reference, so that the reference is the SFT model and not the base.

    Raises:
        PbtError: no adapter there, or one that does not fit the model.
    """
    from peft import PeftModel

    check_adapter(adapter)
    try:
        model = PeftModel.from_pretrained(loaded, str(adapter), is_trainable=True)
    except (RuntimeError, ValueError) as error:
        raise PbtError(
            f"the adapter does not fit the model ({str(error).splitlines()[0]})",
            where=adapter,
            hint=f"it must have been trained on {base}",
        ) from None
    # A published adapter carries a name; for saving, PEFT wants a folder it can look into.
    model.peft_config["default"].base_model_name_or_path = str(base)
    return model


def check_adapter(adapter: Path) -> None:
    """Raise PbtError unless `adapter` is a folder with an adapter's config and weights."""
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (Path(adapter) / name).is_file():
            raise PbtError(f"no adapter: no {name}", where=adapter, hint="train it first")


def publish_adapter(checkpoint: Path, folder: Path, name: str) -> None:
    """Copy a checkpoint's trained adapter: weights and config, with the base model's config
    name in place of its path on this machine. The frozen reference stays behind."""
    folder.mkdir(parents=True)
    shutil.copyfile(checkpoint / ADAPTER_WEIGHTS, folder / ADAPTER_WEIGHTS)
    settings = json.loads((checkpoint / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = name
    text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    (folder / ADAPTER_CONFIG).write_text(text, encoding="utf-8")
