"""Makes the golden cases of preference training: what TRL's trainers compute on a tiny model, in f32.

Every loss, metric, norm and weight is checked against the formulas below, computed in f64. Where a
paper has another formula, a case of its own has that one, in f64.
Made on Python 3.12 with torch 2.15.0, transformers 5.24.0, peft 0.21.2, trl 1.16.0, datasets 5.2.0,
accelerate 1.15.0, tokenizers 0.23.3 and safetensors 0.8.0; the project itself never needs them.
Usage: python preference.py FOLDER
"""

import json
import pathlib
import sys
import tempfile

import accelerate
import datasets
import peft
import tokenizers
import torch
import transformers
import trl
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch.nn.functional import logsigmoid
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedTokenizerFast,
    PrinterCallback,
)
from trl import DPOConfig, DPOTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

MODEL = dict(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    initializer_range=0.3,
    tie_word_embeddings=False,
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=0,
)
LORA = dict(
    r=4, lora_alpha=8, lora_dropout=0.0, target_modules=["q_proj", "v_proj", "down_proj"],
    task_type="CAUSAL_LM")

# Lengths of prompt, chosen and rejected completion, and the tokens that both completions start with.
PAIRS = [(3, 5, 2, 0), (9, 1, 4, 0), (4, 7, 7, 3), (6, 2, 6, 0), (5, 3, 1, 0), (7, 6, 5, 0)]
EVAL = [(8, 4, 3, 0), (3, 1, 7, 0), (5, 6, 2, 0)]

STEPS = 10
TRAINING = dict(
    max_steps=STEPS, learning_rate=1e-2, lr_scheduler_type="constant", optim="adamw_torch",
    adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8, weight_decay=0.0,
    max_grad_norm=1e9, per_device_train_batch_size=len(PAIRS),
    per_device_eval_batch_size=len(EVAL), gradient_accumulation_steps=1,
    gradient_checkpointing=False, bf16=False, seed=1)

# The trainer, its settings, and whether all weights are trained instead of the adapter.
CASES = {
    "dpo": ("dpo", dict(loss_type=["sigmoid"], beta=0.1), False),
    "dpo_label_smoothing": ("dpo", dict(
        loss_type=["sigmoid", "robust"], loss_weights=[1.8, -0.8], beta=0.1,
        label_smoothing=0.1), False),
    "dpo_robust": ("dpo", dict(loss_type=["robust"], beta=0.1, label_smoothing=0.1), False),
    "dpo_nll": ("dpo", dict(
        loss_type=["sigmoid", "sft"], loss_weights=[1.0, 1.0], beta=0.1), False),
    "dpo_ipo": ("dpo", dict(loss_type=["ipo"], beta=0.1), False),
    "dpo_hinge": ("dpo", dict(loss_type=["hinge"], beta=0.1), False),
    "simpo": ("cpo", dict(loss_type="simpo", beta=2.0, simpo_gamma=0.5, cpo_alpha=0.0), False),
    "cpo": ("cpo", dict(loss_type="sigmoid", beta=0.1, cpo_alpha=1.0), False),
    "orpo": ("orpo", dict(beta=0.1), False),
    "dpo_full": ("dpo", dict(
        loss_type=["sigmoid"], beta=0.1, learning_rate=1e-3), True),
}

NOTATION = (
    "c, r: sums of the policy's log-probabilities over the completion tokens of chosen and "
    "rejected; C, R: the same of the reference; |c|, |r|: numbers of completion tokens; "
    "d = (c - C) - (r - R); mean: over the pairs of the batch; nll: minus the sum of log-"
    "probabilities over all chosen completion tokens of the batch, divided by their number (each "
    "token weighs the same, not each pair). Accuracy is the share of pairs with reward of chosen "
    "> reward of rejected, so ties count as wrong; margin is the mean of reward of chosen minus "
    "reward of rejected; rewards and logps are means over the pairs.")
