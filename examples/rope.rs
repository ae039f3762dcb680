//! Makes tables of cosines and sines for two sequences in one row: the second starts at position 0
//! again.
//!
//!   cargo run --release -p tightrope-rope --example rope

use serde_json::json;
use tightrope_rope::{RopeConfig, RotaryEmbedding};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Settings as in a model's config.json: YaRN, four times the trained length.
    let config = json!({"rope_theta": 10_000.0, "rope_scaling": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096,
    }});
    let config = config.as_object().ok_or("no object")?;
    let (head_dim, positions) = (64, 16_384);
    let rope = RotaryEmbedding::new(&RopeConfig::from_json(config, head_dim, positions)?)?;

    let segments = [(0, 3), (0, 2)]; // first position and length of each
    let (tokens, pairs) = (5, rope.rotary_dim() / 2);
    let (mut cos, mut sin) = (vec![0.0; tokens * pairs], vec![0.0; tokens * pairs]);
    rope.fill_tables(segments.into_iter(), &mut cos, &mut sin)?;
    for token in 0..tokens {
        let row = &cos[token * pairs..][..4];
        println!("token {token}: cos {row:.4?} …");
    }
    assert_eq!(cos[..2 * pairs], cos[3 * pairs..]);
    println!("both sequences start with the same rows");
    Ok(())
}
