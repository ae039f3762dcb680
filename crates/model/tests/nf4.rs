//! Training on frozen NF4 weights equals training on their decoded values, bit for bit.

mod common;

use common::{
    batchings, cases, cpu, documents,
    files::{case, copy, tensors, write_tensors},
    options, step,
};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tightrope_device::{Cpu, DType, Tensor};
use tightrope_kernels::{
    Check,
    nf4::{self, Dequantize, Nf4, Scales, Weight},
};
use tightrope_model::{
    Backend, BaseStorage, LoadOptions, LoraConfig, Model, ModelConfig, ModelError, Plan,
    PlannedBuffer, Purpose, TrainableModel, Training,
};
use tightrope_testkit::{Random, cuda, relative_distance};

fn is_linear(name: &str) -> bool {
    name.ends_with("_proj.weight")
}

/// Decoded values of `elements` in NF4.
fn dequantized(elements: &[f32]) -> Vec<f32> {
    let cpu = &cpu(1);
    let quantized = nf4::quantize(cpu, elements);
    let scales = nf4::quantize_scales(&quantized.scales);
    let bytes = |bytes: &[u8]| Tensor::from_slice(cpu, &[bytes.len()], bytes).unwrap();
    let (codes, scale_codes) = (bytes(&quantized.codes), bytes(&scales.codes));
    let absmax = Tensor::from_slice(cpu, &[scales.absmax.len()], &scales.absmax).unwrap();
    let mut y = Tensor::zeros(cpu, DType::F32, &[elements.len()]).unwrap();
    let args = Dequantize {
        weight: Weight {
            codes: codes.view(),
            scales: Scales::Quantized {
                codes: scale_codes.view(),
                absmax: absmax.view(),
                offset: scales.offset,
            },
        },
        y: y.view_mut(),
        elements: elements.len(),
    };
    cpu.nf4_dequantize(args.checked().unwrap()).unwrap();
    y.to_vec().unwrap()
}

/// The case with every weight of a linear layer replaced.
fn replaced(case: &Path, by: impl Fn(&[f32]) -> Vec<f32>) -> TempDir {
    let folder = copy(case);
    let path = folder.path().join("model.safetensors");
    let mut all = tensors(&path);
    let linear = all.iter_mut().filter(|(name, _, _)| is_linear(name));
    for (_, _, bytes) in linear {
        let words = bytes.as_chunks::<4>().0.iter().copied();
        let elements: Vec<f32> = words.map(f32::from_le_bytes).collect();
        let elements = by(&elements).into_iter();
        *bytes = elements.flat_map(f32::to_le_bytes).collect();
    }
    write_tensors(&path, &all);
    folder
}

fn nf4(folder: &Path, case: &Path) -> LoadOptions {
    LoadOptions {
        base: BaseStorage::Nf4,
        adapter: Some(folder.join("adapter")),
        ..options(case, true, &documents(case))
    }
}

/// Results of a step and logits, as bits.
fn run<D: Backend>(device: &D, folder: &Path, case: &Path, options: &LoadOptions) -> Vec<u64> {
    let (_, batches) = batchings(&documents(case)).remove(0);
    let training = common::training(true);
    let mut model = TrainableModel::load(device, folder, &training, options).unwrap();
    let (loss, gradients) = step(&mut model, &batches);
    let logits = model.logits(&batches[0]).unwrap();
    let gradients = gradients.into_iter().flat_map(|(_, gradient)| gradient);
    let floats = gradients.chain(logits).map(|x| u64::from(x.to_bits()));
    [loss.to_bits()].into_iter().chain(floats).collect()
}

fn check_step<D: Backend>(device: &D, precision: DType, cases: &[PathBuf]) {
    for case in cases {
        let quantized = LoadOptions {
            precision,
            ..nf4(case, case)
        };
        let plain = LoadOptions {
            base: BaseStorage::AsStored,
            ..quantized.clone()
        };
        let folder = replaced(case, dequantized);
        let of_nf4 = run(device, case, case, &quantized);
        let of_floats = run(device, folder.path(), case, &plain);
        assert!(of_nf4 == of_floats, "{case:?}, {precision}");
    }
}

#[test]
fn a_step_is_that_of_the_dequantised_model() {
    check_step(&cpu(2), DType::F32, &cases());
    check_step(&cpu(2), DType::BF16, &cases());
    for case in cases() {
        let plain = options(&case, true, &documents(&case));
        let of_nf4 = run(&cpu(2), &case, &case, &nf4(&case, &case));
        assert!(of_nf4 != run(&cpu(2), &case, &case, &plain), "{case:?}");
    }
}

