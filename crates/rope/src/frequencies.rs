//! Inverse frequencies and attention factors of each scaling.
//!
//! Every step is rounded to f32 where the reference (Transformers' `modeling_rope_utils.py`) rounds
//! it, because models were trained with those frequencies. Powers are the exception: they are
//! computed in f64 and rounded once, while those of the reference are sometimes off by one unit in
//! the last place.

use crate::{RopeConfig, RopeError, Scaling, Yarn};
use std::f64::consts::{PI, TAU};

/// `base^(2i/dim)` for each pair `i`.
fn powers(base: f64, dim: usize) -> impl Iterator<Item = f32> {
    let base = f64::from(base as f32);
    (0..dim / 2).map(move |pair| {
        let exponent = (2 * pair) as f32 / dim as f32;
        base.powf(f64::from(exponent)) as f32
    })
}

/// Inverse frequencies for a sequence of `length` positions.
pub(crate) fn inverse_frequencies(config: &RopeConfig, length: u64) -> Vec<f32> {
    let dim = config.rotary_dim();
    let unscaled = powers(config.theta, dim).map(|power| 1.0 / power);
    match &config.scaling {
        Scaling::Default => unscaled.collect(),
        Scaling::Linear { factor } => unscaled.map(|f| f / *factor as f32).collect(),
        Scaling::Dynamic { factor } => {
            let base = dynamic_base(config, *factor, length);
            powers(base, dim).map(|power| 1.0 / power).collect()
        }
        Scaling::Yarn(yarn) => yarn_frequencies(config.theta, dim, yarn),
        Scaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => {
            let original = *original_max_position_embeddings as f64;
            let (low, high) = (*low_freq_factor, *high_freq_factor);
            let factor = *factor as f32;
            let smooth = |frequency: f32| {
                let wavelength = TAU as f32 / frequency;
                if wavelength < (original / high) as f32 {
                    frequency
                } else if wavelength > (original / low) as f32 {
                    frequency / factor
                } else {
                    let share = (original as f32 / wavelength - low as f32) / (high - low) as f32;
                    (1.0 - share) * frequency / factor + share * frequency
                }
            };
            unscaled.map(smooth).collect()
        }
        Scaling::LongRope {
            short_factor,
            long_factor,
            original_max_position_embeddings,
            ..
        } => {
            let long = length > *original_max_position_embeddings as u64;
            let factors = if long { long_factor } else { short_factor };
            let powers = powers(config.theta, dim);
            let divide = |(power, &factor): (f32, &f64)| 1.0 / (factor as f32 * power);
            powers.zip(factors).map(divide).collect()
        }
    }
}

/// Base whose longest wavelength is stretched by the ratio by which the sequence is too long.
fn dynamic_base(config: &RopeConfig, factor: f64, length: u64) -> f64 {
    let max = config.max_position_embeddings as f64;
    let dim = config.rotary_dim() as f64;
    let length = (length as f64).max(max);
    config.theta * (factor * length / max - (factor - 1.0)).powf(dim / (dim - 2.0))
}

