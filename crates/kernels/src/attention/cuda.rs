//! Attention on NVIDIA GPUs.

use super::{
    Attention, Backward, Config, Forward, Tiles,
    kernel::{AttentionForward, AttentionKeysBackward, AttentionQueriesBackward},
    ranges::{Range, TILE},
};
use crate::{Checked, KernelError};
use tightrope_device::{
    Cuda, DType, DeviceError,
    cuda::{Input, Launch, Output},
};

/// Sizes of the kernels for a head, as in `kernel.cu`.
#[derive(Clone, Copy)]
struct Sizes {
    /// Number of features of a head, rounded up.
    padded: usize,
    element: usize,
}

/// Head sizes that have kernels, with their names in symbols.
const PADDED: [(usize, &str); 4] = [(32, "32"), (64, "64"), (128, "128"), (256, "256")];
/// Largest number of columns of `dk` and `dv` that a block computes.
const COLUMNS: usize = 128;

impl Sizes {
    /// Returns the sizes and the last part of the variant. Returns an error for heads that are too
    /// large.
    fn of(
        operation: &'static str,
        dtype: DType,
        config: &Config<'_, Cuda>,
    ) -> Result<(Self, &'static str), DeviceError> {
        let head_dim = config.head_dim;
        let refuse = |variant| DeviceError::NoKernel { operation, variant };
        let mut sizes = PADDED.into_iter();
        let (padded, name) = sizes
            .find(|&(padded, _)| head_dim <= padded)
            .ok_or_else(|| refuse(format!("heads of {head_dim} features")))?;
        // Positions in a range are signed numbers.
        let ranges = config.ranges.as_slice();
        if let Some(range) = ranges.iter().find(|r| r.keys() > i32::MAX as u32) {
            return Err(refuse(format!("a sequence of {} tokens", range.keys())));
        }
        // So is the number of rows between a prefix and a range that reads it.
        let back = |range: &Range| range.key_start - range.prefix_start - range.prefix_len;
        let mut readers = ranges.iter().filter(|range| range.prefix_len > 0);
        if let Some(range) = readers.find(|range| back(range) > i32::MAX as u32) {
            return Err(refuse(format!("a prefix {} rows back", back(range))));
        }
        let element = dtype.size();
        Ok((Self { padded, element }, name))
    }

    fn is_f32(self) -> bool {
        self.element == 4
    }

    fn warps(self) -> usize {
        if self.is_f32() && self.padded >= 128 {
            2
        } else {
            4
        }
    }

    fn rows(self) -> usize {
        16 * self.warps()
    }

    fn stream(self) -> usize {
        let rows = if self.padded == 256 { 16 } else { 32 };
        rows * 2 / self.element
    }

    /// Bytes of the factors between two products, which only f32 stages.
    fn stage_bytes(self, columns: usize) -> usize {
        if self.is_f32() {
            self.warps() * 16 * (columns + 4) * size_of::<f32>()
        } else {
            0
        }
    }

    fn row_bytes(self) -> usize {
        self.padded * self.element
    }

    fn forward_bytes(self) -> usize {
        let keys = 2 * self.stream();
        (self.rows() + 2 * keys) * self.row_bytes() + self.stage_bytes(keys)
    }

    fn backward_bytes(self) -> usize {
        let statistics = 4 * self.stream() * size_of::<f32>();
        (2 * self.rows() + 4 * self.stream()) * self.row_bytes()
            + statistics
            + self.stage_bytes(self.stream())
    }

    /// Number of blocks that share a tile.
    fn parts(self) -> u32 {
        TILE / self.rows() as u32
    }

    fn launch(
        self,
        tiles: &Tiles<Cuda>,
        heads: usize,
        parts: u32,
        shared_bytes: usize,
    ) -> Result<Launch, DeviceError> {
        let launch = Launch::linear(tiles.len(), 32 * self.warps() as u32)?;
        let heads = u32::try_from(heads).unwrap_or(u32::MAX);
        Ok(Launch {
            grid: [launch.grid[0], heads, parts],
            ..launch
        }
        .shared(shared_bytes))
    }
}

