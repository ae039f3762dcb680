"""Makes adapters of one tiny model, and what PEFT's `add_weighted_adapter` makes of them in f64.

Needs torch, transformers 5, peft (0.21 was used) and safetensors; the project itself never does.
Usage: python generate.py GOLDEN FOLDER
"""

import json
import pathlib
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

MODEL = "llama_linear"
ADAPTERS = {
    "a": dict(target_modules=["q_proj", "v_proj"], r=3, lora_alpha=8,
              rank_pattern={r"layers\.1\..*v_proj": 1}, alpha_pattern={"v_proj": 3}),
    "b": dict(target_modules=["q_proj", "down_proj"], r=2, lora_alpha=5, use_rslora=True),
    "c": dict(target_modules=["q_proj", "v_proj"], r=3, lora_alpha=4),
    "d": dict(target_modules=["v_proj"], r=3, lora_alpha=6),
}
# Name: the way, the adapters with their weights.
COMBINATIONS = {
    "cat": ("cat", [("a", 0.7), ("b", -0.3)]),
    "linear": ("linear", [("c", 0.6), ("d", -0.4)]),
    "linear_three": ("linear", [("d", 0.5), ("c", 0.2), ("c", 0.9)]),
}


def load(golden):
    return AutoModelForCausalLM.from_pretrained(
        golden, attn_implementation="eager", dtype=torch.float32)


def logits(model, rows):
    return torch.cat([
        model(input_ids=torch.tensor([row["input_ids"]])).logits[0].detach() for row in rows])


if __name__ == "__main__":
    golden, folder = pathlib.Path(sys.argv[1]) / MODEL, pathlib.Path(sys.argv[2])
    rows = [json.loads(line) for line in (golden / "documents.jsonl").read_text().splitlines()]
    for index, (name, settings) in enumerate(ADAPTERS.items()):
        torch.manual_seed(index)
        model = get_peft_model(load(golden), LoraConfig(task_type="CAUSAL_LM", **settings))
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                if "lora_B" in parameter_name:
                    parameter.normal_(0, 0.2)
        model.save_pretrained(folder / name)
        (folder / name / "README.md").unlink(missing_ok=True)
        config = folder / name / "adapter_config.json"
        text = json.loads(config.read_text())
        text["base_model_name_or_path"] = MODEL
        config.write_text(json.dumps(text, indent=2) + "\n")
    expected = {}
    for name, (way, parts) in COMBINATIONS.items():
        model = None
        for index, (adapter, _) in enumerate(parts):
            if model is None:
                model = PeftModel.from_pretrained(load(golden), folder / adapter, str(index))
            else:
                model.load_adapter(folder / adapter, str(index))
        model = model.double()
        model.add_weighted_adapter(
            [str(index) for index in range(len(parts))], [weight for _, weight in parts],
            "all", combination_type=way)
        model.set_adapter("all")
        expected[name] = logits(model.double().eval(), rows).float()
    save_file(expected, folder / "expected.safetensors")