#[test]
fn a_step_is_that_of_the_dequantised_model_on_cuda() {
    let cases = ["gemma2", "llama_biases", "qwen3_window"].map(case);
    check_step(cuda(), DType::F32, &cases);
    check_step(cuda(), DType::BF16, &cases);
}

/// What DoRA does with floats is compared with PEFT elsewhere.
#[test]
fn magnitudes_on_nf4_are_those_of_the_dequantised_model() {
    for name in ["gemma2", "llama_biases", "qwen3_window"] {
        let case = case(name);
        let folder = replaced(&case, dequantized);
        let dora = Training::Lora(LoraConfig {
            r: 3,
            dora: true,
            ..LoraConfig::default()
        });
        let [of_nf4, of_floats] = [
            (&*case, BaseStorage::Nf4),
            (folder.path(), BaseStorage::AsStored),
        ]
        .map(|(folder, base)| {
            let options = LoadOptions {
                base,
                ..options(&case, true, &documents(&case))
            };
            let options = LoadOptions {
                adapter: None,
                ..options
            };
            let mut model = TrainableModel::load(&cpu(2), folder, &dora, &options).unwrap();
            for parameter in model.parameters() {
                let mut values = parameter.weight.to_f32_vec().unwrap();
                values
                    .iter_mut()
                    .enumerate()
                    .for_each(|(i, x)| *x = *x * 1.1 + 0.01 * (i % 3) as f32);
                parameter.weight.write(&values).unwrap();
            }
            let (_, batches) = batchings(&documents(&case)).remove(0);
            let (loss, gradients) = step(&mut model, &batches);
            (loss, gradients, model.logits(&batches[0]).unwrap())
        });
        assert!(of_nf4 == of_floats, "{name}");
    }
}

#[test]
fn recomputation_and_threads_change_no_bit() {
    for case in cases() {
        let options = nf4(&case, &case);
        let again = LoadOptions {
            recompute: true,
            ..options.clone()
        };
        let one = run(&cpu(1), &case, &case, &options);
        assert!(one == run(&cpu(3), &case, &case, &options), "{case:?}");
        assert!(one == run(&cpu(2), &case, &case, &again), "{case:?}");
    }
}

#[test]
fn weights_of_16_bits_are_quantised_as_their_values() {
    let case = case("llama_biases");
    let upper_half = |elements: &[f32]| -> Vec<f32> {
        let cut = |x: &f32| f32::from_bits(x.to_bits() & 0xffff_0000);
        elements.iter().map(cut).collect()
    };
    let whole = replaced(&case, upper_half);
    let halves = replaced(&case, upper_half);
    let path = halves.path().join("model.safetensors");
    let mut all = tensors(&path);
    let linear = all.iter_mut().filter(|(name, _, _)| is_linear(name));
    for (_, description, bytes) in linear {
        description["dtype"] = "BF16".into();
        let words = bytes.as_chunks::<4>().0.iter();
        *bytes = words.flat_map(|word| [word[2], word[3]]).collect();
    }
    write_tensors(&path, &all);
    let run = |folder: &Path| run(&cpu(1), folder, &case, &nf4(&case, &case));
    assert!(run(whole.path()) == run(halves.path()));
}

/// The buffers of a model's weights.
fn weights(plan: &Plan) -> impl Iterator<Item = &PlannedBuffer> {
    let buffers = plan.buffers().iter();
    buffers.filter(|buffer| buffer.purpose == Purpose::Weights)
}

#[test]
fn only_linear_layers_of_the_decoder_are_quantised() {
    for case in cases() {
        let model = Model::load(&cpu(1), &case, &nf4(&case, &case)).unwrap();
        let plain = LoadOptions {
            base: BaseStorage::AsStored,
            ..nf4(&case, &case)
        };
        let plain = Model::load(&cpu(1), &case, &plain).unwrap();
        let mut quantised = weights(model.plan());
        for before in weights(plain.plan()) {
            let after = quantised.next().unwrap();
            assert_eq!(before.name, after.name);
            if !is_linear(&before.name) {
                assert_eq!(before, after);
                continue;
            }
            let elements: usize = before.shape.iter().product();
            assert_eq!(
                (after.dtype, after.bytes()),
                (DType::U8, elements.div_ceil(2))
            );
            let absmax = quantised.next().unwrap();
            assert_eq!(absmax.name, format!("{}.absmax", before.name));
            assert_eq!(absmax.bytes(), elements.div_ceil(64));
            let nested = quantised.next().unwrap();
            assert_eq!(nested.name, format!("{}.nested_absmax", before.name));
            assert_eq!(nested.bytes(), 4 * elements.div_ceil(64 * 256));
        }
        assert!(quantised.next().is_none());
    }
}

