//! Adapters of every kind against PEFT, in f64, from adapters that PEFT wrote; what is written here
//! has the names and settings of PEFT.

mod common;

use common::{
    Expected,
    adamw::{Hyperparameters, moments, update},
    batchings, capacity, cpu, documents,
    files::{case, tensors},
    step,
};
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tightrope_model::{
    Adapters, Backend, LoadOptions, LoraConfig, Model, TrainableModel, Training,
};
use tightrope_packing::{Batch, Sequence};
use tightrope_testkit::{cuda, relative_distance};

/// Tolerances of golden.rs for f32.
const LOSS: f64 = 1e-5;
const GRADIENT: f64 = 1e-4;
const LOGITS: f64 = 1e-5;

/// A case and the model of `golden` that it belongs to.
struct Case {
    name: String,
    folder: PathBuf,
    base: PathBuf,
    sequences: Vec<Sequence>,
    expected: Expected,
}

fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peft");
    let folders = std::fs::read_dir(root).unwrap();
    let folders = folders.map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = folders.filter(|path| path.is_dir()).collect();
    folders.sort();
    assert!(folders.len() >= 10);
    let read = |folder: PathBuf| {
        let base = std::fs::read_to_string(folder.join("model.txt")).unwrap();
        let base = case(base.trim());
        Case {
            name: folder.file_name().unwrap().to_string_lossy().into_owned(),
            // New tokens need documents of their own.
            sequences: match folder.join("documents.jsonl").exists() {
                true => documents(&folder),
                false => documents(&base),
            },
            expected: Expected::open(&folder.join("expected.safetensors")),
            folder,
            base,
        }
    };
    folders.into_iter().map(read).collect()
}

impl Case {
    fn adapter(&self) -> PathBuf {
        self.folder.join("adapter")
    }

    fn options(&self, adapter: Option<PathBuf>) -> LoadOptions {
        LoadOptions {
            adapter,
            ..LoadOptions::new(capacity(&self.sequences))
        }
    }

    fn trainable<D: Backend>(&self, device: &D, recompute: bool) -> TrainableModel<D> {
        let options = LoadOptions {
            recompute,
            ..self.options(Some(self.adapter()))
        };
        let lora = Training::Lora(LoraConfig::default());
        TrainableModel::load(device, &self.base, &lora, &options).unwrap()
    }

    /// Values of a parameter in the order in which it lies here.
    fn expected(&self, what: &str, parameter: &str) -> Vec<f64> {
        let name = format!("{what}.{parameter}");
        let values = self.expected.get(&name);
        if !parameter.ends_with("lora_embedding_A") {
            return values;
        }
        let rank = self.expected.shape(&name)[0] as usize;
        let columns = values.len() / rank;
        let at = |index: usize| values[index % rank * columns + index / rank];
        (0..values.len()).map(at).collect()
    }

    fn has_new_tokens(&self) -> bool {
        self.folder.join("documents.jsonl").exists()
    }

    fn packed(&self) -> Batch {
        batchings(&self.sequences).remove(0).1.remove(0)
    }
}

fn at_most(what: &str, value: f64, bound: f64) {
    // This form fails if the value is NaN.
    let close = value <= bound;
    assert!(close, "{what}: {value:e} > {bound:e}");
}

fn check_gradients<D: Backend>(device: &D, ways: usize, recompute: bool) {
    for case in cases() {
        let mut model = case.trainable(device, recompute);
        for (way, batches) in batchings(&case.sequences).into_iter().take(ways) {
            let name = format!("{}, {way}", case.name);
            let (loss, gradients) = step(&mut model, &batches);
            let reference = case.expected.get("loss")[0];
            at_most(&name, (loss / reference - 1.0).abs(), LOSS);
            let names = case.expected.names();
            let expected = names.iter().filter(|name| name.starts_with("grad."));
            assert_eq!(gradients.len(), expected.count(), "{name}");
            for (parameter, gradient) in gradients {
                let reference = case.expected("grad", &parameter);
                let distance = relative_distance(&gradient, &reference);
                at_most(&format!("{name}: {parameter}"), distance, GRADIENT);
            }
        }
    }
}

#[test]
fn loss_and_gradients_in_every_batching() {
    check_gradients(&cpu(2), usize::MAX, false);
    check_gradients(&cpu(1), 1, true);
}

#[test]
fn loss_and_gradients_on_cuda() {
    check_gradients(cuda(), 1, false);
}

