//! New tokens: rows that the embedding and the head get, what trains them, and what is saved.

mod common;

use common::{
    Expected, cpu,
    files::{case, tensors},
    step,
};
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;
use tightrope_device::Cpu;
use tightrope_model::{
    Adapters, LoadOptions, LoraConfig, Model, ModelConfig, NewToken, TargetModules, TokenIndices,
    TrainableModel, Training,
};
use tightrope_packing::{Batch, Piece, Sequence};

const ROWS: usize = 96;
const HIDDEN: usize = 32;
const EMBEDDING: &str = "model.embed_tokens.weight";

fn new(tokens: &[(u32, &[u32])]) -> LoadOptions {
    let token = |(id, from): &(u32, &[u32])| NewToken {
        id: *id,
        from: from.to_vec(),
    };
    LoadOptions {
        new_tokens: tokens.iter().map(token).collect(),
        ..LoadOptions::new(64)
    }
}

fn lora() -> LoraConfig {
    LoraConfig {
        r: 2,
        target_modules: TargetModules::list(["q_proj"]),
        ..LoraConfig::default()
    }
}

/// One sequence with tokens of every kind.
fn batch(tokens: &[u32]) -> Batch {
    let labels: Vec<i64> = tokens.iter().map(|&id| id.into()).collect();
    let sequences = [Sequence::from_labels(tokens.to_vec(), &labels).unwrap()];
    let piece = Piece {
        sequence: 0,
        start: 0,
        length: tokens.len() as u32,
    };
    Batch::packed(&sequences, &[piece]).unwrap()
}

fn config(folder: &Path, file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join(file)).unwrap()).unwrap()
}

/// A table of a saved model.
fn table(folder: &Path, name: &str) -> Vec<f64> {
    Expected::open(&folder.join("model.safetensors")).get(name)
}

fn mean(table: &[f64], rows: impl Iterator<Item = usize> + Clone) -> Vec<f32> {
    let count = rows.clone().count() as f64;
    let sum = |column| -> f64 { rows.clone().map(|r| table[r * HIDDEN + column]).sum() };
    (0..HIDDEN)
        .map(|column| (sum(column) / count) as f32)
        .collect()
}

fn row(table: &[f64], row: usize) -> Vec<f32> {
    table[row * HIDDEN..][..HIDDEN]
        .iter()
        .map(|&x| x as f32)
        .collect()
}

#[test]
fn new_rows_are_means_of_rows_that_the_model_has() {
    // Row 90 exists and was never trained.
    let options = new(&[(90, &[]), (97, &[3, 3, 7]), (98, &[])]);
    for name in ["llama_linear", "qwen2_tied"] {
        let base = case(name);
        let model = Model::load(&cpu(1), &base, &options).unwrap();
        assert_eq!(model.config().architecture().vocabulary, 99);
        let folder = TempDir::new().unwrap();
        model.save_merged(folder.path()).unwrap();
        assert_eq!(config(folder.path(), "config.json")["vocab_size"], 99);
        let names: &[&str] = match name {
            "qwen2_tied" => &[EMBEDDING],
            _ => &[EMBEDDING, "lm_head.weight"],
        };
        for name in names {
            let (old, grown) = (table(&base, name), table(folder.path(), name));
            assert_eq!((old.len(), grown.len()), (ROWS * HIDDEN, 99 * HIDDEN));
            let known = mean(&old, (0..ROWS).filter(|row| *row != 90));
            for id in [90, 96, 98] {
                assert_eq!(row(&grown, id), known, "{id}");
            }
            assert_eq!(row(&grown, 97), mean(&old, [3, 3, 7].into_iter()));
            let kept = (0..ROWS).filter(|id| *id != 90);
            assert!(kept.clone().all(|id| row(&grown, id) == row(&old, id)));
        }
        let again = ModelConfig::read(folder.path()).unwrap();
        assert_eq!(again.architecture().vocabulary, 99);
        // The old tokens are what they were, up to the share of the new ones.
        let batch = batch(&[1, 97, 2, 98, 90]);
        let mut again = Model::load(&cpu(1), folder.path(), &LoadOptions::new(8)).unwrap();
        let mut model = model;
        assert_eq!(again.logits(&batch).unwrap(), model.logits(&batch).unwrap());
    }
    let error = Model::load(&cpu(1), &case("qwen2_tied"), &new(&[(96, &[96])])).unwrap_err();
    assert!(error.to_string().contains("96"), "{error}");
}

