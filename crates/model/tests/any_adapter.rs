//! Adapters on any linear layers with any ranks: training, evaluation, generation and the merged
//! model agree, for every family, recomputed or not, on the processor and on a GPU.

mod common;

use common::{capacity, cases, cpu, documents, files::write_tensors, step, whole};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::path::Path;
use tempfile::TempDir;
use tightrope_device::Cpu;
use tightrope_model::{
    Adapters, Architecture, Backend, LoadOptions, LoraConfig, Model, ModelConfig, TrainableModel,
    Training,
};
use tightrope_packing::{Batch, Piece};
use tightrope_testkit::{Random, cuda, relative_distance};

const MODULES: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];
const RANK: usize = 5;

/// A model of one of the golden cases with this number of layers, and the rank of each adapter.
#[derive(Clone, Debug)]
struct Draw {
    case: usize,
    /// For each layer, the rank of the adapter on each of [`MODULES`]; 0 = none.
    ranks: Vec<[usize; 7]>,
    rslora: bool,
    dora: bool,
    seed: u64,
}

fn draw() -> impl Strategy<Value = Draw> {
    // Most have none, so that layers differ in which they have.
    let rank = prop_oneof![3 => Just(0), 1 => Just(RANK), 2 => 1..9usize];
    let layer = proptest::array::uniform7(rank);
    let ranks = proptest::collection::vec(layer, 1..5);
    let ranks = ranks.prop_filter("no adapter at all", |ranks| {
        ranks.iter().flatten().any(|&rank| rank > 0)
    });
    let flags = (any::<bool>(), any::<bool>());
    (0..cases().len(), ranks, flags, any::<u64>()).prop_map(
        |(case, ranks, (rslora, dora), seed)| Draw {
            case,
            ranks,
            rslora,
            dora,
            seed,
        },
    )
}

/// Every adapter: layer, module, rank.
fn adapters(draw: &Draw) -> impl Iterator<Item = (String, &'static str, usize)> {
    let layers = draw.ranks.iter().enumerate();
    let all = layers.flat_map(|(layer, ranks)| {
        let modules = MODULES.into_iter().zip(*ranks);
        modules.map(move |(module, rank)| (format!("model.layers.{layer}.{module}"), module, rank))
    });
    all.filter(|(_, _, rank)| *rank > 0)
}

fn sizes(architecture: &Architecture, module: &str) -> (usize, usize) {
    let (hidden, inner) = (architecture.hidden, architecture.intermediate);
    let (queries, keys) = (architecture.q_features(), architecture.kv_features());
    match module {
        "self_attn.q_proj" => (hidden, queries),
        "self_attn.o_proj" => (queries, hidden),
        "self_attn.k_proj" | "self_attn.v_proj" => (hidden, keys),
        "mlp.down_proj" => (inner, hidden),
        _ => (hidden, inner),
    }
}

/// The case's configuration with the drawn number of layers, and new weights.
fn write_base(draw: &Draw, case: &Path, folder: &Path) -> Architecture {
    let text = std::fs::read_to_string(case.join("config.json")).unwrap();
    let mut settings: Value = serde_json::from_str(&text).unwrap();
    let layers = draw.ranks.len();
    settings["num_hidden_layers"] = json!(layers);
    for key in ["layer_types", "no_rope_layers"] {
        if let Some(list) = settings[key].as_array() {
            let repeated: Vec<Value> = list.iter().cycle().take(layers).cloned().collect();
            settings[key] = json!(repeated);
        }
    }
    let config = ModelConfig::from_json(&settings).unwrap();
    let architecture = config.architecture().clone();
    let model = Model::random(&cpu(1), config, &options(None, false, 1)).unwrap();
    model.save_merged(folder).unwrap();
    architecture
}

/// An adapter whose factors are all far from zero.
fn write_adapter(draw: &Draw, architecture: &Architecture, folder: &Path) {
    let mut random = Random::new(draw.seed);
    let (mut names, mut pattern, mut tensors) = (Vec::new(), Map::new(), Vec::new());
    for (name, module, rank) in adapters(draw) {
        let (inputs, outputs) = sizes(architecture, module);
        for (letter, shape) in [("A", [rank, inputs]), ("B", [outputs, rank])] {
            let elements = (0..shape[0] * shape[1]).map(|_| 0.4 * (random.uniform() - 0.5) as f32);
            let bytes = elements.flat_map(f32::to_le_bytes).collect();
            tensors.push((
                format!("base_model.model.{name}.lora_{letter}.weight"),
                json!({"dtype": "F32", "shape": shape}),
                bytes,
            ));
        }
        if draw.dora {
            let elements = (0..outputs).map(|_| 0.5 + random.uniform() as f32);
            tensors.push((
                format!("base_model.model.{name}.lora_magnitude_vector"),
                json!({"dtype": "F32", "shape": [outputs]}),
                elements.flat_map(f32::to_le_bytes).collect(),
            ));
        }
        if rank != RANK {
            pattern.insert(name.clone(), json!(rank));
        }
        names.push(name);
    }
    write_tensors(&folder.join("adapter_model.safetensors"), &tensors);
    let settings = json!({
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": 6,
        "rank_pattern": pattern,
        "target_modules": names,
        "use_dora": draw.dora,
        "use_rslora": draw.rslora,
    });
    std::fs::write(folder.join("adapter_config.json"), settings.to_string()).unwrap();
}