fn check_logits<D: Backend>(device: &D) {
    for case in cases() {
        let batch = case.packed();
        let options = case.options(Some(case.adapter()));
        let mut model = Model::load(device, &case.base, &options).unwrap();
        let logits = model.logits(&batch).unwrap();
        let distance = relative_distance(&logits, &case.expected.get("logits"));
        at_most(&case.name, distance, LOGITS);
        if case.has_new_tokens() {
            continue;
        }
        // Without the adapter every value is the model's own.
        let off = model.evaluate_with(&batch, Adapters::Off).unwrap();
        let mut bare = Model::load(device, &case.base, &case.options(None)).unwrap();
        let bare = bare.evaluate(&batch).unwrap();
        assert!(off.per_token == bare.per_token, "{}", case.name);
        let on = model.evaluate(&batch).unwrap();
        assert!(on.per_token != bare.per_token, "{}", case.name);
    }
}

#[test]
fn logits_with_and_without_the_adapter() {
    check_logits(&cpu(1));
}

#[test]
fn logits_on_cuda() {
    check_logits(cuda());
}

#[derive(Deserialize)]
struct Step {
    loss: f64,
    grad_norm: f64,
}

#[test]
fn steps_of_training() {
    for case in cases() {
        let text = std::fs::read_to_string(case.folder.join("trajectory.json")).unwrap();
        let steps: Vec<Step> = serde_json::from_str(&text).unwrap();
        let hyperparameters = Hyperparameters {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            max_grad_norm: 1.0,
            label_tokens: 0,
        };
        let mut model = case.trainable(&cpu(2), false);
        let mut moments = moments(&mut model);
        for (index, expected) in (1..).zip(steps) {
            let (loss, _) = step(&mut model, &[case.packed()]);
            let norm = update(&mut model, &hyperparameters, &mut moments, index);
            let name = format!("{}, step {index}", case.name);
            at_most(&name, (loss / expected.loss - 1.0).abs(), LOSS);
            at_most(&name, (norm / expected.grad_norm - 1.0).abs(), GRADIENT);
        }
        // AdamW divides by the root of a small number, so that single elements are less exact.
        for parameter in model.parameters() {
            let reference = case.expected("after", parameter.name);
            let values = parameter.weight.to_vec::<f32>().unwrap();
            let distance = relative_distance(&values, &reference);
            at_most(
                &format!("{}: {}", case.name, parameter.name),
                distance,
                1e-4,
            );
        }
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn what_is_saved_is_what_peft_saved() {
    for case in cases() {
        let options = case.options(Some(case.adapter()));
        let model = Model::load(&cpu(1), &case.base, &options).unwrap();
        let folder = TempDir::new().unwrap();
        model.save_adapter(folder.path()).unwrap();
        let [before, after] = [&case.adapter(), folder.path()].map(|folder| {
            let mut all = tensors(&folder.join("adapter_model.safetensors"));
            all.sort_by(|a, b| a.0.cmp(&b.0));
            all
        });
        let name = &case.name;
        // PEFT writes a head that is the embedding, and modules that are trained whole, several
        // times.
        let before = before.into_iter().filter(|(tensor, ..)| {
            let of_head = tensor.starts_with("base_model.model.lm_head.");
            let of_tied = ["saved_and_kept_tied", "resized_tied"].contains(&&**name);
            let table = tensor == "base_model.model.lm_head.base_layer.weight";
            let tied = model.config().architecture().tied_head;
            let whole = tensor.ends_with(".modules_to_save.weight");
            !(of_head && of_tied || table && tied || whole)
        });
        let before: Vec<_> = before.collect();
        assert_eq!(before.len(), after.len(), "{name}");
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(before.0, after.0, "{name}");
            assert_eq!(before.1["shape"], after.1["shape"], "{name}: {}", before.0);
            assert!(before.2 == after.2, "{name}: {}", before.0);
        }
        let file = "adapter_config.json";
        let (before, after) = (
            json(&case.adapter().join(file)),
            json(&folder.path().join(file)),
        );
        assert_eq!(before, after, "{name}");
    }
}

#[test]
fn a_merged_model_has_the_logits_of_model_and_adapter() {
    for case in cases() {
        let options = case.options(Some(case.adapter()));
        let model = Model::load(&cpu(1), &case.base, &options).unwrap();
        let folder = TempDir::new().unwrap();
        model.save_merged(folder.path()).unwrap();
        let options = case.options(None);
        let mut merged = Model::load(&cpu(1), folder.path(), &options).unwrap();
        let logits = merged.logits(&case.packed()).unwrap();
        let distance = relative_distance(&logits, &case.expected.get("logits"));
        at_most(&case.name, distance, LOGITS);
    }
}
