"""Quantises a golden case with bitsandbytes, and computes what it and its adapter give in f64.

Needs what golden/generate.py needs, bitsandbytes and accelerate; the project itself never does.
Usage: python generate.py CASE FOLDER
"""

import pathlib
import sys

import bitsandbytes as bnb
import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "golden"))
import generate  # noqa: E402

case, folder = map(pathlib.Path, sys.argv[1:])
rows = generate.documents()
trained = sum(label != -100 for row in rows for label in row["labels"][1:])
for name, double, dtype in [("double", True, torch.bfloat16), ("plain", False, torch.float32)]:
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(
        case, quantization_config=config, dtype=dtype, device_map="cpu")
    model.save_pretrained(folder / name)
    (folder / name / "generation_config.json").unlink(missing_ok=True)

    plain = generate.load(case)
    floats = dict(model.state_dict())
    with torch.no_grad():
        for key, parameter in plain.named_parameters():
            module = model.get_submodule(key.rsplit(".", 1)[0])
            if isinstance(module, bnb.nn.Linear4bit) and key.endswith(".weight"):
                state = module.weight.quant_state
                # As one row: on the CPU, bitsandbytes 0.50.2 gives wrong numbers where rows are shorter
                # than blocks.
                state.dtype, state.shape = torch.float32, torch.Size([parameter.numel()])
                values = bnb.functional.dequantize_4bit(module.weight.data, state)
                parameter.copy_(values.reshape(parameter.shape))
            else:
                parameter.copy_(floats[key].float())
    model = PeftModel.from_pretrained(plain, case / "adapter", is_trainable=True).double()
    expected = generate.expected(model, rows, trained)
    save_file(expected, folder / name / "expected_lora.safetensors")
    print(name)
