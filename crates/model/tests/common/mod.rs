//! Golden cases: reading them, and running a model on them.
#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod adamw;
pub(crate) mod files;

use serde::Deserialize;
use std::path::{Path, PathBuf};
use tightrope_device::Cpu;
use tightrope_model::{Backend, LoadOptions, LoraConfig, TokenWeights, TrainableModel, Training};
use tightrope_packing::{Batch, Piece, Sequence};

/// Every folder of `tests/golden`.
pub(crate) fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    cases.sort();
    assert!(cases.len() >= 6);
    cases
}

#[derive(Deserialize)]
struct Document {
    input_ids: Vec<u32>,
    labels: Vec<i64>,
}

/// The documents of a case.
pub(crate) fn documents(case: &Path) -> Vec<Sequence> {
    let text = std::fs::read_to_string(case.join("documents.jsonl")).unwrap();
    text.lines()
        .map(|line| {
            let document: Document = serde_json::from_str(line).unwrap();
            Sequence::from_labels(document.input_ids, &document.labels).unwrap()
        })
        .collect()
}

/// All of a sequence.
pub(crate) fn whole(sequences: &[Sequence], index: usize) -> Piece {
    Piece {
        sequence: index as u32,
        start: 0,
        length: sequences[index].len() as u32,
    }
}

/// The ways to put the same sequences into batches.
pub(crate) fn batchings(sequences: &[Sequence]) -> Vec<(&'static str, Vec<Batch>)> {
    let pieces: Vec<Piece> = (0..sequences.len()).map(|i| whole(sequences, i)).collect();
    let reversed: Vec<Piece> = pieces.iter().rev().copied().collect();
    let one_by_one = pieces
        .iter()
        .map(|p| Batch::packed(sequences, &[*p]).unwrap());
    vec![
        ("packed", vec![Batch::packed(sequences, &pieces).unwrap()]),
        (
            "reversed",
            vec![Batch::packed(sequences, &reversed).unwrap()],
        ),
        ("one by one", one_by_one.collect()),
        (
            "padded",
            vec![Batch::padded(sequences, &pieces, 0).unwrap()],
        ),
    ]
}

/// Tokens of the largest batch among all batchings.
pub(crate) fn capacity(sequences: &[Sequence]) -> usize {
    let longest = sequences.iter().map(Sequence::len).max().unwrap();
    longest * sequences.len()
}

/// LoRA, or full training.
pub(crate) fn training(lora: bool) -> Training {
    match lora {
        true => Training::Lora(LoraConfig::default()),
        false => Training::Full,
    }
}

/// With the case's adapter for LoRA.
pub(crate) fn options(case: &Path, lora: bool, sequences: &[Sequence]) -> LoadOptions {
    LoadOptions {
        adapter: lora.then(|| case.join("adapter")),
        ..LoadOptions::new(capacity(sequences))
    }
}

/// A device with `threads` threads.
pub(crate) fn cpu(threads: usize) -> Cpu {
    Cpu::new(threads).unwrap()
}

/// Loss and gradients of an optimizer step over `batches`.
pub(crate) fn step<D: Backend>(
    model: &mut TrainableModel<D>,
    batches: &[Batch],
) -> (f64, Vec<(String, Vec<f32>)>) {
    let trained: usize = batches.iter().map(Batch::trained_tokens).sum();
    let scale = 1.0 / trained as f32;
    model.zero_gradients().unwrap();
    let losses = batches.iter().map(|batch| {
        let weights = vec![scale; batch.len()];
        let weights = TokenWeights::Known(&weights);
        model.forward_backward(batch, weights, 0).unwrap().sum
    });
    let loss = losses.sum::<f64>() / trained as f64;
    let gradients = model
        .parameters()
        .iter()
        .map(|p| (p.name.to_string(), p.gradient.to_vec::<f32>().unwrap()))
        .collect();
    (loss, gradients)
}

/// A safetensors file, read by the reference crate.
pub(crate) struct Expected(Vec<u8>);

impl Expected {
    pub(crate) fn open(path: &Path) -> Self {
        Self(std::fs::read(path).unwrap())
    }

    /// A tensor as f64, from f32 or f64.
    pub(crate) fn get(&self, name: &str) -> Vec<f64> {
        let tensors = safetensors::SafeTensors::deserialize(&self.0).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        let bytes = tensor.data();
        match tensor.dtype() {
            safetensors::Dtype::F64 => {
                let words = bytes.as_chunks::<8>().0.iter().copied();
                words.map(f64::from_le_bytes).collect()
            }
            safetensors::Dtype::F32 => {
                let words = bytes.as_chunks::<4>().0.iter().copied();
                words
                    .map(|word| f64::from(f32::from_le_bytes(word)))
                    .collect()
            }
            other => panic!("{name}: {other:?}"),
        }
    }

    pub(crate) fn shape(&self, name: &str) -> Vec<u64> {
        let tensors = safetensors::SafeTensors::deserialize(&self.0).unwrap();
        let shape = tensors.tensor(name).unwrap().shape().to_vec();
        shape.into_iter().map(|dim| dim as u64).collect()
    }

    /// In order, which the reference crate does not keep.
    pub(crate) fn names(&self) -> Vec<String> {
        let tensors = safetensors::SafeTensors::deserialize(&self.0).unwrap();
        let mut names: Vec<String> = tensors.names().into_iter().map(String::from).collect();
        names.sort();
        names
    }
}