DPO_REWARDS = "rewards beta (c - C) and beta (r - R); logps c and r"
FORMULAS = {
    "dpo": ("mean(-logsigmoid(beta d))", DPO_REWARDS, None),
    "dpo_label_smoothing": (
        "mean(-(1 - e) logsigmoid(beta d) - e logsigmoid(-beta d)), e = 0.1", DPO_REWARDS,
        "This TRL ignores label_smoothing with loss_type sigmoid (TRL up to 0.28 computed this "
        "formula). The weights 1.8 = 1 + (1 - 2e) and -0.8 = -(1 - 2e) of sigmoid and robust make "
        "it again, exactly."),
    "dpo_robust": (
        "mean(-(1 - e) logsigmoid(beta d) + e logsigmoid(-beta d)) / (1 - 2e), e = 0.1",
        DPO_REWARDS, "What this TRL makes of label_smoothing."),
    "dpo_nll": (
        "mean(-logsigmoid(beta d)) + nll", DPO_REWARDS,
        "rpo_alpha of TRL up to 0.28 is now the weight of loss_type sft. The paper divides each "
        "pair's nll by its own length and averages over pairs."),
    "dpo_ipo": (
        "mean(((c - C) / |c| - (r - R) / |r| - 1 / (2 beta))^2)", DPO_REWARDS,
        "The paper's equation 17 has no division by lengths. Rewards and logps are of sums all "
        "the same (TRL up to 0.28 reported averages over tokens)."),
    "dpo_hinge": ("mean(max(0, 1 - beta d))", DPO_REWARDS, None),
    "simpo": (
        "mean(-logsigmoid(beta (c / |c| - r / |r|) - gamma))",
        "rewards beta c / |c| and beta r / |r|, without gamma; logps c / |c| and r / |r|", None),
    "cpo": (
        "mean(-logsigmoid(beta (c - r))) + cpo_alpha nll",
        "rewards beta c and beta r; logps c and r",
        "The paper's nll is the sum over a completion, averaged over pairs."),
    "orpo": (
        "full_nll - beta mean(logsigmoid(o)), o = c / |c| - log(1 - exp(c / |c|)) - r / |r| + "
        "log(1 - exp(r / |r|)); full_nll is nll over the chosen sequences with their prompts "
        "(every token but the first)",
        "rewards beta c / |c| and beta r / |r|; logps c / |c| and r / |r|",
        "The paper's nll is over the completion alone."),
    "dpo_full": (
        "mean(-logsigmoid(beta d))", DPO_REWARDS,
        "At the first step policy and reference are equal: every pair is a tie."),
}


def pairs(lengths, generator):
    def ids(count):
        return torch.randint(1, MODEL["vocab_size"], (count,), generator=generator).tolist()

    rows = []
    for prompt, chosen, rejected, shared in lengths:
        row = dict(prompt_ids=ids(prompt), chosen_ids=ids(chosen), rejected_ids=ids(rejected))
        row["rejected_ids"][:shared] = row["chosen_ids"][:shared]
        rows.append(row)
    return rows


def load(folder, full):
    model = AutoModelForCausalLM.from_pretrained(
        folder / "model", attn_implementation="eager", dtype=torch.float32)
    if full:
        return model
    return PeftModel.from_pretrained(model, folder / "adapter", is_trainable=True)


def write_inputs(folder):
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(
        LlamaConfig(**MODEL), attn_implementation="eager").float()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder / "model")
    (folder / "model" / "generation_config.json").unlink(missing_ok=True)

    model = get_peft_model(load(folder, full=True), LoraConfig(**LORA))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.15)
    model.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    settings = folder / "adapter" / "adapter_config.json"
    config = json.loads(settings.read_text())
    config.update(
        base_model_name_or_path="../model", target_modules=sorted(config["target_modules"]))
    settings.write_text(json.dumps(config, indent=2) + "\n")

    generator = torch.Generator().manual_seed(2)
    for name, lengths in (("pairs", PAIRS), ("eval", EVAL)):
        rows = pairs(lengths, generator)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# The formulas, one sequence at a time and without padding.


def log_probabilities(model, rows):
    """Sums over the completions, their lengths, and the sum over the chosen's prompt."""
    columns = dict(c=[], r=[], c_length=[], r_length=[], prompt=[], prompt_length=[])
    for row in rows:
        prompt = len(row["prompt_ids"])
        for key, completion in (("c", row["chosen_ids"]), ("r", row["rejected_ids"])):
            ids = torch.tensor(row["prompt_ids"] + completion)
            logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
            tokens = logits.log_softmax(-1).gather(-1, ids[1:, None])[:, 0]
            columns[key].append(tokens[prompt - 1:].sum())
            columns[key + "_length"].append(torch.tensor(float(len(completion))))
            if key == "c":
                columns["prompt"].append(tokens[: prompt - 1].sum())
                columns["prompt_length"].append(torch.tensor(prompt - 1.0))
    return {key: torch.stack(values) for key, values in columns.items()}


