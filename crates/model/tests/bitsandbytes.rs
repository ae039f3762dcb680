//! Weights quantised by bitsandbytes: their results in Transformers and PEFT, and one test for each
//! way in which they can be wrong.

mod common;

use common::{
    Expected, batchings, cpu, documents,
    files::{case, change_json, tensors, write_tensors},
    step,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tightrope_device::DType;
use tightrope_formats::FormatError;
use tightrope_model::{
    Backend, BaseStorage, LoadOptions, Model, ModelConfig, ModelError, Plan, Purpose,
    TrainableModel, Training,
};
use tightrope_testkit::{cuda, relative_distance};

const CASE: &str = "llama_biases";
/// Weight of the first layer's queries.
const WEIGHT: &str = "model.layers.0.self_attn.q_proj.weight";
const STATE: &str = "quant_state.bitsandbytes__nf4";

/// Quantised scales, of bf16; and plain scales, of f32.
fn kinds() -> [PathBuf; 2] {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bitsandbytes");
    ["double", "plain"].map(|kind| root.join(kind))
}

fn options() -> LoadOptions {
    LoadOptions {
        adapter: Some(case(CASE).join("adapter")),
        ..LoadOptions::new(common::capacity(&documents(&case(CASE))))
    }
}

fn check<D: Backend>(device: &D) {
    let (_, batches) = batchings(&documents(&case(CASE))).remove(0);
    for folder in kinds() {
        let expected = Expected::open(&folder.join("expected_lora.safetensors"));
        let training = common::training(true);
        let mut model = TrainableModel::load(device, &folder, &training, &options()).unwrap();
        let logits = model.logits(&batches[0]).unwrap();
        let distance = relative_distance(&logits, &expected.get("logits"));
        assert!(distance <= 1e-5, "{folder:?}: {distance:e}");
        let (loss, gradients) = step(&mut model, &batches);
        let distance = (loss / expected.get("loss")[0] - 1.0).abs();
        assert!(distance <= 1e-5, "{folder:?}: {distance:e}");
        let names = expected.names();
        let count = names.iter().filter(|name| name.starts_with("grad."));
        assert_eq!(gradients.len(), count.count());
        for (name, gradient) in gradients {
            let expected = expected.get(&format!("grad.{name}"));
            let distance = relative_distance(&gradient, &expected);
            assert!(distance <= 1e-4, "{folder:?}: {name}: {distance:e}");
        }
    }
}

#[test]
fn logits_and_gradients_are_those_of_peft() {
    check(&cpu(2));
}

#[test]
fn logits_and_gradients_are_those_of_peft_on_cuda() {
    check(cuda());
}

#[test]
fn what_is_quantised_is_kept_whatever_is_asked_for() {
    for folder in kinds() {
        let load = |base| {
            let options = LoadOptions { base, ..options() };
            let model = Model::load(&cpu(1), &folder, &options).unwrap();
            let config = ModelConfig::read(&folder).unwrap();
            assert!(config.is_quantized());
            let dtype = model.plan().buffers()[0].dtype;
            let plan = Plan::new(&config, None, &options, dtype);
            assert_eq!(*model.plan(), plan.unwrap());
            model.plan().bytes_for(Purpose::Weights)
        };
        assert_eq!(load(BaseStorage::AsStored), load(BaseStorage::Nf4));
    }
    let options = LoadOptions {
        adapter: None,
        ..options()
    };
    let error = TrainableModel::load(&cpu(1), &kinds()[0], &Training::Full, &options).unwrap_err();
    assert!(matches!(error, ModelError::Unsupported(reason) if reason.contains("NF4")));
}

#[test]
fn our_own_quantisation_has_the_same_bytes() {
    // Compared with the model that was quantised: the same codes, and logits that differ only by
    // the mean of the scales.
    let (_, batches) = batchings(&documents(&case(CASE))).remove(0);
    let own = LoadOptions {
        base: BaseStorage::Nf4,
        ..options()
    };
    let own = Model::load(&cpu(1), &case(CASE), &own)
        .unwrap()
        .logits(&batches[0]);
    let expected = Expected::open(&kinds()[1].join("expected_lora.safetensors"));
    // Quantised scales are off by up to 2 %, most of them by far less.
    let distance = relative_distance(&own.unwrap(), &expected.get("logits"));
    assert!(distance > 1e-5 && distance < 1e-2, "{distance:e}");
}

#[test]
fn merging_gives_a_model_that_is_not_quantised() {
    let (_, batches) = batchings(&documents(&case(CASE))).remove(0);
    for folder in kinds() {
        let mut model = Model::load(&cpu(1), &folder, &options()).unwrap();
        let expected = model.logits(&batches[0]).unwrap();
        let merged = TempDir::new().unwrap();
        model.save_merged(merged.path()).unwrap();
        let config = std::fs::read_to_string(merged.path().join("config.json")).unwrap();
        assert!(!config.contains("quantization_config"));
        let plain = LoadOptions {
            adapter: None,
            ..options()
        };
        let mut merged = Model::load(&cpu(1), merged.path(), &plain).unwrap();
        let logits = merged.logits(&batches[0]).unwrap();
        let expected: Vec<f64> = expected.iter().map(|&x| x.into()).collect();
        // Weights go back to the type that they were quantised from.
        let bound = if folder.ends_with("double") {
            1e-2
        } else {
            1e-5
        };
        let distance = relative_distance(&logits, &expected);
        assert!(distance <= bound, "{folder:?}: {distance:e}");
    }
}

/// A copy of the first kind with other tensors and settings.
fn changed(
    tensors_by: impl FnOnce(&mut Vec<(String, Value, Vec<u8>)>),
    settings_by: impl FnOnce(&mut Value),
) -> Result<(), ModelError> {
    let folder = TempDir::new().unwrap();
    let [from, _] = kinds();
    let mut all = tensors(&from.join("model.safetensors"));
    tensors_by(&mut all);
    write_tensors(&folder.path().join("model.safetensors"), &all);
    let config = folder.path().join("config.json");
    std::fs::copy(from.join("config.json"), &config).unwrap();
    change_json(&config, settings_by);
    let plain = LoadOptions {
        adapter: None,
        ..options()
    };
    Model::load(&cpu(1), folder.path(), &plain).map(|_| ())
}

type Tensors = Vec<(String, Value, Vec<u8>)>;

fn find<'a>(tensors: &'a mut Tensors, part: &str) -> &'a mut (String, Value, Vec<u8>) {
    let name = if part.is_empty() {
        WEIGHT.to_string()
    } else {
        format!("{WEIGHT}.{part}")
    };
    tensors
        .iter_mut()
        .find(|(found, _, _)| *found == name)
        .unwrap()
}