fn yarn_frequencies(base: f64, dim: usize, yarn: &Yarn) -> Vec<f32> {
    // Dimension that turns `rotations` times within the positions of the pretraining.
    let dimension = |rotations: f64| {
        let original = yarn.original_max_position_embeddings as f64;
        dim as f64 * (original / (rotations * 2.0 * PI)).ln() / (2.0 * base.ln())
    };
    let (mut low, mut high) = (dimension(yarn.beta_fast), dimension(yarn.beta_slow));
    if yarn.truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    let (low, mut high) = (low.max(0.0), high.min(dim as f64 - 1.0));
    if low == high {
        high += 0.001;
    }
    let blend = |(pair, power): (usize, f32)| {
        let ramp = ((pair as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
        let kept = 1.0 - ramp;
        let stretched = 1.0 / (yarn.factor as f32 * power);
        stretched * (1.0 - kept) + 1.0 / power * kept
    };
    powers(base, dim).enumerate().map(blend).collect()
}

/// Factor of cos and sin.
pub(crate) fn attention_factor(config: &RopeConfig) -> f64 {
    match &config.scaling {
        Scaling::Yarn(yarn) => {
            let of = |mscale: f64| match yarn.factor {
                factor if factor <= 1.0 => 1.0,
                factor => 0.1 * mscale * factor.ln() + 1.0,
            };
            let inferred = match (yarn.mscale, yarn.mscale_all_dim) {
                (Some(mscale), Some(all)) => of(mscale) / of(all),
                _ => of(1.0),
            };
            yarn.attention_factor.unwrap_or(inferred)
        }
        Scaling::LongRope {
            factor,
            attention_factor,
            original_max_position_embeddings,
            ..
        } => {
            let original = *original_max_position_embeddings as f64;
            let factor = factor.unwrap_or(config.max_position_embeddings as f64 / original);
            attention_factor.unwrap_or(match factor {
                factor if factor <= 1.0 => 1.0,
                factor => (1.0 + factor.ln() / original.ln()).sqrt(),
            })
        }
        _ => 1.0,
    }
}

/// Returns an error for a parameter without meaning.
pub(crate) fn check(config: &RopeConfig) -> Result<(), RopeError> {
    let positive = |name, value: f64| match value.is_finite() && value > 0.0 {
        true => Ok(()),
        false => Err(RopeError::Value {
            name,
            value,
            rule: "must be finite and greater than 0",
        }),
    };
    let rule = |fits: bool, name, value: f64, rule| match fits {
        true => Ok(()),
        false => Err(RopeError::Value { name, value, rule }),
    };
    positive("rope_theta", config.theta)?;
    let share = config.partial_rotary_factor;
    let fits = share > 0.0 && share <= 1.0;
    rule(fits, "partial_rotary_factor", share, "must be in (0, 1]")?;
    let dim = config.rotary_dim();
    let even = dim > 0 && dim.is_multiple_of(2);
    rule(
        even,
        "rotary_dim",
        dim as f64,
        "must be even and at least 2",
    )?;
    let max = config.max_position_embeddings as f64;
    let original = match &config.scaling {
        Scaling::Default => return Ok(()),
        Scaling::Linear { factor } => return positive("factor", *factor),
        Scaling::Dynamic { factor } => {
            positive("max_position_embeddings", max)?;
            rule(
                dim > 2,
                "rotary_dim",
                dim as f64,
                "must be at least 4 for `dynamic`",
            )?;
            // Below 1 the base would shrink with the length and finally become negative.
            let fits = factor.is_finite() && *factor >= 1.0;
            return rule(fits, "factor", *factor, "must be finite and at least 1");
        }
        Scaling::Yarn(yarn) => {
            positive("factor", yarn.factor)?;
            positive("beta_fast", yarn.beta_fast)?;
            positive("beta_slow", yarn.beta_slow)?;
            rule(
                config.theta > 1.0,
                "rope_theta",
                config.theta,
                "must exceed 1 for `yarn`",
            )?;
            yarn.original_max_position_embeddings
        }
        Scaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => {
            positive("factor", *factor)?;
            positive("low_freq_factor", *low_freq_factor)?;
            let fits = high_freq_factor.is_finite() && high_freq_factor > low_freq_factor;
            rule(
                fits,
                "high_freq_factor",
                *high_freq_factor,
                "must exceed low_freq_factor",
            )?;
            *original_max_position_embeddings
        }
        Scaling::LongRope {
            short_factor,
            long_factor,
            factor,
            original_max_position_embeddings,
            ..
        } => {
            for (name, factors) in [("short_factor", short_factor), ("long_factor", long_factor)] {
                if factors.len() != dim / 2 {
                    return Err(RopeError::Factors {
                        name,
                        needed: dim / 2,
                        got: factors.len(),
                    });
                }
                factors
                    .iter()
                    .try_for_each(|&factor| positive(name, factor))?;
            }
            positive("factor", factor.unwrap_or(1.0))?;
            *original_max_position_embeddings
        }
    };
    let at_least_2 = original >= 2;
    let name = "original_max_position_embeddings";
    rule(at_least_2, name, original as f64, "must be at least 2")?;
    let factor = attention_factor(config);
    positive("attention_factor", factor)
}