def formula(name, policy, reference, paper=False):
    """Loss and metrics as `FORMULAS` says, or the loss of the paper."""
    settings = CASES[name][1]
    beta = settings["beta"]
    c, r, c_length, r_length = (policy[key] for key in ("c", "r", "c_length", "r_length"))
    nll = -c.sum() / c_length.sum()
    if reference is not None:
        chosen, rejected = c - reference["c"], r - reference["r"]
        d = chosen - rejected
        reported = (c, r)
    elif name == "cpo":
        chosen, rejected, reported = c, r, (c, r)
    else:
        chosen, rejected = c / c_length, r / r_length
        reported = (chosen, rejected)

    if name in ("dpo", "dpo_full"):
        loss = -logsigmoid(beta * d).mean()
    elif name == "dpo_label_smoothing":
        e = settings["label_smoothing"]
        loss = (-(1 - e) * logsigmoid(beta * d) - e * logsigmoid(-beta * d)).mean()
    elif name == "dpo_robust":
        e = settings["label_smoothing"]
        loss = (-(1 - e) * logsigmoid(beta * d) + e * logsigmoid(-beta * d)).mean() / (1 - 2 * e)
    elif name == "dpo_nll":
        loss = -logsigmoid(beta * d).mean() + ((-c / c_length).mean() if paper else nll)
    elif name == "dpo_ipo":
        gap = d if paper else chosen / c_length - rejected / r_length
        loss = ((gap - 1 / (2 * beta)) ** 2).mean()
    elif name == "dpo_hinge":
        loss = (1 - beta * d).clamp(min=0).mean()
    elif name == "simpo":
        loss = -logsigmoid(beta * (chosen - rejected) - settings["simpo_gamma"]).mean()
    elif name == "cpo":
        added = (-c).mean() if paper else nll
        loss = -logsigmoid(beta * (c - r)).mean() + settings["cpo_alpha"] * added
    elif name == "orpo":
        odds = [x - torch.log1p(-x.exp()) for x in (chosen, rejected)]
        full_nll = -(c + policy["prompt"]).sum() / (c_length + policy["prompt_length"]).sum()
        added = (-c / c_length).mean() if paper else full_nll
        loss = added - beta * logsigmoid(odds[0] - odds[1]).mean()
    return loss, dict(
        rewards_chosen=(beta * chosen).mean(), rewards_rejected=(beta * rejected).mean(),
        margin=(beta * (chosen - rejected)).mean(),
        accuracy=(chosen > rejected).double().mean(),
        logps_chosen=reported[0].mean(), logps_rejected=reported[1].mean())


def expect(folder, name, rows, eval_rows, paper=False):
    """The whole run by formula, in f64: what TRL's has to equal, or that of the paper."""
    trainer, settings, full = CASES[name]
    model = load(folder, full).double().eval()
    base = load(folder, full=True).double().eval()
    references = {}
    with torch.no_grad():
        for key, some in (("train", rows), ("eval", eval_rows)):
            references[key] = log_probabilities(base, some) if trainer == "dpo" else None

    def evaluate():
        with torch.no_grad():
            policy = log_probabilities(model, eval_rows)
            loss, metrics = formula(name, policy, references["eval"], paper)
            return numbers(dict(loss=loss, **metrics))

    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.get("learning_rate", TRAINING["learning_rate"]),
        betas=(TRAINING["adam_beta1"], TRAINING["adam_beta2"]), eps=TRAINING["adam_epsilon"],
        weight_decay=TRAINING["weight_decay"])
    before, steps = evaluate(), []
    for step in range(STEPS):
        policy = log_probabilities(model, rows)
        if step == 0:
            of_paper, _ = formula(name, policy, references["train"], paper=True)
            per_pair = dict(policy=sums(policy))
            if references["train"] is not None:
                per_pair["reference"] = sums(references["train"])
        loss, metrics = formula(name, policy, references["train"], paper)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.stack([p.grad.norm() for p in parameters]).norm()
        optimizer.step()
        steps.append(numbers(dict(loss=loss, **metrics, grad_norm=norm)))
    return dict(
        steps=steps, eval=dict(before=before, after=evaluate()), per_pair=per_pair,
        paper=of_paper.item(), weights=weights(model, full))


