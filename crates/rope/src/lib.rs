//! Rotary position embeddings: frequencies, scalings and the fused rotation of Q and K.
#![deny(missing_docs)]

mod error;
mod rotate;

pub use error::RopeError;
pub use rotate::{Direction, Heads, Pairing, Rope, Rotate};