#[test]
fn settings_of_other_kinds_of_quantisation_are_named() {
    assert!(changed(|_| (), |_| ()).is_ok());
    for (key, value) in [
        ("quant_method", json!("gptq")),
        ("quant_method", Value::Null),
        ("load_in_4bit", json!(false)),
        ("load_in_4bit", json!("yes")),
        ("bnb_4bit_quant_type", json!("fp4")),
        ("bnb_4bit_quant_type", Value::Null),
        ("bnb_4bit_quant_storage", json!("bfloat16")),
        ("bnb_4bit_use_double_quant", json!(2)),
    ] {
        let change = |config: &mut Value| config["quantization_config"][key] = value.clone();
        let error = changed(|_| (), change).unwrap_err();
        let expected = format!("quantization_config.{key}");
        let named = matches!(&error, ModelError::Config { error, .. } if error.key == expected);
        assert!(named, "{key} = {value}: {error}");
    }
    let error = changed(|_| (), |config| config["quantization_config"] = json!(4)).unwrap_err();
    assert!(matches!(error, ModelError::Config { .. }));
    // Without the setting, bytes are no weights.
    let error = changed(|_| (), |config| config["quantization_config"] = Value::Null);
    assert!(matches!(
        error,
        Err(ModelError::Format(FormatError::TensorDType { .. }))
    ));
}