def sums(values):
    return dict(chosen=values["c"].tolist(), rejected=values["r"].tolist())


def numbers(values):
    return {key: value.item() for key, value in values.items()}


def weights(model, full):
    state = model.state_dict() if full else get_peft_model_state_dict(model)
    return {name: tensor.detach().float().contiguous() for name, tensor in state.items()}


# TRL, driven with the ids as they are.


def tokenizer():
    words = {str(i): i for i in range(MODEL["vocab_size"])}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="0")),
        pad_token="0")


class Dpo(DPOTrainer):
    def _prepare_dataset(self, dataset, *_):
        return dataset


class Tokenized:
    """Stands in for the tokenisation of CPO and ORPO, which would add special tokens."""

    def tokenize_row(self, row, model=None):
        batch = dict(
            prompt_input_ids=row["prompt_ids"],
            prompt_attention_mask=[1] * len(row["prompt_ids"]))
        for side in ("chosen", "rejected"):
            ids = row["prompt_ids"] + row[side + "_ids"]
            batch[side + "_input_ids"] = ids
            batch[side + "_attention_mask"] = [1] * len(ids)
            batch[side + "_labels"] = [-100] * len(row["prompt_ids"]) + row[side + "_ids"]
        return batch


class Cpo(Tokenized, CPOTrainer):
    pass


class Orpo(Tokenized, ORPOTrainer):
    pass


TRAINERS = {
    "dpo": (Dpo, DPOConfig, "trl.DPOTrainer"),
    "cpo": (Cpo, CPOConfig, "trl.experimental.cpo.CPOTrainer"),
    "orpo": (Orpo, ORPOConfig, "trl.experimental.orpo.ORPOTrainer"),
}


def batch_sequences(inputs):
    """The (prompt, completion) of every sequence that a batch makes the model read."""
    if "completion_mask" in inputs:
        parts = [(inputs["input_ids"], inputs["attention_mask"], inputs["completion_mask"])]
    else:
        parts = [
            (inputs[side + "_input_ids"], inputs[side + "_attention_mask"],
             inputs[side + "_labels"] != -100) for side in ("chosen", "rejected")]
    found = []
    for ids, attention, completion in parts:
        for row, seen, trained in zip(ids, attention.bool(), completion.bool(), strict=True):
            assert not (trained & ~seen).any()
            found.append((row[seen & ~trained].tolist(), row[trained].tolist()))
    return found


def run_trl(folder, name, rows, eval_rows):
    trainer_key, settings, full = CASES[name]
    trainer_class, config_class, _ = TRAINERS[trainer_key]
    losses, batches = [], []
    with tempfile.TemporaryDirectory() as output:
        config = config_class(
            output_dir=output, use_cpu=True, report_to="none", save_strategy="no",
            logging_steps=1, disable_tqdm=True, disable_dropout=True, max_length=64,
            remove_unused_columns=trainer_key == "dpo", **{**TRAINING, **settings})
        # TRL would take a copy of the starting adapter as the reference of an adapter that is
        # passed ready-made; the reference here is the model without adapter.
        other = dict(ref_model=load(folder, full=True)) if trainer_key == "dpo" else {}
        trainer = trainer_class(
            model=load(folder, full), args=config, processing_class=tokenizer(),
            train_dataset=datasets.Dataset.from_list(rows),
            eval_dataset=datasets.Dataset.from_list(eval_rows), **other)
        trainer.remove_callback(PrinterCallback)
        compute_loss = trainer.compute_loss

        def recorded(model, inputs, *arguments, **keywords):
            loss = compute_loss(model, inputs, *arguments, **keywords)
            if model.training:
                batches.append(batch_sequences(inputs))
                losses.append(loss.item())
            return loss

        def evaluate():
            trainer.evaluate()
            return metrics(trainer.state.log_history[-1], "eval_")

        trainer.compute_loss = recorded
        before = evaluate()
        trainer.train()
        logs = [entry for entry in trainer.state.log_history if "loss" in entry]
        after = evaluate()

    wanted = sorted(
        (row["prompt_ids"], row[side + "_ids"]) for row in rows for side in ("chosen", "rejected"))
    assert len(batches) == len(logs) == STEPS
    assert all(sorted(batch) == wanted for batch in batches), name
    if name in ("dpo", "cpo", "orpo"):
        print(f"{name}: first batch", batches[0])
    # The log rounds losses; the recorded ones are what went backward.
    steps = [
        dict(metrics(entry, ""), loss=loss, grad_norm=entry["grad_norm"])
        for entry, loss in zip(logs, losses, strict=True)]
    return dict(
        steps=steps, eval=dict(before=before, after=after), weights=weights(trainer.model, full))


