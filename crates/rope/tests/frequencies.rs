//! Compares frequencies with those of Transformers, and tests configurations without meaning.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use tightrope_rope::{RopeConfig, RopeError, RotaryEmbedding, Scaling, Yarn};

/// Allowed difference of a frequency in units in the last place: powers are correctly rounded here
/// and within one unit in the reference, and at most three more roundings follow.
const FREQUENCY_ULPS: u32 = 3;

fn object(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

fn read(config: &Value, layer_type: Option<&str>) -> Result<RopeConfig, RopeError> {
    let map = object(config.clone());
    let size = |key: &str| map[key].as_u64().unwrap() as usize;
    let (head_dim, max) = (size("head_dim"), size("max_position_embeddings"));
    match layer_type {
        Some(layer_type) => RopeConfig::from_json_for_layers(&map, layer_type, head_dim, max),
        None => RopeConfig::from_json(&map, head_dim, max),
    }
}

#[test]
fn frequencies_and_attention_factors_are_those_of_transformers() {
    let golden: Value = serde_json::from_str(include_str!("golden/frequencies.json")).unwrap();
    let (mut kinds, mut different, mut all) = (BTreeMap::<String, usize>::new(), 0, 0);
    for case in golden["cases"].as_array().unwrap() {
        let config = read(&case["config"], case["layer_type"].as_str()).unwrap();
        let rope = RotaryEmbedding::new(&config).unwrap();
        let name = format!("{} {:?}", case["kind"], config.scaling);
        let factor = case["attention_factor"].as_f64().unwrap();
        let close = (rope.attention_factor() - factor).abs() <= 1e-15 * factor;
        assert!(close, "{name}: {} {factor}", rope.attention_factor());
        for (length, expected) in case["inverse_frequencies"].as_object().unwrap() {
            let expected: Vec<f32> = serde_json::from_value(expected.clone()).unwrap();
            let got = rope.inverse_frequencies(length.parse().unwrap());
            assert_eq!(got.len(), expected.len(), "{name}");
            assert_eq!(2 * got.len(), rope.rotary_dim());
            for (pair, (got, expected)) in got.iter().zip(&expected).enumerate() {
                let ulps = got.to_bits().abs_diff(expected.to_bits());
                assert!(
                    ulps <= FREQUENCY_ULPS,
                    "{name} {length} [{pair}]: {got} {expected}"
                );
                all += 1;
                different += usize::from(ulps > 0);
            }
        }
        *kinds
            .entry(case["kind"].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    println!("{different} of {all} frequencies differ from the reference");
    let known = ["default", "dynamic", "linear", "llama3", "longrope", "yarn"];
    assert!(kinds.keys().eq(known.iter()), "{kinds:?}");
    assert!(kinds.values().all(|&count| count >= 3), "{kinds:?}");
}

#[test]
fn length_changes_the_frequencies_of_two_scalings_only() {
    let golden: Value = serde_json::from_str(include_str!("golden/frequencies.json")).unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let config = read(&case["config"], case["layer_type"].as_str()).unwrap();
        let rope = RotaryEmbedding::new(&config).unwrap();
        let changes = rope.inverse_frequencies(1) != rope.inverse_frequencies(1 << 30);
        let depends = matches!(
            config.scaling,
            Scaling::Dynamic { .. } | Scaling::LongRope { .. }
        );
        assert_eq!(changes, depends, "{config:?}");
    }
}

#[test]
fn absent_and_null_settings_mean_the_default() {
    for config in [
        json!({}),
        json!({"rope_scaling": null, "rope_parameters": {}, "rope_theta": null}),
    ] {
        let read = RopeConfig::from_json(&object(config), 64, 2048).unwrap();
        assert_eq!(read, RopeConfig::new(10_000.0, 64, 2048));
    }
}

#[test]
fn a_configuration_that_cannot_be_read_says_where() {
    type Expected = fn(&RopeError) -> bool;
    let cases: [(Value, Expected); 9] = [
        (
            json!({"rope_scaling": "linear"}),
            |e| matches!(e, RopeError::Json { key, .. } if key == "rope_scaling"),
        ),
        (
            json!({"rope_theta": "big"}),
            |e| matches!(e, RopeError::Json { key, .. } if key == "rope_theta"),
        ),
        (
            json!({"rope_scaling": {"rope_type": 1}}),
            |e| matches!(e, RopeError::Json { key, .. } if key == "rope_type"),
        ),
        (json!({"rope_scaling": {"type": "linear"}}), |e| {
            matches!(e, RopeError::Missing { key: "factor" })
        }),
        (
            json!({"rope_scaling": {"type": "linear", "factor": [2]}}),
            |e| matches!(e, RopeError::Json { key, .. } if key == "factor"),
        ),
        (
            json!({"rope_scaling": {"type": "longrope", "short_factor": [1, "x"]}}),
            |e| matches!(e, RopeError::Json { key, .. } if key == "short_factor"),
        ),
        (
            json!({"rope_scaling": {"type": "yarn", "original_max_position_embeddings": -1}}),
            |e| matches!(e, RopeError::Json { .. }),
        ),
        (
            json!({"rope_scaling": {"type": "mrope"}}),
            |e| matches!(e, RopeError::UnknownScaling { name } if name == "mrope"),
        ),
        (
            json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
            |e| matches!(e, RopeError::Json { key, .. } if key == "full_attention"),
        ),
    ];
    for (config, expected) in cases {
        let error = RopeConfig::from_json(&object(config.clone()), 64, 2048).unwrap_err();
        assert!(expected(&error), "{config}: {error}");
    }
    let config = object(json!({"rope_parameters": {"sliding_attention": 3}}));
    let error = RopeConfig::from_json_for_layers(&config, "sliding_attention", 64, 2048);
    assert!(matches!(error, Err(RopeError::Json { .. })));
}

#[test]
fn messages_of_hostile_values_stay_short() {
    let config = object(json!({"rope_scaling": "x".repeat(1 << 20)}));
    let error = RopeConfig::from_json(&config, 64, 2048).unwrap_err();
    assert!(error.to_string().len() < 200);
}

#[test]
fn values_without_meaning_are_refused() {
    let good = RopeConfig::new(10_000.0, 64, 2048);
    let llama3 = |factor, low, high, original| Scaling::Llama3 {
        factor,
        low_freq_factor: low,
        high_freq_factor: high,
        original_max_position_embeddings: original,
    };
    let yarn = |factor, original, beta_fast| {
        Scaling::Yarn(Yarn {
            factor,
            original_max_position_embeddings: original,
            attention_factor: None,
            mscale: None,
            mscale_all_dim: None,
            beta_fast,
            beta_slow: 1.0,
            truncate: true,
        })
    };
    let long = |short: Vec<f64>, attention_factor| Scaling::LongRope {
        short_factor: short,
        long_factor: vec![1.0; 32],
        factor: None,
        attention_factor,
        original_max_position_embeddings: 1024,
    };
    let scaled = |scaling| RopeConfig {
        scaling,
        ..good.clone()
    };
    let refused: Vec<(&str, RopeConfig)> = vec![
        (
            "rope_theta",
            RopeConfig {
                theta: 0.0,
                ..good.clone()
            },
        ),
        (
            "rope_theta",
            RopeConfig {
                theta: f64::NAN,
                ..good.clone()
            },
        ),
        (
            "inverse frequency",
            RopeConfig {
                theta: 1e-60,
                ..good.clone()
            },
        ),
        (
            "partial_rotary_factor",
            RopeConfig {
                partial_rotary_factor: 1.5,
                ..good.clone()
            },
        ),
        (
            "partial_rotary_factor",
            RopeConfig {
                partial_rotary_factor: f64::NAN,
                ..good.clone()
            },
        ),
        (
            "rotary_dim",
            RopeConfig {
                head_dim: 0,
                ..good.clone()
            },
        ),
        (
            "rotary_dim",
            RopeConfig {
                head_dim: 63,
                ..good.clone()
            },
        ),
        (
            "rotary_dim",
            RopeConfig {
                partial_rotary_factor: 0.01,
                ..good.clone()
            },
        ),
        ("factor", scaled(Scaling::Linear { factor: 0.0 })),
        ("factor", scaled(Scaling::Dynamic { factor: 0.5 })),
        (
            "rotary_dim",
            RopeConfig {
                head_dim: 2,
                ..scaled(Scaling::Dynamic { factor: 2.0 })
            },
        ),
        (
            "max_position_embeddings",
            RopeConfig {
                max_position_embeddings: 0,
                ..scaled(Scaling::Dynamic { factor: 2.0 })
            },
        ),
        ("factor", scaled(yarn(f64::INFINITY, 1024, 32.0))),
        (
            "original_max_position_embeddings",
            scaled(yarn(2.0, 0, 32.0)),
        ),
        ("beta_fast", scaled(yarn(2.0, 1024, -1.0))),
        (
            "rope_theta",
            RopeConfig {
                theta: 1.0,
                ..scaled(yarn(2.0, 1024, 32.0))
            },
        ),
        ("factor", scaled(llama3(-1.0, 1.0, 4.0, 1024))),
        ("low_freq_factor", scaled(llama3(8.0, 0.0, 4.0, 1024))),
        ("high_freq_factor", scaled(llama3(8.0, 4.0, 4.0, 1024))),
        (
            "original_max_position_embeddings",
            scaled(llama3(8.0, 1.0, 4.0, 0)),
        ),
        ("short_factor", scaled(long(vec![1.0; 31], None))),
        ("short_factor", scaled(long(vec![0.0; 32], None))),
        ("attention_factor", scaled(long(vec![1.0; 32], Some(-1.0)))),
    ];
    RotaryEmbedding::new(&good).unwrap();
    for (expected, config) in refused {
        match RotaryEmbedding::new(&config).unwrap_err() {
            RopeError::Value { name, .. } | RopeError::Factors { name, .. } => {
                assert_eq!(name, expected, "{config:?}");
            }
            other => panic!("{config:?}: {other}"),
        }
    }
}
