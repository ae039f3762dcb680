"""Makes sentencepiece_ids.json: a small SentencePiece vocabulary (BPE with bytes) and the ids that SentencePiece gives to awkward texts.

    pip install sentencepiece protobuf; python3 crates/data/tests/data/sentencepiece_ids.py
"""
import io
import json
import pathlib

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[3]
text = (ROOT / "README.md").read_text() + (ROOT / "docs/decisions.md").read_text()
text += "naïve café straße Größe été déjà 한국어 한국 日本語 日本 ... ---- ==== aaaa aaaaaa ababab \n" * 3
out = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(text.splitlines()), model_writer=out, vocab_size=700, model_type="bpe",
    byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
    character_coverage=0.999, split_digits=True, allow_whitespace_only_pieces=True, pad_id=3,
    minloglevel=2, user_defined_symbols=["<sep>"], control_symbols=["<turn>"],
)
proto = sentencepiece_model_pb2.ModelProto()
proto.ParseFromString(out.getvalue())
processor = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
texts = [
    "hello world", " hello", "  two  spaces   three", "trailing ", "", " ", "    ", "naïve café",
    "aaaaaaaaaaa", "abababababa", "한국어 日本語 中文", "🙂🏳️‍🌈", "a\nb\r\n\tc\u00a0d", "12345 6.78",
    "▁under", "e\u0301 é", "\x00\x7f", "The tokenizer is packed; packing changes nothing.",
    "x=1;y==2;;===---...", "don't can't I'll", "of the the of",
]
pieces = [[piece.piece, round(piece.score, 6), piece.type] for piece in proto.pieces]
with open(HERE / "sentencepiece_ids.json", "w") as file:
    file.write('{\n "pieces": ' + json.dumps(pieces, ensure_ascii=False, separators=(",", ":")))
    ids = ",\n".join("  " + json.dumps([text, processor.encode(text)]) for text in texts)
    file.write(',\n "texts": [\n' + ids + "\n ]\n}\n")
