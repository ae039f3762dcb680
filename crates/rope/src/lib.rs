//! Rotary position embeddings: frequencies, scalings and the fused rotation of Q and K.
#![doc = include_str!("../README.md")]
#![deny(missing_docs)]

mod config;
mod embedding;
mod error;
mod frequencies;
mod rotate;

pub use config::{RopeConfig, Scaling, Yarn};
pub use embedding::RotaryEmbedding;
pub use error::RopeError;
pub use rotate::{Direction, Heads, Pairing, Rope, Rotate};
