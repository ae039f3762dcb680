//! Tables of cosines and sines: values, segments, packing, errors.

use tightrope_rope::{RopeConfig, RopeError, RotaryEmbedding, Scaling, Yarn};

fn fill(rope: &RotaryEmbedding, segments: &[(u32, usize)]) -> (Vec<f32>, Vec<f32>) {
    let tokens: usize = segments.iter().map(|segment| segment.1).sum();
    let len = tokens * rope.rotary_dim() / 2;
    let (mut cos, mut sin) = (vec![f32::NAN; len], vec![f32::NAN; len]);
    rope.fill_tables(segments.iter().copied(), &mut cos, &mut sin)
        .unwrap();
    (cos, sin)
}

fn configs() -> Vec<RopeConfig> {
    let plain = RopeConfig::new(10_000.0, 16, 32);
    let scaled = |scaling| RopeConfig {
        scaling,
        ..plain.clone()
    };
    vec![
        plain.clone(),
        RopeConfig {
            partial_rotary_factor: 0.5,
            ..plain.clone()
        },
        scaled(Scaling::Linear { factor: 4.0 }),
        scaled(Scaling::Dynamic { factor: 2.0 }),
        scaled(Scaling::Yarn(Yarn {
            factor: 4.0,
            original_max_position_embeddings: 8,
            attention_factor: None,
            mscale: None,
            mscale_all_dim: None,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate: true,
        })),
        scaled(Scaling::LongRope {
            short_factor: vec![1.0; 8],
            long_factor: (1..9).map(f64::from).collect(),
            factor: None,
            attention_factor: None,
            original_max_position_embeddings: 8,
        }),
    ]
}

#[test]
fn rows_are_cosines_and_sines_of_position_times_frequency() {
    for config in configs() {
        let rope = RotaryEmbedding::new(&config).unwrap();
        let (cos, sin) = fill(&rope, &[(5, 3), (0, 2), (100_000, 1)]);
        let positions = [(5, 8), (6, 8), (7, 8), (0, 2), (1, 2), (100_000, 100_001)];
        let rows = cos
            .chunks(rope.rotary_dim() / 2)
            .zip(sin.chunks(rope.rotary_dim() / 2));
        for ((position, length), (cos, sin)) in positions.into_iter().zip(rows) {
            for (pair, frequency) in rope.inverse_frequencies(length).iter().enumerate() {
                let angle = f64::from(position) * f64::from(*frequency);
                let factor = rope.attention_factor();
                for (got, exact) in [
                    (cos[pair], factor * angle.cos()),
                    (sin[pair], factor * angle.sin()),
                ] {
                    assert_eq!(got, exact as f32, "{config:?} {position} {pair}");
                }
            }
        }
    }
}

#[test]
fn a_sequence_has_the_same_rows_in_any_pack() {
    for config in configs() {
        let rope = RotaryEmbedding::new(&config).unwrap();
        // Shorter and longer than the model was pretrained for, in both orders.
        let (short, long) = (fill(&rope, &[(0, 7)]), fill(&rope, &[(0, 50)]));
        let (first, second) = (
            fill(&rope, &[(0, 7), (0, 50)]),
            fill(&rope, &[(0, 50), (0, 7)]),
        );
        assert_eq!(first.0, [&short.0[..], &long.0].concat(), "{config:?}");
        assert_eq!(first.1, [&short.1[..], &long.1].concat());
        assert_eq!(second.0, [&long.0[..], &short.0].concat());
        assert_eq!(second.1, [&long.1[..], &short.1].concat());
    }
}

#[test]
fn nothing_is_written_for_no_segments_and_beyond_the_last() {
    let rope = RotaryEmbedding::new(&RopeConfig::new(1e4, 4, 32)).unwrap();
    let (mut cos, mut sin) = (vec![7.0; 8], vec![7.0; 9]);
    rope.fill_tables(std::iter::empty(), &mut cos, &mut sin)
        .unwrap();
    assert!(cos.iter().chain(&sin).all(|&value| value == 7.0));
    rope.fill_tables([(0, 1), (u32::MAX, 2)].into_iter(), &mut cos, &mut sin)
        .unwrap();
    assert_eq!((cos[0], sin[0]), (1.0, 0.0));
    assert!(cos[6..].iter().chain(&sin[6..]).all(|&value| value == 7.0));
}

#[test]
fn a_short_table_is_an_error() {
    let rope = RotaryEmbedding::new(&RopeConfig::new(1e4, 4, 32)).unwrap();
    for (cos_len, sin_len, name) in [(5, 6, "cos"), (6, 5, "sin")] {
        let (mut cos, mut sin) = (vec![0.0; cos_len], vec![0.0; sin_len]);
        let error = rope
            .fill_tables([(0, 3)].into_iter(), &mut cos, &mut sin)
            .unwrap_err();
        assert!(
            matches!(error, RopeError::TooShort { operand, needed: 6, got: 5 } if operand == name)
        );
    }
    let error = rope.fill_tables([(0, usize::MAX)].into_iter(), &mut [], &mut []);
    assert!(matches!(
        error,
        Err(RopeError::TooShort {
            needed: usize::MAX,
            ..
        })
    ));
}
