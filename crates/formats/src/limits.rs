//! Larger than what any model has, and refused: nothing that a file claims decides how much memory
//! its reader takes.

/// Bytes of a header of safetensors (the reference implementation has the same bound), of the
/// metadata of a GGUF file, and of an index.
pub const LARGEST_HEADER: u64 = 100_000_000;

/// Tensors of a file, or of several with an index: a hundred times those of 400 layers.
pub const MOST_TENSORS: usize = 1 << 18;