fn train(base: &Path, lora: LoraConfig, options: &LoadOptions) -> TrainableModel<Cpu> {
    TrainableModel::load(&cpu(1), base, &Training::Lora(lora), options).unwrap()
}

/// Changes every trained value, and returns the logits.
fn change(model: &mut TrainableModel<Cpu>, batch: &Batch) -> Vec<f32> {
    for (index, parameter) in model.parameters().into_iter().enumerate() {
        let values = parameter.weight.to_f32_vec().unwrap();
        let moved = values.iter().enumerate();
        let moved: Vec<f32> = moved
            .map(|(at, x)| x + 0.02 * (((at * 7 + index) % 11) as f32 - 5.0))
            .collect();
        parameter.weight.write(&moved).unwrap();
    }
    model.logits(batch).unwrap()
}

#[test]
fn an_adapter_trains_the_new_rows_alone_and_brings_them_along() {
    let options = new(&[(96, &[]), (97, &[4])]);
    let batch = batch(&[1, 96, 2, 97, 5, 96]);
    for (name, indices) in [
        ("qwen2_tied", json!([96, 97])),
        (
            "llama_linear",
            json!({"embed_tokens": [96, 97], "lm_head": [96, 97]}),
        ),
    ] {
        let base = case(name);
        let mut model = train(&base, lora(), &options);
        let off = model.evaluate_with(&batch, Adapters::Off).unwrap();
        assert_eq!(off, model.evaluate(&batch).unwrap(), "{name}");
        let trained = change(&mut model, &batch);
        let on = model.evaluate(&batch).unwrap();
        assert_ne!(off, on);
        // Without the adapter, the rows are again those of the start; and then they are back.
        assert_eq!(off, model.evaluate_with(&batch, Adapters::Off).unwrap());
        let folder = TempDir::new().unwrap();
        model.save_adapter(folder.path()).unwrap();
        let merged = TempDir::new().unwrap();
        model.save_merged(merged.path()).unwrap();
        assert_eq!(on, model.evaluate(&batch).unwrap());

        let settings = config(folder.path(), "adapter_config.json");
        assert_eq!(settings["trainable_token_indices"], indices);
        let tensors = tensors(&folder.path().join("adapter_model.safetensors"));
        let rows = tensors
            .iter()
            .filter(|(_, about, _)| about["shape"] == json!([2, HIDDEN]));
        let deltas = rows.filter(|(name, ..)| name.contains("trainable_tokens_delta"));
        assert_eq!(deltas.count(), if name == "qwen2_tied" { 1 } else { 2 });
        let shapes = tensors
            .iter()
            .map(|(_, about, _)| about["shape"][0].as_u64().unwrap());
        assert!(shapes.max() < Some(96), "{name}: no table is saved");

        // The adapter alone says how many rows there are.
        let beside = LoadOptions {
            adapter: Some(folder.path().to_owned()),
            ..LoadOptions::new(8)
        };
        let mut loaded = Model::load(&cpu(1), &base, &beside).unwrap();
        assert_eq!(loaded.logits(&batch).unwrap(), trained, "{name}");
        let mut whole = Model::load(&cpu(1), merged.path(), &LoadOptions::new(8)).unwrap();
        assert_eq!(whole.config().architecture().vocabulary, 98);
        let distance = tightrope_testkit::relative_distance(
            &whole.logits(&batch).unwrap(),
            &trained.iter().map(|&x| x.into()).collect::<Vec<f64>>(),
        );
        assert!(distance <= 1e-6, "{name}: {distance}");
        // A run that goes on.
        let mut again = train(&base, lora(), &options);
        again.read_adapter(folder.path()).unwrap();
        assert_eq!(again.logits(&batch).unwrap(), trained);
        assert_eq!(off, again.evaluate_with(&batch, Adapters::Off).unwrap());
    }
}

