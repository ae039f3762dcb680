//! GGUF files are read as they were written, and damaged ones are refused by name.

use proptest::prelude::*;
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;
use tightrope_formats::{
    Encoding, FormatError, TensorOut, Tensors,
    gguf::{self, Gguf, GgufTokenizer, List, Value},
};

const DIMENSIONS: [usize; 2] = [3, 32];

fn text(text: &str) -> Value {
    Value::Text(text.to_string())
}

fn out<'a>(name: &str, encoding: Encoding, shape: &[usize]) -> TensorOut<'a, FormatError> {
    let blocks = shape.iter().product::<usize>() / encoding.block_elements();
    TensorOut::new(name, encoding, shape, move || {
        Ok(vec![7; blocks * encoding.block_bytes()])
    })
}

fn written(metadata: &[(&str, Value)]) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.gguf");
    let tensors = vec![
        out("first", Encoding::F32, &DIMENSIONS),
        out("second", Encoding::Q8_0, &DIMENSIONS),
    ];
    gguf::write(&path, metadata, tensors).unwrap();
    (folder, path)
}

/// The error of a good file in which `change` has changed something.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> FormatError {
    let (_folder, path) = written(&[("key", text("value"))]);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
    Gguf::open(&path).unwrap_err()
}

/// Place after the name in the description of the first tensor.
fn after_name(bytes: &[u8]) -> usize {
    let name = b"first";
    let at = bytes.windows(name.len()).position(|part| part == name);
    at.unwrap() + name.len()
}

#[test]
fn damaged_files_are_errors() {
    let damaged = |error: FormatError| matches!(error, FormatError::Damaged { .. });
    let of_tensor = |error: FormatError| matches!(error, FormatError::DamagedTensor { tensor, .. } if tensor == "first");
    assert!(damaged(changed(|bytes| bytes[3] = b'L')));
    assert!(damaged(changed(|bytes| bytes[4] = 1)));
    // Counts and lengths that no file can hold, and a type that the format lacks.
    for at in [8, 16, 24] {
        let huge = u64::MAX.to_le_bytes();
        assert!(damaged(changed(
            |bytes| bytes[at..at + 8].copy_from_slice(&huge)
        )));
    }
    assert!(damaged(changed(|bytes| bytes[35] = 13)));
    assert!(damaged(changed(|bytes| bytes.truncate(60))));
    // After the name come the number of dimensions, the dimensions, the type and the offset.
    let at = |offset: usize, value: u8| {
        changed(|bytes| {
            let start = after_name(bytes);
            bytes[start + offset] = value;
        })
    };
    assert!(of_tensor(at(0, 5)), "dimensions");
    assert!(of_tensor(at(11, 0xff)), "a dimension");
    assert!(matches!(at(20, 29), FormatError::TensorDType { .. }));
    // Rows of 32 are no blocks of 256.
    assert!(of_tensor(at(20, 12)));
    assert!(
        of_tensor(at(24, 1)),
        "an offset between two of the alignment"
    );
    // The first tensor has 384 bytes, where the second begins.
    let overlap = changed(|bytes| {
        let start = after_name(bytes);
        bytes[start + 24] = 32;
    });
    let overlaps = |error: FormatError| error.to_string().contains("`second`: overlaps `first`");
    assert!(overlaps(overlap));
    assert!(matches!(at(25, 0x10), FormatError::Cut { .. }));
    let twice = changed(|bytes| {
        let name = b"second";
        let at = bytes.windows(6).position(|part| part == name).unwrap();
        let first = [5, 0, 0, 0, 0, 0, 0, 0].into_iter().chain(*b"first");
        bytes.splice(at - 8..at + 6, first);
    });
    assert!(matches!(twice, FormatError::Duplicate { .. }), "{twice}");
}