fn window(config: &Config<'_, Cuda>) -> u32 {
    let window = config.window.and_then(|window| u32::try_from(window).ok());
    window.unwrap_or(u32::MAX)
}

impl Attention for Cuda {
    fn attention_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let (config, dtype) = (args.config, args.q.dtype());
        let (sizes, padded) = Sizes::of("attention_forward", dtype, &config)?;
        let tiles = config.ranges.query_tiles();
        let kernel = AttentionForward {
            q: Input::of(args.q),
            k: Input::of(args.k),
            v: Input::of(args.v),
            y: Output::of(args.y),
            lse: Output::of(args.lse),
            ranges: Input::of(config.ranges.tensor().view()),
            tiles: Input::of(tiles.tensor().view()),
            heads: config.heads as u32,
            kv_heads: config.kv_heads as u32,
            head_dim: config.head_dim as u32,
            scale: config.scale,
            window: window(&config),
            softcap: config.softcap.unwrap_or(0.0),
        };
        let shared = sizes.forward_bytes();
        let launch = sizes.launch(tiles, config.heads, sizes.parts(), shared)?;
        // SAFETY: the check of the arguments proved that every range lies in every operand, and the
        // tiles are made from the ranges.
        Ok(unsafe { self.launch(kernel, &[dtype.name(), padded], launch) }?)
    }

    fn attention_backward(&self, args: Checked<Backward<'_, Self>>) -> Result<(), KernelError> {
        let mut args = args.on(self)?;
        let (config, dtype) = (args.config, args.q.dtype());
        let (sizes, padded) = Sizes::of("attention_backward", dtype, &config)?;
        let variant = [dtype.name(), padded];
        let shared = sizes.backward_bytes();
        let (heads, kv_heads) = (config.heads as u32, config.kv_heads as u32);
        let head_dim = config.head_dim as u32;
        let softcap = config.softcap.unwrap_or(0.0);
        let tiles = config.ranges.query_tiles();
        let kernel = AttentionQueriesBackward {
            dy: Input::of(args.dy),
            y: Input::of(args.y),
            lse: Input::of(args.lse),
            q: Input::of(args.q),
            k: Input::of(args.k),
            v: Input::of(args.v),
            delta: Output::of(args.delta.reborrow()),
            dq: Output::of(args.dq),
            ranges: Input::of(config.ranges.tensor().view()),
            tiles: Input::of(tiles.tensor().view()),
            heads,
            kv_heads,
            head_dim,
            scale: config.scale,
            window: window(&config),
            softcap,
        };
        let launch = sizes.launch(tiles, config.heads, sizes.parts(), shared)?;
        // SAFETY: the check of the arguments proved that every range lies in every operand, and the
        // tiles are made from the ranges.
        unsafe { self.launch(kernel, &variant, launch) }?;
        let tiles = config.ranges.key_tiles();
        let kernel = AttentionKeysBackward {
            dy: Input::of(args.dy),
            lse: Input::of(args.lse),
            q: Input::of(args.q),
            k: Input::of(args.k),
            v: Input::of(args.v),
            delta: Input::of(args.delta.as_view()),
            dk: Output::of(args.dk),
            dv: Output::of(args.dv),
            ranges: Input::of(config.ranges.tensor().view()),
            tiles: Input::of(tiles.tensor().view()),
            heads,
            kv_heads,
            head_dim,
            scale: config.scale,
            window: window(&config),
            softcap,
        };
        let parts = sizes.parts() * sizes.padded.div_ceil(COLUMNS) as u32;
        let launch = sizes.launch(tiles, config.kv_heads, parts, shared)?;
        // SAFETY: the check of the arguments proved that every range lies in every operand, and the
        // tiles are made from the ranges.
        Ok(unsafe { self.launch(kernel, &variant, launch) }?)
    }
}