#[test]
fn states_that_cannot_be_read_are_named() {
    for (key, value) in [
        ("quant_type", json!("fp4")),
        ("blocksize", json!(128)),
        ("dtype", json!("float8")),
        ("shape", json!([32, 31])),
        ("shape", json!([1u64 << 40, 1u64 << 40])),
        ("nested_blocksize", json!(128)),
        ("nested_blocksize", Value::Null),
        ("nested_dtype", json!("bfloat16")),
        ("nested_offset", json!(1e300)),
        ("nested_offset", Value::Null),
    ] {
        let error = changed(
            |tensors| {
                let (_, description, bytes) = find(tensors, STATE);
                let mut state: Value = serde_json::from_slice(bytes).unwrap();
                state[key] = value.clone();
                *bytes = state.to_string().into_bytes();
                description["shape"] = json!([bytes.len()]);
            },
            |_| (),
        );
        let error = error.unwrap_err();
        let named = matches!(&error, ModelError::Quantization { tensor, .. } if tensor == WEIGHT);
        assert!(named, "{key} = {value}: {error}");
    }
    let broken = changed(|tensors| find(tensors, STATE).2[0] = b'!', |_| ());
    assert!(matches!(
        broken,
        Err(ModelError::Format(FormatError::Json { .. }))
    ));
    let other = changed(
        |tensors| {
            let name = &mut find(tensors, STATE).0;
            *name = name.replace("nf4", "fp4");
        },
        |_| (),
    );
    assert!(
        matches!(other, Err(ModelError::Quantization { reason, .. }) if reason.contains("fp4"))
    );
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    // A missing part, a part that is too short, and maps with other values.
    for part in ["absmax", "quant_map", "nested_absmax", "nested_quant_map"] {
        let name = format!("{WEIGHT}.{part}");
        let missing = changed(|all| all.retain(|(found, _, _)| *found != name), |_| ());
        let named = matches!(&missing, Err(ModelError::Format(FormatError::Missing { tensor, .. })) if *tensor == name);
        assert!(named, "{part}");
        let short = changed(
            |tensors| {
                let (_, description, bytes) = find(tensors, part);
                let size = if part == "absmax" { 1 } else { 4 };
                bytes.truncate(bytes.len() - size);
                description["shape"] = json!([bytes.len() / size]);
            },
            |_| (),
        );
        let named =
            matches!(&short, Err(ModelError::Quantization { tensor, .. }) if tensor == WEIGHT);
        assert!(named, "{part}");
    }
    for part in ["quant_map", "nested_quant_map"] {
        let other = changed(
            |tensors| {
                let bytes = &mut find(tensors, part).2;
                bytes[8..12].copy_from_slice(&0.5f32.to_le_bytes());
            },
            |_| (),
        );
        assert!(
            matches!(other, Err(ModelError::Quantization { .. })),
            "{part}"
        );
    }
    // A shape that differs from the model's, and bytes without a purpose.
    let misshapen = changed(
        |tensors| {
            let (_, description, bytes) = find(tensors, STATE);
            let mut state: Value = serde_json::from_slice(bytes).unwrap();
            state["shape"] = json!([16, 64]);
            *bytes = state.to_string().into_bytes();
            description["shape"] = json!([bytes.len()]);
        },
        |_| (),
    );
    assert!(matches!(misshapen, Err(ModelError::Shape { .. })));
    let alone = changed(
        |tensors| tensors.retain(|(name, _, _)| !name.starts_with(&format!("{WEIGHT}."))),
        |_| (),
    );
    assert!(
        matches!(alone, Err(ModelError::Format(FormatError::TensorDType { tensor, .. })) if tensor == WEIGHT)
    );
}

#[test]
fn only_weights_of_linear_layers_may_be_quantised() {
    let error = changed(
        |tensors| {
            // The head has as many elements as three such weights.
            tensors.retain(|(name, _, _)| name != "lm_head.weight");
            let parts: Tensors = tensors
                .iter()
                .filter(|(name, _, _)| name.starts_with(WEIGHT))
                .cloned()
                .collect();
            for (name, mut description, mut bytes) in parts {
                let part = name.strip_prefix(WEIGHT).unwrap().to_string();
                if part.is_empty() || part == ".absmax" {
                    bytes = bytes.repeat(3);
                    description["shape"] = json!([bytes.len()]);
                }
                if part.ends_with(STATE) {
                    let mut state: Value = serde_json::from_slice(&bytes).unwrap();
                    state["shape"] = json!([96, 32]);
                    bytes = state.to_string().into_bytes();
                    description["shape"] = json!([bytes.len()]);
                }
                tensors.push((format!("lm_head.weight{part}"), description, bytes));
            }
        },
        |_| (),
    );
    let error = error.unwrap_err();
    let named = matches!(&error, ModelError::Format(FormatError::TensorDType { tensor, dtype, .. })
        if tensor == "lm_head.weight" && dtype == "NF4");
    assert!(named, "{error}");
}

#[test]
fn layers_may_be_left_as_they_were() {
    // The layer as it was before the quantisation.
    let module = WEIGHT.trim_end_matches(".weight");
    let original = tensors(&case(CASE).join("model.safetensors"));
    let original = original
        .into_iter()
        .find(|(name, _, _)| name == WEIGHT)
        .unwrap();
    let loaded = changed(
        |tensors| {
            tensors.retain(|(name, _, _)| !name.starts_with(WEIGHT));
            tensors.push(original);
        },
        |config| config["quantization_config"]["llm_int8_skip_modules"] = json!([module]),
    );
    assert!(loaded.is_ok());
    let settings = std::fs::read_to_string(kinds()[0].join("config.json")).unwrap();
    let mut settings: Value = serde_json::from_str(&settings).unwrap();
    settings["quantization_config"]["llm_int8_skip_modules"] = json!(["lm_head", module]);
    let config = ModelConfig::from_json(&settings).unwrap();
    let plan = Plan::new(&config, None, &options(), DType::BF16).unwrap();
    for buffer in plan.buffers() {
        if buffer.name.ends_with("_proj.weight") {
            let expected = if buffer.name == WEIGHT {
                DType::BF16
            } else {
                DType::U8
            };
            assert_eq!(buffer.dtype, expected, "{}", buffer.name);
        }
    }
}