def metrics(entry, prefix):
    names = dict(
        loss="loss", rewards_chosen="rewards/chosen", rewards_rejected="rewards/rejected",
        margin="rewards/margins", accuracy="rewards/accuracies", logps_chosen="logps/chosen",
        logps_rejected="logps/rejected")
    return {name: entry[prefix + key] for name, key in names.items()}


def check(name, found, wanted):
    """TRL's f32 run equals the f64 run: step 1 to 1e-5, what follows to 1e-4."""
    worst = {}

    def compare(where, a, b, tolerance):
        error = abs(a - b)
        worst[where] = max(worst.get(where, 0.0), error)
        assert error <= tolerance * max(1.0, abs(b)), (name, where, a, b)

    for step, (a, b) in enumerate(zip(found["steps"], wanted["steps"], strict=True)):
        for key in b:
            where = "step 1" if step == 0 else "later steps"
            compare(where, a[key], b[key], 1e-5 if step == 0 else 1e-4)
    for when, tolerance in (("before", 1e-5), ("after", 1e-4)):
        for key in wanted["eval"][when]:
            compare("eval " + when, found["eval"][when][key], wanted["eval"][when][key], tolerance)
    assert found["weights"].keys() == wanted["weights"].keys()
    for key, tensor in wanted["weights"].items():
        compare("weights", (found["weights"][key] - tensor).abs().max().item(), 0.0, 1e-4)
    print(f"{name}: largest differences from f64:", {k: f"{v:.1e}" for k, v in worst.items()})
    loss, paper = wanted["steps"][0]["loss"], wanted["paper"]
    if abs(loss - paper) > 1e-9:
        print(f"{name}: TRL's loss {loss:.6f} is not the paper's {paper:.6f}: {FORMULAS[name][2]}")


def make_case(folder, name):
    trainer, settings, full = CASES[name]
    rows, eval_rows = read_rows(folder / "pairs.jsonl"), read_rows(folder / "eval.jsonl")
    wanted = expect(folder, name, rows, eval_rows)
    found = run_trl(folder, name, rows, eval_rows)
    check(name, found, wanted)
    print(f"{name}: losses", [round(step["loss"], 4) for step in found["steps"]])
    (folder / "cases").mkdir(exist_ok=True)
    save_file(found["weights"], folder / "cases" / f"{name}.safetensors")
    loss, reported, note = FORMULAS[name]
    case = dict(
        name=name, trainer=TRAINERS[trainer][2], settings=settings,
        trained="all weights" if full else "adapter",
        reference="model" if trainer == "dpo" else None, loss=loss, metrics=reported)
    if note:
        case["note"] = note
    return dict(
        case, steps=found["steps"], eval=found["eval"], first_step_logps=wanted["per_pair"])


def make_paper_case(folder, name):
    rows, eval_rows = read_rows(folder / "pairs.jsonl"), read_rows(folder / "eval.jsonl")
    found = expect(folder, name, rows, eval_rows, paper=True)
    save_file(found["weights"], folder / "cases" / f"{name}_paper.safetensors")
    return dict(
        name=f"{name}_paper", settings=CASES[name][1], trained="adapter", note=FORMULAS[name][2],
        steps=found["steps"], eval=found["eval"], first_step_logps=found["per_pair"])


def main(folder):
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    write_inputs(folder)
    versions = {
        module.__name__: module.__version__.split("+")[0]
        for module in (torch, transformers, peft, trl, datasets, accelerate)}
    cases = dict(
        versions=versions, training=TRAINING, notation=NOTATION,
        first_step_logps="sums over completion tokens, in the order of pairs.jsonl, in f64",
        cases=[make_case(folder, name) for name in CASES]
        + [make_paper_case(folder, name) for name in ("dpo_nll", "dpo_ipo", "cpo", "orpo")])
    (folder / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