fn options(adapter: Option<&Path>, recompute: bool, capacity: usize) -> LoadOptions {
    LoadOptions {
        adapter: adapter.map(Path::to_owned),
        recompute,
        seed: 5,
        ..LoadOptions::new(capacity)
    }
}

fn close(what: &str, draw: &Draw, actual: &[f32], expected: &[f32]) {
    let expected: Vec<f64> = expected.iter().map(|&x| x.into()).collect();
    let distance = relative_distance(actual, &expected);
    // This form fails if the distance is NaN.
    let close = distance < 1e-4;
    assert!(close, "{what}: {distance:e}, {draw:?}");
}

/// The logits after each token, read with a cache.
fn cached<D: Backend>(model: &mut Model<D>, tokens: &[u32], prompt: usize) -> Vec<f32> {
    let mut cache = model.cache(tokens.len()).unwrap();
    let mut logits = model.prefill(&mut cache, &tokens[..prompt]).unwrap();
    for &token in &tokens[prompt..] {
        logits.extend(model.decode(&mut cache, token).unwrap());
    }
    logits
}

fn check<D: Backend>(device: &D, draw: &Draw) {
    let case = &cases()[draw.case];
    let folder = TempDir::new().unwrap();
    let [base, adapter, merged] = ["base", "adapter", "merged"].map(|name| {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    });
    let architecture = write_base(draw, case, &base);
    write_adapter(draw, &architecture, &adapter);
    let sequences = documents(case);
    let room = capacity(&sequences);
    let pieces: Vec<Piece> = (0..sequences.len()).map(|i| whole(&sequences, i)).collect();
    let batch = Batch::packed(&sequences, &pieces).unwrap();

    // Trained, with everything kept and recomputed.
    let [kept, recomputed] = [false, true].map(|recompute| {
        let lora = Training::Lora(LoraConfig::default());
        let options = options(Some(&adapter), recompute, room);
        let mut model = TrainableModel::load(device, &base, &lora, &options).unwrap();
        step(&mut model, std::slice::from_ref(&batch))
    });
    assert!(kept == recomputed, "recomputation changes bits: {draw:?}");
    let (loss, gradients) = kept;
    let each = if draw.dora { 3 } else { 2 };
    assert_eq!(gradients.len(), each * adapters(draw).count());
    for (name, gradient) in &gradients {
        let trained = gradient.iter().any(|&g| g != 0.0) && gradient.iter().all(|g| g.is_finite());
        assert!(trained, "{name}: {draw:?}");
    }

    // Evaluated and read for generation.
    let load = |path: &Path, adapter| {
        let options = options(adapter, false, room);
        Model::load(device, path, &options).unwrap()
    };
    let mut model = load(&base, Some(&adapter));
    let evaluated = model.evaluate(&batch).unwrap().mean().unwrap();
    assert!((evaluated / loss - 1.0).abs() < 1e-6, "{evaluated}, {loss}");
    let logits = model.logits(&batch).unwrap();
    let tokens = sequences[0].tokens();
    let name = case.file_name().unwrap().to_string_lossy();
    // Frequencies that depend on the length change while a text grows.
    let by_length = name.contains("dynamic") || name.contains("longrope");
    let prompt = if by_length {
        tokens.len()
    } else {
        tokens.len().div_ceil(2)
    };
    let rows = architecture.vocabulary * (prompt - 1)..architecture.vocabulary * tokens.len();
    let read = cached(&mut model, tokens, prompt);
    close("generation", draw, &read, &logits[rows]);

    // Merged, which adds each adapter to the weight of its name.
    Model::load(
        &Cpu::new(1).unwrap(),
        &base,
        &options(Some(&adapter), false, 1),
    )
    .unwrap()
    .save_merged(&merged)
    .unwrap();
    let mut merged = load(&merged, None);
    close("merged", draw, &merged.logits(&batch).unwrap(), &logits);
    let mut bare = load(&base, None);
    let without = bare.logits(&batch).unwrap();
    assert_ne!(without, logits, "the adapter changes nothing: {draw:?}");
    // When it is switched off, the adapter has no effect.
    let off = model.evaluate_with(&batch, Adapters::Off).unwrap();
    let bare = bare.evaluate(&batch).unwrap();
    assert!(off.per_token == bare.per_token, "{draw:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

    #[test]
    fn all_passes_agree(draw in draw()) {
        check(&cpu(1), &draw);
    }
}

proptest! {
    // The emulator takes its time.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4) })]

    #[test]
    fn all_passes_agree_on_cuda(draw in draw()) {
        check(cuda(), &draw);
    }
}
