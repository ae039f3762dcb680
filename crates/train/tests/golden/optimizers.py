"""Trajectories of published optimizers, and learning rates of Transformers.

Writes optimizers.safetensors (weights after the last step, `case/parameter`) and schedules.json beside
this script. Weights and gradients are formulas of the test (../golden_optimizers.rs). Made with torch
2.15.0, lion-pytorch 0.2.5, schedulefree 1.4.1 and transformers 5.24.0:

    pip install torch==2.15.0 lion-pytorch==0.2.5 schedulefree==1.4.1 transformers==5.24.0
    python optimizers.py
"""

import inspect
import json
import math
from pathlib import Path

import numpy
import torch
from lion_pytorch import Lion
from safetensors.torch import save_file
from schedulefree import AdamWScheduleFree
from torch.optim import _muon
from transformers import optimization
from transformers.optimization import Adafactor

STEPS, WARMUP, RATE, DECAY = 12, 3, 1e-2, 0.05
SHAPES = {
    "lm_head.weight": (7, 8),
    "model.embed_tokens.weight": (7, 8),
    "model.layers.0.input_layernorm.weight": (8,),
    "model.layers.0.mlp.down_proj.weight": (8, 12),
    "model.layers.0.mlp.gate_proj.weight": (12, 8),
    "model.layers.0.mlp.up_proj.weight": (12, 8),
    "model.layers.0.post_attention_layernorm.weight": (8,),
    "model.layers.0.self_attn.k_proj.weight": (4, 8),
    "model.layers.0.self_attn.o_proj.weight": (8, 8),
    "model.layers.0.self_attn.q_proj.weight": (8, 8),
    "model.layers.0.self_attn.v_proj.weight": (4, 8),
    "model.norm.weight": (8,),
}


def weights():
    values = {}
    for index, (name, shape) in enumerate(SHAPES.items()):
        i = numpy.arange(math.prod(shape), dtype=numpy.float64)
        value = 0.5 * numpy.sin(0.37 * i + index)
        value = torch.tensor(value.astype(numpy.float32)).reshape(shape)
        values[name] = torch.nn.Parameter(value)
    return values


def gradients(step):
    # Every third step is small enough not to be clipped.
    size = 0.02 if step % 3 == 0 else 1.0
    for index, shape in enumerate(SHAPES.values()):
        i = numpy.arange(math.prod(shape), dtype=numpy.float64)
        value = size * 10.0 ** -(index % 3) * numpy.cos(0.61 * i + 1.7 * index + 0.9 * step)
        yield torch.tensor(value.astype(numpy.float32)).reshape(shape)


def rate(factor, step):
    """Factor of a step counted from 1: the warm-up is one step ahead of Transformers."""
    s = step - 1
    return factor(s + 1) if s < WARMUP else factor(s)


def group(parameters, chosen, lr, **more):
    found = [value for name, value in parameters.items() if chosen(name)]
    return {"params": found, "lr": lr, **more}


def is_norm(name):
    return "norm" in name


def is_matrix(name):
    return name.startswith("model.layers") and not is_norm(name)


def by_decay(parameters, lr=RATE):
    return [
        group(parameters, lambda name: not is_norm(name), lr, weight_decay=DECAY),
        group(parameters, is_norm, lr, weight_decay=0.0),
    ]


def adamw(parameters):
    rates = {"model.embed_tokens.weight": 2e-3, "lm_head.weight": 5e-3}
    groups = [
        {
            "params": [value],
            "lr": rates.get(name, RATE),
            "weight_decay": 0.0 if is_norm(name) else DECAY,
        }
        for name, value in parameters.items()
    ]
    return [torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8, foreach=False)]


def muon(adjust):
    def make(parameters):
        left = {name: value for name, value in parameters.items() if not is_matrix(name)}
        matrices = [value for name, value in parameters.items() if is_matrix(name)]
        return [
            torch.optim.Muon(matrices, lr=RATE, weight_decay=DECAY, adjust_lr_fn=adjust),
            torch.optim.AdamW(by_decay(left, 3e-3), betas=(0.9, 0.95), eps=1e-8, foreach=False),
        ]

    return make