/// The sizes of Llama 3 8B.
fn llama_3_8b() -> ModelConfig {
    let settings = serde_json::json!({
        "model_type": "llama",
        "vocab_size": 128_256,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        "max_position_embeddings": 8192,
    });
    ModelConfig::from_json(&settings).unwrap()
}

#[test]
fn eight_billion_parameters_fit_six_gigabytes() {
    let config = llama_3_8b();
    let bytes = |base| {
        let options = LoadOptions {
            base,
            precision: DType::BF16,
            ..LoadOptions::new(4096)
        };
        let plan = Plan::new(&config, None, &options, DType::BF16).unwrap();
        plan.bytes_for(Purpose::Weights)
    };
    // 6,979,321,856 elements of linear layers, 1,050,673,152 of embedding and head, 65 norms.
    let linear = 6_979_321_856;
    let others = 2 * 1_050_673_152 + 4 * 65 * 4096;
    assert_eq!(bytes(BaseStorage::AsStored), 2 * linear + others);
    let nf4 = linear / 2 + linear / 64 + linear / (64 * 256) * 4;
    assert_eq!(bytes(BaseStorage::Nf4), nf4 + others);
    assert!(nf4 + others < 6_000_000_000);
}

#[test]
fn what_is_in_nf4_cannot_be_trained() {
    let case = case("llama_biases");
    let options = LoadOptions {
        adapter: None,
        ..nf4(&case, &case)
    };
    let full = Training::Full;
    let error = TrainableModel::load(&cpu(1), &case, &full, &options).unwrap_err();
    assert!(matches!(error, ModelError::Unsupported(reason) if reason.contains("NF4")));
    let config = ModelConfig::read(&case).unwrap();
    let error = Plan::new(&config, Some(&full), &options, DType::BF16).unwrap_err();
    assert!(matches!(error, ModelError::Unsupported(_)));
}

#[test]
fn a_merged_model_is_what_the_weights_stand_for() {
    for case in cases() {
        let sequences = documents(&case);
        let (_, batches) = batchings(&sequences).remove(0);
        for adapter in [None, Some(case.join("adapter"))] {
            let options = LoadOptions {
                adapter: adapter.clone(),
                ..nf4(&case, &case)
            };
            let mut model = Model::load(&cpu(1), &case, &options).unwrap();
            let expected = model.logits(&batches[0]).unwrap();
            let folder = TempDir::new().unwrap();
            model.save_merged(folder.path()).unwrap();
            let options = LoadOptions {
                adapter: None,
                base: BaseStorage::AsStored,
                ..options
            };
            let mut merged = Model::load(&cpu(1), folder.path(), &options).unwrap();
            let logits = merged.logits(&batches[0]).unwrap();
            for (a, b) in logits.iter().zip(&expected) {
                let bound = if adapter.is_some() {
                    2e-5 * b.abs().max(1.0)
                } else {
                    0.0
                };
                assert!((a - b).abs() <= bound, "{case:?}: {a} and {b}");
            }
        }
    }
}

#[test]
fn fresh_models_are_quantised_too() {
    let config = ModelConfig::read(&case("qwen3_window")).unwrap();
    let sequences = documents(&case("qwen3_window"));
    let (_, batches) = batchings(&sequences).remove(0);
    let model = |base| -> Model<Cpu> {
        let options = LoadOptions {
            adapter: None,
            base,
            ..nf4(&case("qwen3_window"), &case("qwen3_window"))
        };
        Model::random(&cpu(1), config.clone(), &options).unwrap()
    };
    let logits = model(BaseStorage::Nf4).logits(&batches[0]).unwrap();
    let plain = model(BaseStorage::AsStored).logits(&batches[0]).unwrap();
    let plain: Vec<f64> = plain.iter().map(|&x| x.into()).collect();
    // The weights are the same up to their quantisation, which is off by 9 % of a normal
    // distribution.
    let distance = relative_distance(&logits, &plain);
    assert!(distance > 0.01 && distance < 0.5, "{distance}");
}

#[test]
fn a_normal_distribution_keeps_nine_tenths() {
    let elements = Random::new(1).normal(1 << 16, 0.02);
    let expected: Vec<f64> = elements.iter().map(|&x| x.into()).collect();
    let distance = relative_distance(&dequantized(&elements), &expected);
    assert!(distance > 0.08 && distance < 0.1, "{distance}");
}