#[test]
fn what_cannot_be_written_is_not_there() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.gguf");
    let fails = |metadata: &[(&str, Value)], tensors: Vec<TensorOut<'_, FormatError>>| {
        let error = gguf::write(&path, metadata, tensors).unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        error.to_string()
    };
    let key = || ("key", Value::Bool(true));
    assert!(fails(&[key(), key()], vec![]).contains("`key`: appears twice"));
    let tensor = |encoding, shape: &[usize]| out("w", encoding, shape);
    for (encoding, shape) in [
        (Encoding::I64, &[1][..]),
        (Encoding::Q4K, &[32]),
        (Encoding::F32, &[1; 5]),
    ] {
        let error = fails(&[], vec![tensor(encoding, shape)]);
        assert!(error.contains("tensor `w`: shape"), "{error}");
    }
    let two = || tensor(Encoding::F32, &[1]);
    assert!(fails(&[], vec![two(), two()]).contains("tensor `w` appears twice"));
    let short = TensorOut::new("w", Encoding::F32, &[2], || Ok(vec![0; 4]));
    assert!(fails(&[], vec![short]).contains("has 8 bytes, got 4"));
}

#[test]
fn tokenizers_come_out_as_they_are() {
    let fields = || {
        vec![
            ("tokenizer.ggml.model", text("gpt2")),
            (
                "tokenizer.ggml.tokens",
                Value::List(List::texts(["a", "b", "ab"])),
            ),
            (
                "tokenizer.ggml.token_type",
                Value::List(List::i32s([1, 1, 3])),
            ),
            (
                "tokenizer.ggml.scores",
                Value::List(List::f32s([0.5, -1.0, 0.0])),
            ),
            ("tokenizer.ggml.merges", Value::List(List::texts(["a b"]))),
            ("tokenizer.ggml.eos_token_id", Value::U32(2)),
            ("tokenizer.ggml.eot_token_id", Value::U64(1)),
            ("tokenizer.ggml.eom_token_id", Value::I8(0)),
            (
                "tokenizer.ggml.eos_token_ids",
                Value::List(List::i32s([2, 0])),
            ),
            ("tokenizer.ggml.unknown_token_id", Value::U16(0)),
            ("tokenizer.ggml.add_space_prefix", Value::Bool(false)),
            ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
            ("tokenizer.chat_template", text("{{ messages }}")),
            ("tokenizer.chat_template.tool_use", text("{{ tools }}")),
            ("tokenizer.chat_templates", text("of another key")),
        ]
    };
    let read = |fields: &[(&str, Value)]| {
        let (_folder, path) = written(fields);
        GgufTokenizer::read(&path)
    };
    let expected = GgufTokenizer {
        model: "gpt2".into(),
        pre: "default".into(),
        tokens: vec!["a".into(), "b".into(), "ab".into()],
        token_types: vec![1, 1, 3],
        scores: vec![0.5, -1.0, 0.0],
        merges: vec!["a b".into()],
        bos_id: None,
        eos_id: Some(2),
        unknown_id: Some(0),
        pad_id: None,
        end_ids: vec![1, 0, 2, 0],
        add_bos: Some(false),
        add_eos: None,
        add_space_prefix: Some(false),
        chat_templates: vec![
            ("default".into(), "{{ messages }}".into()),
            ("tool_use".into(), "{{ tools }}".into()),
        ],
        file: "a.gguf".into(),
    };
    let mut found = read(&fields()).unwrap();
    found.file = found.file.file_name().unwrap().into();
    assert_eq!(found, expected);
    for (key, value, reason) in [
        ("tokenizer.ggml.model", None, "is missing"),
        ("tokenizer.ggml.tokens", None, "is missing"),
        (
            "tokenizer.ggml.tokens",
            Some(Value::U32(3)),
            "expected a list of one type, not too long",
        ),
        (
            "tokenizer.ggml.scores",
            Some(Value::List(List::i32s([1]))),
            "expected a list of one type, not too long",
        ),
        (
            "tokenizer.ggml.eot_token_id",
            Some(text("a")),
            "expected token ids",
        ),
        (
            "tokenizer.ggml.eos_token_id",
            Some(Value::I32(-1)),
            "expected a token id",
        ),
        (
            "tokenizer.ggml.add_bos_token",
            Some(Value::U8(1)),
            "expected true or false",
        ),
        ("tokenizer.ggml.pre", Some(Value::U8(1)), "expected text"),
    ] {
        let mut fields = fields();
        fields.retain(|(known, _)| *known != key);
        fields.extend(value.map(|value| (key, value)));
        let error = read(&fields).unwrap_err().to_string();
        assert!(
            error.ends_with(&format!("a.gguf: `{key}`: {reason}")),
            "{error}"
        );
    }
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<f32>().prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        ".{0,9}".prop_map(Value::Text),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        any::<f64>().prop_map(Value::F64),
        prop::collection::vec(".{0,9}", 0..5)
            .prop_map(|texts| Value::List(List::texts(texts.iter().map(String::as_str)))),
        prop::collection::vec(any::<i32>(), 0..5).prop_map(|n| Value::List(List::i32s(n))),
    ]
}