def adafactor(**settings):
    def make(parameters):
        return [Adafactor(by_decay(parameters), relative_step=False, **settings)]

    return make


CASES = {
    "adamw": adamw,
    "lion": lambda p: [Lion(by_decay(p), betas=(0.9, 0.99))],
    "muon-original": muon("original"),
    "muon-match-rms-adamw": muon("match_rms_adamw"),
    "adafactor": adafactor(scale_parameter=False),
    "adafactor-scaled": adafactor(scale_parameter=True, beta1=0.9, clip_threshold=0.5),
    "schedule-free": lambda p: [
        AdamWScheduleFree(
            by_decay(p), betas=(0.9, 0.95), warmup_steps=WARMUP, r=0.5, foreach=False
        )
    ],
}


def trajectory(case, make):
    parameters = weights()
    optimizers = make(parameters)
    highest = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    factor = optimization.get_linear_schedule_with_warmup(
        torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0), WARMUP, STEPS
    ).lr_lambdas[0]
    free = case == "schedule-free"
    for step in range(1, STEPS + 1):
        if free:
            [optimizer.train() for optimizer in optimizers]
        for value, gradient in zip(parameters.values(), gradients(step)):
            value.grad = gradient
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        for optimizer, rates in zip(optimizers, highest):
            for group, lr in zip(optimizer.param_groups, rates):
                if not free:
                    group["lr"] = lr * rate(factor, step)
            optimizer.step()
    if free:
        [optimizer.eval() for optimizer in optimizers]
    return {f"{case}/{name}": value.detach().clone() for name, value in parameters.items()}


def in_f32():
    """The published iteration of Muon, with f32 in place of bf16."""
    source = inspect.getsource(_muon._zeropower_via_newtonschulz)
    assert source.count("torch.bfloat16") == 1
    exec(source.replace("torch.bfloat16", "torch.float32"), _muon.__dict__)


def schedules():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    o = optimization
    made = {}
    for warmup, steps in [(0, 10), (3, 12), (5, 40)]:
        cases = {
            "linear": o.get_linear_schedule_with_warmup(optimizer, warmup, steps),
            "cosine": o.get_cosine_schedule_with_warmup(optimizer, warmup, steps),
            "cosine min_ratio=0.1": o.get_cosine_with_min_lr_schedule_with_warmup(
                optimizer, warmup, steps, min_lr_rate=0.1
            ),
            "cosine-restarts cycles=3": o.get_cosine_with_hard_restarts_schedule_with_warmup(
                optimizer, warmup, steps, num_cycles=3
            ),
            "polynomial power=2 min_ratio=0.05": o.get_polynomial_decay_schedule_with_warmup(
                optimizer, warmup, steps, lr_end=0.05, power=2.0
            ),
            "inverse-sqrt": o.get_inverse_sqrt_schedule(optimizer, warmup),
            "inverse-sqrt timescale=7": o.get_inverse_sqrt_schedule(optimizer, warmup, timescale=7),
        }
        for shape in ["linear", "cosine", "1-sqrt"]:
            # min_lr_ratio would also raise the warm-up, which ours does not.
            cases[f"wsd decay_steps=4 decay_shape={shape}"] = o.get_wsd_schedule(
                optimizer, warmup, 4, num_training_steps=steps, decay_type=shape
            )
        for name, schedule in cases.items():
            factors = [schedule.lr_lambdas[0](s) for s in range(steps)]
            made[f"{name} warmup_steps={warmup} of {steps}"] = factors
    return made


def main():
    in_f32()
    folder = Path(__file__).parent
    everything = {}
    for case, make in CASES.items():
        everything |= trajectory(case, make)
    save_file(everything, folder / "optimizers.safetensors")
    lines = [f"{json.dumps(name)}: {json.dumps(factors)}" for name, factors in schedules().items()]
    (folder / "schedules.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