#[test]
fn whole_tables_can_be_trained_instead() {
    let options = new(&[(96, &[])]);
    let batch = batch(&[1, 96, 2, 5, 96]);
    let saved = LoraConfig {
        modules_to_save: vec!["embed_tokens".into(), "lm_head".into()],
        ..lora()
    };
    let kept = LoraConfig {
        modules_to_save: vec!["embed_tokens".into()],
        ensure_weight_tying: true,
        ..lora()
    };
    for (name, lora) in [
        ("llama_linear", saved.clone()),
        ("qwen2_tied", saved),
        ("qwen2_tied", kept),
    ] {
        let mut model = train(&case(name), lora, &options);
        let trained = change(&mut model, &batch);
        let folder = TempDir::new().unwrap();
        model.save_adapter(folder.path()).unwrap();
        let settings = config(folder.path(), "adapter_config.json");
        assert_eq!(settings.get("trainable_token_indices"), None);
        let beside = LoadOptions {
            adapter: Some(folder.path().to_owned()),
            ..LoadOptions::new(8)
        };
        let mut loaded = Model::load(&cpu(1), &case(name), &beside).unwrap();
        assert_eq!(loaded.logits(&batch).unwrap(), trained, "{name}");
    }
    // Full training has a gradient for every row.
    let mut full =
        TrainableModel::load(&cpu(1), &case("qwen2_tied"), &Training::Full, &options).unwrap();
    let (_, gradients) = step(&mut full, &[batch]);
    let (_, gradient) = gradients
        .iter()
        .find(|(name, _)| name == EMBEDDING)
        .unwrap();
    assert_eq!(gradient.len(), 97 * HIDDEN);
    assert!(gradient[96 * HIDDEN..].iter().any(|&x| x != 0.0));
}

#[test]
fn rows_in_bf16_are_rounded_as_the_table_is() {
    // The upper half of an f32 is a bf16.
    let base = TempDir::new().unwrap();
    std::fs::copy(
        case("qwen2_tied").join("config.json"),
        base.path().join("config.json"),
    )
    .unwrap();
    let mut all = tensors(&case("qwen2_tied").join("model.safetensors"));
    for (_, about, bytes) in &mut all {
        about["dtype"] = "BF16".into();
        let words = bytes.as_chunks::<4>().0.iter();
        *bytes = words.flat_map(|word| [word[2], word[3]]).collect();
    }
    common::files::write_tensors(&base.path().join("model.safetensors"), &all);
    let indices = TokenIndices::Embedding(vec![3, 4, 9]);
    let lora = LoraConfig {
        trainable_token_indices: Some(indices),
        ..lora()
    };
    let batch = batch(&[3, 1, 4, 9, 9, 2]);
    let mut model = train(base.path(), lora, &LoadOptions::new(8));
    let before = model.evaluate(&batch).unwrap();
    assert_eq!(before, model.evaluate_with(&batch, Adapters::Off).unwrap());
    let trained = change(&mut model, &batch);
    let merged = TempDir::new().unwrap();
    model.save_merged(merged.path()).unwrap();
    let mut whole = Model::load(&cpu(1), merged.path(), &LoadOptions::new(8)).unwrap();
    let distance = tightrope_testkit::relative_distance(
        &whole.logits(&batch).unwrap(),
        &trained.iter().map(|&x| x.into()).collect::<Vec<f64>>(),
    );
    assert!(distance <= 1e-2, "{distance}");
    assert_eq!(before, model.evaluate_with(&batch, Adapters::Off).unwrap());
}

/// A change of the settings of an adapter.
type Change<'a> = &'a dyn Fn(&mut LoraConfig);

