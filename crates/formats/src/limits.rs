//! Limits that exceed the sizes of every model: the claims of a file do not decide how much memory
//! its reader takes.

/// Largest size in bytes of a safetensors header (the reference implementation has the same bound),
/// of the metadata of a GGUF file, and of an index.
pub const LARGEST_HEADER: u64 = 100_000_000;

/// Largest number of tensors in a file, or in several files with an index: a hundred times those of
/// 400 layers.
pub const MOST_TENSORS: usize = 1 << 18;
