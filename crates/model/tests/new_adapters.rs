//! New adapters: settings that choose nothing, and what is saved and read back.

mod common;

use common::{batchings, cpu, documents, files::case, options, step};
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;
use tightrope_device::Cpu;
use tightrope_model::{
    InitialFactors, LoadOptions, LoraConfig, Model, ModelError, ModuleNames, TargetModules,
    TrainableModel, TrainedBiases, Training,
};

const CASE: &str = "llama_biases";

/// A change of the settings of an adapter.
type Change<'a> = &'a dyn Fn(&mut LoraConfig);

fn fresh(lora: LoraConfig) -> Result<TrainableModel<Cpu>, ModelError> {
    let options = LoadOptions {
        seed: 3,
        ..LoadOptions::new(8)
    };
    TrainableModel::load(&cpu(1), &case(CASE), &Training::Lora(lora), &options)
}

fn settings(folder: &Path) -> Value {
    let bytes = std::fs::read(folder.join("adapter_config.json")).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn settings_that_choose_nothing_are_errors_of_the_run() {
    let names = |names: &[&str]| {
        names
            .iter()
            .map(|name| name.to_string())
            .collect::<Vec<_>>()
    };
    let expression = |text: &str| ModuleNames::Expression(text.into());
    let with = |change: Change<'_>| {
        let mut lora = LoraConfig::default();
        change(&mut lora);
        fresh(lora).map(|_| ()).unwrap_err().to_string()
    };
    let target = |text: &str| TargetModules::Named(expression(text));
    let cases: [(Change<'_>, &str); 20] = [
        (
            &|l| l.target_modules = target("q_proj"),
            "`lora.target_modules`: selects no linear layer",
        ),
        (
            &|l| l.target_modules = target("q_proj("),
            "`lora.target_modules`: is no regular expression",
        ),
        (
            &|l| l.target_modules = target(".*norm"),
            "`lora.target_modules`: selects `model.",
        ),
        (
            &|l| l.exclude_modules = Some(ModuleNames::List(names(&["qqq"]))),
            "`lora.exclude_modules`: `qqq` names no module",
        ),
        (
            &|l| l.exclude_modules = Some(expression("q_proj")),
            "`lora.exclude_modules`: matches no module",
        ),
        (
            &|l| l.layers = vec![0, 2],
            "`lora.layers`: there is no layer 2: the model has 2",
        ),
        (
            &|l| (l.layers, l.target_modules) = (vec![0], target(".*_proj")),
            "`lora.layers`: works with a list of target modules",
        ),
        (
            &|l| l.rank_pattern = vec![("q_proj".into(), 2), ("proj".into(), 3)],
            "`lora.rank_pattern.proj`: matches no module",
        ),
        (
            &|l| l.alpha_pattern = vec![("[".into(), 2.0)],
            "`lora.alpha_pattern.[`: is no regular expression",
        ),
        (
            &|l| l.modules_to_save = names(&["lm_haed"]),
            "`lora.modules_to_save`: `lm_haed` is the end of no module",
        ),
        (
            &|l| l.modules_to_save = names(&["q_proj"]),
            "`lora.modules_to_save`: `q_proj` names `model.layers.0.self_attn.q_proj`",
        ),
        (
            &|l| l.ensure_weight_tying = true,
            "`lora.ensure_weight_tying`: the head of this model",
        ),
        (
            &|l| (l.bias, l.target_modules) = (TrainedBiases::All, TargetModules::list(["o_proj"])),
            "",
        ),
        (&|l| l.layers = vec![7], "`lora.layers`"),
        (
            &|l| l.rank_pattern = vec![(".*_proj".into(), 2), ("q_proj".into(), 3)],
            "`lora.rank_pattern.q_proj`: never counts",
        ),
        (
            &|l| l.exclude_modules = Some(expression(".*")),
            "`lora.exclude_modules`: leaves out every module",
        ),
        (
            &|l| (l.dora, l.target_modules) = (true, TargetModules::list(["lm_head"])),
            "`lora.dora`: the embedding and the head have no magnitudes here",
        ),
        (
            &|l| {
                l.init = InitialFactors::Pissa;
                l.target_modules = TargetModules::list(["embed_tokens"]);
            },
            "`lora.init`: the embedding and the head cannot start",
        ),
        (
            &|l| {
                (l.ensure_weight_tying, l.target_modules) = (true, TargetModules::list(["lm_head"]))
            },
            "`lora.ensure_weight_tying`: the embedding and the head have factors",
        ),
        (
            // Positions are those of the text.
            &|l| l.target_modules = target("ab(c"),
            "`lora.target_modules`: is no regular expression that is understood here: Parsing error \
             at position 4",
        ),
    ];
    for (change, expected) in cases {
        if expected.is_empty() {
            // This model has biases.
            let mut lora = LoraConfig::default();
            change(&mut lora);
            fresh(lora).unwrap();
            continue;
        }
        let error = with(change);
        assert!(error.starts_with(expected), "{error}, not {expected}");
    }
    let lora = Training::Lora(LoraConfig {
        bias: TrainedBiases::LoraOnly,
        target_modules: TargetModules::list(["o_proj"]),
        ..LoraConfig::default()
    });
    let options = LoadOptions::new(8);
    let error = TrainableModel::load(&cpu(1), &case("qwen2_tied"), &lora, &options).unwrap_err();
    let error = error.to_string();
    assert!(
        error.starts_with("`lora.bias`: no layer with an adapter has a bias"),
        "{error}"
    );
}

#[test]
fn a_new_adapter_is_read_back_and_starts_from_the_model() {
    let lora = LoraConfig {
        r: 4,
        target_modules: TargetModules::Named(ModuleNames::Expression(".*_proj".into())),
        exclude_modules: Some(ModuleNames::List(vec!["up_proj".into()])),
        rank_pattern: vec![("(q|k)_proj".into(), 2)],
        alpha_pattern: vec![("q_proj".into(), 5.0)],
        bias: TrainedBiases::All,
        modules_to_save: vec!["embed_tokens".into(), "norm".into(), "lm_head".into()],
        ..LoraConfig::default()
    };
    a_new_adapter_comes_back(lora.clone());
    a_new_adapter_comes_back(LoraConfig { dora: true, ..lora });
}

fn a_new_adapter_comes_back(lora: LoraConfig) {
    let sequences = documents(&case(CASE));
    let (_, batches) = batchings(&sequences).remove(0);
    let load = |adapter: Option<&Path>| {
        let options = LoadOptions {
            adapter: adapter.map(Path::to_owned),
            ..options(&case(CASE), false, &sequences)
        };
        let training = Training::Lora(lora.clone());
        TrainableModel::load(&cpu(1), &case(CASE), &training, &options).unwrap()
    };
    let mut model = load(None);
    // A new adapter changes nothing.
    let logits = model.logits(&batches[0]).unwrap();
    let mut bare = Model::load(
        &cpu(1),
        &case(CASE),
        &options(&case(CASE), false, &sequences),
    );
    let expected = bare.as_mut().unwrap().logits(&batches[0]).unwrap();
    for (a, b) in logits.iter().zip(&expected) {
        // Norms that are computed in another order may differ in the last bit.
        let close = (a - b).abs() <= if lora.dora { 1e-5 } else { 0.0 };
        assert!(close, "{a} and {b}");
    }
    step(&mut model, &batches);
    for parameter in model.parameters() {
        let gradient = parameter.gradient.to_vec::<f32>().unwrap();
        let weight = parameter.weight.to_vec::<f32>().unwrap();
        let pairs = weight.iter().zip(&gradient);
        let next: Vec<f32> = pairs.map(|(w, g)| w - 0.1 * g).collect();
        parameter.weight.write(&next).unwrap();
    }
    let trained = model.logits(&batches[0]).unwrap();
    assert_ne!(trained, logits);
    let folder = TempDir::new().unwrap();
    model.save_adapter(folder.path()).unwrap();
    assert_eq!(
        load(Some(folder.path())).logits(&batches[0]).unwrap(),
        trained
    );
    // Read into a model with the same settings, as a run does that goes on.
    let mut again = load(None);
    again.read_adapter(folder.path()).unwrap();
    assert_eq!(again.logits(&batches[0]).unwrap(), trained);
    let settings = settings(folder.path());
    assert_eq!(settings["rank_pattern"], json!({"(q|k)_proj": 2}));
    assert_eq!(settings["alpha_pattern"], json!({"q_proj": 5}));
    assert_eq!(settings["bias"], "all");
    assert_eq!(settings["exclude_modules"], json!(["up_proj"]));
    assert_eq!(settings["target_modules"], ".*_proj");
}