#[test]
fn rows_that_cannot_be_trained_or_would_not_be_are_refused() {
    let list = |ids: &[u32]| Some(TokenIndices::Embedding(ids.to_vec()));
    let of =
        |name: &str, ids: &[u32]| Some(TokenIndices::ByModule(vec![(name.into(), ids.to_vec())]));
    let plain = new(&[]);
    let grown = new(&[(96, &[])]);
    let tied = "qwen2_tied";
    let cases: [(&str, &LoadOptions, Change<'_>, &str); 9] = [
        (
            tied,
            &plain,
            &|l| l.trainable_token_indices = list(&[96]),
            "has the id 96",
        ),
        (
            tied,
            &plain,
            &|l| l.trainable_token_indices = list(&[1, 1]),
            "has the id 1 twice",
        ),
        (
            tied,
            &plain,
            &|l| l.trainable_token_indices = of("q_proj", &[1]),
            "names `q_proj`",
        ),
        (
            tied,
            &plain,
            &|l| l.trainable_token_indices = of("lm_head", &[1]),
            "needs the rows of",
        ),
        (
            tied,
            &plain,
            &|l| {
                l.trainable_token_indices = list(&[1]);
                l.modules_to_save = vec!["lm_head".into()];
            },
            "`modules_to_save` both train `lm_head`",
        ),
        (
            tied,
            &grown,
            &|l| l.trainable_token_indices = list(&[1]),
            "leave the key out",
        ),
        (
            "llama_linear",
            &grown,
            &|l| l.trainable_token_indices = list(&[96]),
            "the new token 96 in `lm_head`",
        ),
        (
            tied,
            &grown,
            &|l| l.modules_to_save = vec!["embed_tokens".into()],
            "`lora.modules_to_save`: nothing trains the row of the new token 96",
        ),
        (
            "llama_linear",
            &plain,
            &|l| l.trainable_token_indices = of("x", &[1]),
            "names `x`",
        ),
    ];
    for (name, options, change, expected) in cases {
        let mut lora = lora();
        change(&mut lora);
        let lora = Training::Lora(lora);
        let error = TrainableModel::load(&cpu(1), &case(name), &lora, options).unwrap_err();
        let text = error.to_string();
        let about = text.starts_with("`lora.trainable_token_indices`: ");
        let about = about || expected.starts_with("`lora.");
        assert!(about && text.contains(expected), "{name}: {text}");
    }
}

#[test]
fn rows_have_their_gradients_whatever_the_batch_holds() {
    // No token of the batch is trained: the embedding's share is zero, the head's is not.
    let lora = LoraConfig {
        trainable_token_indices: Some(TokenIndices::ByModule(vec![
            ("embed_tokens".into(), vec![90]),
            ("lm_head".into(), vec![91]),
        ])),
        ..lora()
    };
    let mut model = train(&case("llama_linear"), lora, &LoadOptions::new(64));
    let (_, gradients) = step(&mut model, &[batch(&[1, 2, 3])]);
    let of = |part: &str| {
        let found = gradients.iter().find(|(name, _)| name.contains(part));
        found.unwrap().1.iter().any(|&x| x != 0.0)
    };
    assert!(!of("embed_tokens.token_adapter") && of("lm_head.token_adapter"));
}

#[test]
fn tables_with_factors_are_saved_if_they_have_new_rows() {
    let batch = batch(&[1, 96, 2, 5, 96]);
    let factors = LoraConfig {
        target_modules: TargetModules::list(["embed_tokens", "lm_head"]),
        ..lora()
    };
    for (new, tables) in [(&[][..], 0), (&[(96, &[3, 4][..])], 2)] {
        let options = self::new(new);
        let batch = if new.is_empty() {
            self::batch(&[1, 2, 5])
        } else {
            batch.clone()
        };
        let mut model = train(&case("llama_linear"), factors.clone(), &options);
        let off = model.evaluate_with(&batch, Adapters::Off).unwrap();
        assert_eq!(off, model.evaluate(&batch).unwrap());
        let trained = change(&mut model, &batch);
        assert_ne!(off, model.evaluate(&batch).unwrap());
        assert_eq!(off, model.evaluate_with(&batch, Adapters::Off).unwrap());
        let folder = TempDir::new().unwrap();
        model.save_adapter(folder.path()).unwrap();
        let saved = tensors(&folder.path().join("adapter_model.safetensors"));
        let whole = saved
            .iter()
            .filter(|(name, ..)| name.ends_with("base_layer.weight"));
        assert_eq!(whole.count(), tables);
        let beside = LoadOptions {
            adapter: Some(folder.path().to_owned()),
            ..LoadOptions::new(8)
        };
        let mut loaded = Model::load(&cpu(1), &case("llama_linear"), &beside).unwrap();
        assert_eq!(loaded.logits(&batch).unwrap(), trained);
        let mut again = train(&case("llama_linear"), factors.clone(), &options);
        again.read_adapter(folder.path()).unwrap();
        assert_eq!(again.logits(&batch).unwrap(), trained);
    }
}
