//! Fused operations of language models with hand-written backward passes, one folder for each.
#![doc = include_str!("../README.md")]
//!
//! An operation is a trait over [`Device`](tightrope_device::Device) without default methods: it
//! compiles only with both forward and backward. Its arguments are a struct with named fields;
//! [`Check::checked`] proves shapes and types once, and every implementation takes the proof
//! ([`Checked`]).
//!
//! Activations live in buffers laid out for a capacity: an operation reads and writes the first
//! `tokens` rows of each and requires only that the buffer is long enough. Parameters have exactly
//! the shape that the documentation states. Everything is row-major and contiguous.
//!
//! On the CPU, results do not depend on the number of threads, and the result of a token does not
//! depend on its place in the row. Operations on rows and elements run on the calling thread up to
//! 65,536 elements.
#![deny(missing_docs)]

pub mod absmax;
pub mod adafactor;
pub mod adamw;
pub mod adamw_8bit;
pub mod attention;
#[cfg(feature = "cuda")]
pub mod cast;
mod check;
mod cpu;
pub mod dora;
pub mod dynamic_map;
pub mod embedding;
mod error;
pub mod glu;
pub mod linear;
pub mod linear_cross_entropy;
pub mod lion;
mod moment;
pub mod muon;
pub mod nf4;
pub mod noise;
#[cfg(feature = "cuda")]
mod partials;
pub mod product;
pub mod qk_norm_rope;
pub mod rms_norm;
pub mod rope;
pub mod schedule_free;
pub mod sum_of_squares;

pub use check::{Check, Checked, Operands};
pub use error::KernelError;

/// A device that has every operation.
pub trait Kernels:
    absmax::Absmax
    + adafactor::Adafactor
    + adamw::AdamW
    + adamw_8bit::AdamW8bit
    + attention::Attention
    + dora::Dora
    + embedding::Embedding
    + glu::Glu
    + linear::Linear
    + linear_cross_entropy::LinearCrossEntropy
    + lion::Lion
    + muon::Muon
    + nf4::Nf4
    + noise::Noise
    + product::Product
    + qk_norm_rope::QkNormRope
    + rms_norm::RmsNorm
    + rope::Rope
    + schedule_free::ScheduleFree
    + sum_of_squares::SumOfSquares
{
}

impl<D> Kernels for D where
    D: absmax::Absmax
        + adafactor::Adafactor
        + adamw::AdamW
        + adamw_8bit::AdamW8bit
        + attention::Attention
        + dora::Dora
        + embedding::Embedding
        + glu::Glu
        + linear::Linear
        + linear_cross_entropy::LinearCrossEntropy
        + lion::Lion
        + muon::Muon
        + nf4::Nf4
        + noise::Noise
        + product::Product
        + qk_norm_rope::QkNormRope
        + rms_norm::RmsNorm
        + rope::Rope
        + schedule_free::ScheduleFree
        + sum_of_squares::SumOfSquares
{
}
