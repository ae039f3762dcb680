//! Safetensors are written in the form that other tools read, and damaged ones are refused by name.

use proptest::prelude::*;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;
use tightrope_formats::{Encoding, FormatError, TensorOut, Tensors, safetensors as ours};

/// A file: any header, then `data`.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let size = (header.len() as u64).to_le_bytes();
    [&size, header.as_bytes(), data].concat()
}

fn opened(bytes: &[u8]) -> Result<Tensors, FormatError> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.safetensors");
    fs::write(&path, bytes).unwrap();
    Tensors::open(&path)
}

fn out<'a>(name: &str, shape: &[usize], bytes: &'a [u8]) -> TensorOut<'a, FormatError> {
    TensorOut::new(name, Encoding::U8, shape, move || Ok(bytes.to_vec()))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn damaged_headers_are_errors() {
    let damaged = |bytes: &[u8]| matches!(opened(bytes), Err(FormatError::Damaged { .. }));
    let of_tensor = |bytes: &[u8]| matches!(opened(bytes), Err(FormatError::DamagedTensor { .. }));
    assert!(damaged(b"short"));
    assert!(damaged(
        &[u64::MAX.to_le_bytes().as_slice(), b"{}"].concat()
    ));
    assert!(matches!(
        opened(&file("{\"a\"", &[])),
        Err(FormatError::Json { .. })
    ));
    assert!(damaged(&file("{}", &[0])));
    assert!(matches!(
        opened(&[9u64.to_le_bytes().as_slice(), b"{}"].concat()),
        Err(FormatError::Cut { .. })
    ));
    let dimensions = format!(
        r#"{{"a":{{"dtype":"F32","shape":[{}1],"data_offsets":[0,4]}}}}"#,
        "1,".repeat(8)
    );
    assert!(of_tensor(&file(&dimensions, &[0; 4])));
    let tensor = |shape: &str, start: u64, end: u64| {
        format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    };
    let one = |description: &str| file(&format!(r#"{{"a":{description}}}"#), &[0; 8]);
    for bad in [
        tensor("[4611686018427387904, 4]", 0, 8),
        tensor("[3]", 0, 8),
        tensor("[2]", 0, 16),
        tensor("[2]", 8, 0),
        tensor("[-2]", 0, 8),
        r#"{"dtype":"F32","shape":[2]}"#.to_string(),
    ] {
        assert!(of_tensor(&one(&bad)), "{bad}");
    }
    let error = opened(&one(&tensor("[2]", 0, 8).replace("F32", "Q4_K"))).unwrap_err();
    assert!(
        error.to_string().contains("tensor `a` holds Q4_K"),
        "{error}"
    );
    // A gap, an overlap, and a name twice.
    let two = |a: &str, b: &str, name: &str| file(&format!(r#"{{"a":{a},"{name}":{b}}}"#), &[0; 8]);
    assert!(damaged(&two(
        &tensor("[0]", 0, 0),
        &tensor("[1]", 4, 8),
        "b"
    )));
    assert!(damaged(&two(
        &tensor("[2]", 0, 8),
        &tensor("[1]", 4, 8),
        "b"
    )));
    let twice = opened(&two(&tensor("[1]", 0, 4), &tensor("[1]", 4, 8), "a"));
    assert!(matches!(twice, Err(FormatError::Duplicate { .. })));
}

/// Three tensors of 4 bytes in two files with an index.
fn split() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let tensors = ["a", "b", "c"].map(|name| out(name, &[4], b"1234"));
    ours::write_model(folder.path(), tensors.into(), 8).unwrap();
    let index = folder.path().join(ours::INDEX);
    (folder, index)
}

#[test]
fn an_index_names_files_of_its_folder() {
    let (folder, index) = split();
    let [first, second] = [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ];
    assert_eq!(names(folder.path()), [first, second, ours::INDEX]);
    for path in [folder.path(), &index] {
        let tensors = Tensors::open(path).unwrap();
        assert_eq!(tensors.names().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(tensors.file("c"), folder.path().join(second));
        assert_eq!(tensors.read("c").unwrap(), b"1234");
        let error = tensors.read("d").unwrap_err();
        assert!(matches!(&error, FormatError::Missing { file, .. } if *file == index));
    }
    let with = |weight_map: Value| {
        fs::write(&index, json!({"weight_map": weight_map}).to_string()).unwrap();
        Tensors::open(folder.path()).unwrap_err()
    };
    for outside in ["../a.safetensors", "/a", "..", "x/y", ""] {
        let error = with(json!({"a": outside}));
        assert!(matches!(error, FormatError::Damaged { .. }), "{error}");
    }
    let error = with(json!({"a": "c.safetensors"}));
    assert!(
        matches!(&error, FormatError::MissingShard { file, .. } if file == "c.safetensors"),
        "{error}"
    );
    let error = with(json!({"a": first, "c": first}));
    assert!(matches!(error, FormatError::Missing { .. }), "{error}");
    fs::copy(folder.path().join(first), folder.path().join(second)).unwrap();
    let error = with(json!({"a": first, "b": second}));
    assert!(matches!(error, FormatError::Duplicate { .. }), "{error}");
    fs::write(&index, "{}").unwrap();
    let error = Tensors::open(folder.path()).unwrap_err();
    assert!(matches!(error, FormatError::Json { .. }), "{error}");
    let error = Tensors::open(&folder.path().join("nowhere")).unwrap_err();
    assert!(matches!(error, FormatError::Io { .. }), "{error}");
    fs::remove_file(&index).unwrap();
    let error = Tensors::open(folder.path()).unwrap_err();
    assert!(matches!(error, FormatError::NoModel { .. }), "{error}");
}

/// Error of the source of the elements.
#[derive(Debug)]
enum Failure {
    Mine,
    Format(FormatError),
}

impl From<FormatError> for Failure {
    fn from(error: FormatError) -> Self {
        Failure::Format(error)
    }
}

#[test]
fn a_file_that_cannot_be_whole_is_not_there() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.safetensors");
    let good = || TensorOut::new("good", Encoding::F32, &[1], || Ok(vec![0; 4]));
    let bad = TensorOut::new("bad", Encoding::F32, &[1], || Err(Failure::Mine));
    let error = ours::write(&path, &[], vec![good(), bad]).unwrap_err();
    assert!(matches!(error, Failure::Mine));
    for (encoding, shape, expected) in [
        (
            Encoding::F32,
            &[2][..],
            "tensor `bad`: shape [2] of f32 has 8 bytes, got 4",
        ),
        (
            Encoding::Q8_0,
            &[32],
            "shape [32] of q8_0 cannot be written",
        ),
        (Encoding::F32, &[1 << 40, 1 << 40], "cannot be written"),
    ] {
        let bad = TensorOut::new("bad", encoding, shape, || Ok::<_, Failure>(vec![0; 4]));
        match ours::write(&path, &[], vec![good(), bad]).unwrap_err() {
            Failure::Format(error) => assert!(error.to_string().contains(expected), "{error}"),
            error => panic!("{error:?}"),
        }
    }
    let twice = ours::write(&path, &[], vec![good(), good()]);
    assert!(matches!(
        twice,
        Err(Failure::Format(FormatError::Duplicate { .. }))
    ));
    assert!(names(folder.path()).is_empty());
}

#[test]
fn what_a_file_says_about_itself_is_kept_and_need_not_be_there() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.safetensors");
    for about in [&[][..], &[("kind", "old"), ("format", "pt")]] {
        ours::write(&path, about, vec![out("a", &[1], b"1")]).unwrap();
        let found = ours::metadata(&path).unwrap();
        let expected = about.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        assert_eq!(found, expected.collect());
        assert!(Tensors::open(&path).unwrap().info("__metadata__").is_none());
    }
    let text = file(r#"{"__metadata__":{"a":[1]}}"#, &[]);
    fs::write(&path, text).unwrap();
    assert!(matches!(
        ours::metadata(&path),
        Err(FormatError::Json { .. })
    ));
    assert_eq!(Tensors::open(&path).unwrap().names().count(), 0);
}

/// Corresponding types of both libraries.
const TYPES: [(Encoding, Dtype); 15] = [
    (Encoding::F32, Dtype::F32),
    (Encoding::F16, Dtype::F16),
    (Encoding::Bf16, Dtype::BF16),
    (Encoding::F64, Dtype::F64),
    (Encoding::F8E4M3, Dtype::F8_E4M3),
    (Encoding::F8E5M2, Dtype::F8_E5M2),
    (Encoding::I64, Dtype::I64),
    (Encoding::I32, Dtype::I32),
    (Encoding::I16, Dtype::I16),
    (Encoding::I8, Dtype::I8),
    (Encoding::U64, Dtype::U64),
    (Encoding::U32, Dtype::U32),
    (Encoding::U16, Dtype::U16),
    (Encoding::U8, Dtype::U8),
    (Encoding::Bool, Dtype::BOOL),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// The safetensors crate reads what we write, and the other way round.
    #[test]
    fn both_libraries_agree(
        described in prop::collection::btree_map(
            "[a-z.\"\\\\é]{1,9}",
            (0usize..15, prop::collection::vec(0usize..4, 0..4), any::<u8>()),
            0..9,
        ),
    ) {
        let folder = TempDir::new().unwrap();
        let [own, other] = ["own", "other"].map(|name| folder.path().join(name));
        let all: Vec<_> = described
            .iter()
            .map(|(name, (kind, shape, byte))| {
                let (encoding, dtype) = TYPES[*kind];
                let elements: usize = shape.iter().product();
                let bytes = vec![*byte; elements * encoding.block_bytes()];
                (name, encoding, dtype, shape, bytes)
            })
            .collect();
        let outs = all.iter().map(|(name, encoding, _, shape, bytes)| {
            TensorOut::new(*name, *encoding, shape, || Ok::<_, FormatError>(bytes.clone()))
        });
        ours::write(&own, &[("format", "pt")], outs.collect()).unwrap();
        let views = all.iter().map(|(name, _, dtype, shape, bytes)| {
            (*name, TensorView::new(*dtype, shape.to_vec(), bytes).unwrap())
        });
        fs::write(&other, safetensors::serialize(views, None).unwrap()).unwrap();
        let written = fs::read(&own).unwrap();
        let theirs = SafeTensors::deserialize(&written).unwrap();
        prop_assert_eq!(theirs.len(), all.len());
        for path in [&own, &other] {
            let tensors = Tensors::open(path).unwrap();
            prop_assert_eq!(tensors.names().count(), all.len());
            for (name, encoding, dtype, shape, bytes) in &all {
                let info = tensors.info(name).unwrap();
                prop_assert_eq!((info.encoding, &info.shape), (*encoding, *shape));
                prop_assert_eq!(&tensors.read(name).unwrap(), bytes);
                let view = theirs.tensor(name).unwrap();
                prop_assert_eq!((view.dtype(), view.shape()), (*dtype, &shape[..]));
                prop_assert_eq!(view.data(), &bytes[..]);
            }
        }
    }

    #[test]
    fn no_damage_panics(cut in 0usize..300, at in 0usize..300, byte in any::<u8>()) {
        let (folder, index) = split();
        for path in [folder.path().join("model-00001-of-00002.safetensors"), index] {
            let good = fs::read(&path).unwrap();
            let mut bytes = good.clone();
            let at = at % bytes.len();
            bytes[at] = byte;
            fs::write(&path, &bytes).unwrap();
            let _ = Tensors::open(folder.path());
            let _ = ours::metadata(&path);
            fs::write(&path, &good[..cut % (good.len() - 1)]).unwrap();
            prop_assert!(Tensors::open(folder.path()).is_err());
            fs::write(&path, &good).unwrap();
        }
    }
}