const ENCODINGS: [Encoding; 11] = [
    Encoding::F32,
    Encoding::F16,
    Encoding::Bf16,
    Encoding::Q4_0,
    Encoding::Q4_1,
    Encoding::Q5_0,
    Encoding::Q5_1,
    Encoding::Q8_0,
    Encoding::Q4K,
    Encoding::Q5K,
    Encoding::Q6K,
];

fn check(path: &Path, metadata: &[(&str, Value)], tensors: &[(String, Encoding, Vec<usize>)]) {
    let gguf = Gguf::open(path).unwrap();
    assert_eq!(gguf.metadata.iter().count(), metadata.len());
    for (key, value) in metadata {
        assert_eq!(gguf.metadata.get(key), Some(value), "{key}");
    }
    let opened = Tensors::open(path).unwrap();
    assert_eq!(opened.names().count(), tensors.len());
    for (name, encoding, shape) in tensors {
        let info = opened.info(name).unwrap();
        assert_eq!((info.encoding, &info.shape), (*encoding, shape), "{name}");
        assert_eq!(info.start % 32, 0);
        let bytes = opened.read(name).unwrap();
        assert!(bytes.len() == info.bytes && bytes.iter().all(|&byte| byte == 7));
        let elements: usize = shape.iter().product();
        assert_eq!(opened.read_f32(name).unwrap().len(), elements);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn files_come_back_as_they_were_written(
        metadata in prop::collection::btree_map("[a-z.é]{1,9}", value(), 0..9),
        tensors in prop::collection::btree_map(
            "[a-z.é]{1,9}",
            (0usize..11, prop::collection::vec(0usize..4, 0..3), 0usize..3),
            0..9,
        ),
    ) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.gguf");
        let metadata: Vec<_> = metadata.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
        let tensors = tensors.into_iter().map(|(name, (encoding, mut shape, blocks))| {
            let encoding = ENCODINGS[encoding];
            shape.push(blocks * encoding.block_elements());
            (name, encoding, shape)
        });
        let tensors: Vec<_> = tensors.collect();
        let outs = tensors.iter().map(|(name, encoding, shape)| out(name, *encoding, shape));
        gguf::write(&path, &metadata, outs.collect()).unwrap();
        check(&path, &metadata, &tensors);
    }

    #[test]
    fn no_damage_panics(cut in 0usize..2000, at in 0usize..400, byte in any::<u8>()) {
        let (_folder, path) = written(&[("tokenizer.ggml.model", text("gpt2"))]);
        let good = fs::read(&path).unwrap();
        let mut bytes = good.clone();
        let at = at % bytes.len();
        bytes[at] = byte;
        fs::write(&path, &bytes).unwrap();
        let _ = GgufTokenizer::read(&path);
        if let Ok(tensors) = Tensors::open(&path) {
            for name in tensors.names() {
                let _ = tensors.read_f32(name);
            }
        }
        // The padding after the last tensor may be missing.
        fs::write(&path, &good[..cut % (good.len() - 32)]).unwrap();
        prop_assert!(Tensors::open(&path).is_err());
    }
}
