"""Makes added_tokens.json: folders whose added tokens stand in different files, with the ids that AutoTokenizer gives.

    pip install transformers; python3 crates/data/tests/data/added_tokens.py
"""
import json
import pathlib
import tempfile

from tokenizers import Tokenizer, models
from transformers import AutoTokenizer

HERE = pathlib.Path(__file__).parent
TEXT = "a<x>b<y> <z>c</s>d<eos>"
CLASS = {"tokenizer_class": "PreTrainedTokenizerFast"}


def token(content, **properties):
    plain = dict(content=content, special=True, lstrip=False, rstrip=False, normalized=False, single_word=False)
    return plain | properties


vocabulary = ["a", "b", "c", "d", " ", "<", "/", "s", ">", "x", "y", "z", "e", "o", "</", "</s", "</s>"]
vocabulary = {text: id for id, text in enumerate(vocabulary)}
tokenizer = Tokenizer(models.BPE(vocabulary, [("<", "/"), ("</", "s"), ("</s", ">")])).to_str()
older = {"content": "<y>", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
# name: tokenizer_config.json, special_tokens_map.json, added_tokens.json
cases = {
    "decoder": ({"added_tokens_decoder": {"9": token("<y>"), "8": token("<x>")}}, None, None),
    "decoder gap": ({"added_tokens_decoder": {"20": token("<y>"), "30": token("<x>")}}, None, None),
    "decoder + map ignored": ({"added_tokens_decoder": {"8": token("<x>")}}, {"eos_token": "<y>"}, {"<z>": 9}),
    "added_tokens.json": ({}, None, {"<y>": 9, "<x>": 8}),
    "map": ({"eos_token": "<x>"}, {"eos_token": older, "additional_special_tokens": ["<z>"]}, None),
    "map extra when config has": ({"additional_special_tokens": ["<x>"]}, {"additional_special_tokens": ["<z>"]}, None),
    "map null": ({"eos_token": "<x>"}, {"eos_token": None}, None),
    "extra list": ({"extra_special_tokens": ["<x>", "<y>"]}, None, None),
    "extra dict": ({"extra_special_tokens": {"image_token": "<x>"}, "pad_token": "<y>"}, None, None),
    "model token": ({"image_token": "<x>", "eos_token": "<eos>", "additional_special_tokens": ["<z>"], "unk_token": "<y>"}, None, None),
    "named in vocab": ({"eos_token": "</s>"}, None, None),
    "order": ({"pad_token": "<x>", "bos_token": "<y>", "mask_token": "<z>", "eos_token": "<eos>"}, None, None),
    "added json + special": ({"eos_token": "<y>"}, None, {"<y>": 8, "<x>": 9}),
    "both extra": ({"extra_special_tokens": ["<x>"], "additional_special_tokens": ["<y>"]}, None, None),
    "lstrip": ({"added_tokens_decoder": {"8": token("<z>", lstrip=True)}}, None, None),
    "no config": (None, {"eos_token": "<x>"}, {"<y>": 8}),
}
lines = []
for name, (config, *older_files) in cases.items():
    config = None if config is None else CLASS | config
    names = ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]
    files = {file: value for file, value in zip(names, [config, *older_files]) if value is not None}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "tokenizer.json").write_text(tokenizer)
        (folder / "config.json").write_text('{"model_type": "llama"}')
        for file, value in files.items():
            (folder / file).write_text(json.dumps(value))
        found = AutoTokenizer.from_pretrained(folder)
        ids = found.encode(TEXT, add_special_tokens=False)
    lines.append("  " + json.dumps({"name": name, "files": files, "ids": ids, "eos": found.eos_token_id}))
tokenizer = json.dumps(json.loads(tokenizer), separators=(",", ":"))
with open(HERE / "added_tokens.json", "w") as file:
    file.write(f'{{\n "tokenizer": {tokenizer},\n "text": {json.dumps(TEXT)},\n "cases": [\n')
    file.write(",\n".join(lines) + "\n ]\n}\n")
