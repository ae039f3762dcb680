//! Embedding on NVIDIA GPUs.

use super::{
    Backward, Embedding, Forward,
    kernel::{
        EmbeddingBackward, EmbeddingCountIds, EmbeddingForward, EmbeddingOrderTokens,
        EmbeddingSumCounts,
    },
};
use crate::{Checked, KernelError};
use tightrope_device::{
    Cuda, DType, Device, DeviceError,
    cuda::{Input, Launch, Output},
};

/// Number of threads in a warp, and of warps in a block.
const LANES: u32 = 32;
const WARPS: u32 = 8;
/// Largest number of blocks along y in a grid.
const GRID_Y: usize = 65_535;
/// Number of bits that one pass of the sort looks at.
const DIGIT_BITS: u32 = 8;
const DIGITS: usize = 1 << DIGIT_BITS;
/// Smallest number of tokens in a tile of the sort, and largest number of tiles.
const TILE: usize = 512;
const TILES: usize = 256;

/// A grid of `rows` warps along x and `columns` along y.
fn grid(rows: usize, columns: usize) -> Result<Launch, DeviceError> {
    let linear = Launch::linear(rows.div_ceil(WARPS as usize), LANES)?;
    Ok(Launch {
        grid: [linear.grid[0], columns.min(GRID_Y) as u32, 1],
        block: [LANES, WARPS, 1],
        ..linear
    })
}

/// Number of warps for `hidden` features; a thread takes `step` at a time if they are a multiple.
fn columns(hidden: usize, step: usize) -> usize {
    let step = if hidden.is_multiple_of(step) { step } else { 1 };
    hidden.div_ceil(LANES as usize * step)
}

/// Number of elements in 16 bytes.
fn width(dtype: DType) -> usize {
    16 / dtype.size()
}

impl Embedding for Cuda {
    fn embedding_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let (table, y) = (args.table.dtype(), args.y.dtype());
        let largest = args.tokens.max(args.vocabulary);
        let variant = [
            table.name(),
            y.name(),
            self.index_width(largest.saturating_mul(args.hidden))
                .suffix(),
        ];
        let step = width(table).min(width(y));
        let launch = grid(args.tokens, columns(args.hidden, step))?;
        let kernel = EmbeddingForward {
            ids: Input::of(args.ids),
            table: Input::of(args.table),
            scale: args.scale,
            y: Output::of(args.y),
            tokens: args.tokens as u64,
            vocabulary: args.vocabulary as u64,
            hidden: args.hidden as u64,
        };
        // SAFETY: the check of the arguments proved every operand; the kernel reads no row outside
        // the table.
        Ok(unsafe { self.launch(kernel, &variant, launch) }?)
    }

    fn embedding_backward(&self, args: Checked<Backward<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        if args.tokens == 0 {
            return Ok(());
        }
        let tokens = u32::try_from(args.tokens).map_err(|_| DeviceError::NoKernel {
            operation: "embedding_backward",
            variant: format!("{} tokens", args.tokens),
        })?;
        let vocabulary = args.vocabulary as u64;
        let largest = args.tokens.max(args.vocabulary);
        let variant = [
            args.dy.dtype().name(),
            self.index_width(largest.saturating_mul(args.hidden))
                .suffix(),
        ];

        let tile = args.tokens.div_ceil(TILES).max(TILE);
        let tiles = args.tokens.div_ceil(tile);
        let entries = DIGITS * tiles;
        let mut order = self.scratch(DType::U32, &[args.tokens])?;
        let mut sorted = self.scratch(DType::U32, &[args.tokens])?;
        let mut counts = self.scratch(DType::U32, &[entries])?;
        let per_tile = grid(tiles, 1)?;
        // There is one pass even if all ids are 0, because it writes the order.
        let bits = vocabulary
            .saturating_sub(1)
            .checked_ilog2()
            .map_or(1, |bit| bit + 1);
        for shift in (0..bits).step_by(DIGIT_BITS as usize) {
            let is_first = shift == 0;
            let kernel = EmbeddingCountIds {
                ids: Input::of(args.ids),
                order: match is_first {
                    true => Input::NONE,
                    false => Input::of(order.view()),
                },
                counts: Output::of(counts.view_mut()),
                tokens,
                vocabulary,
                tile: tile as u32,
                tiles: tiles as u32,
                shift,
            };
            // SAFETY: there are `tokens` ids; after the first pass the order has as many places,
            // each a token's number; and there is a count for each digit of each tile.
            unsafe { self.launch(kernel, &[], per_tile) }?;
            let kernel = EmbeddingSumCounts {
                counts: Output::of(counts.view_mut()),
                entries: entries as u32,
            };
            // SAFETY: there are this many counts.
            unsafe { self.launch(kernel, &[], Launch::linear(1, 1024)?) }?;
            let kernel = EmbeddingOrderTokens {
                ids: Input::of(args.ids),
                order: match is_first {
                    true => Input::NONE,
                    false => Input::of(order.view()),
                },
                places: Input::of(counts.view()),
                sorted: Output::of(sorted.view_mut()),
                tokens,
                vocabulary,
                tile: tile as u32,
                tiles: tiles as u32,
                shift,
            };
            // SAFETY: the operands are those of the counts, which give a place below `tokens` for
            // each token.
            unsafe { self.launch(kernel, &[], per_tile) }?;
            std::mem::swap(&mut order, &mut sorted);
        }

        let windows = args.tokens.div_ceil(LANES as usize);
        let step = width(args.dy.dtype()).min(width(DType::F32));
        let launch = grid(windows, columns(args.hidden, step))?;
        let kernel = EmbeddingBackward {
            ids: Input::of(args.ids),
            order: Input::of(order.view()),
            dy: Input::of(args.dy),
            scale: args.scale,
            dtable: Output::of(args.dtable),
            tokens,
            hidden: args.hidden as u64,
        };
        // SAFETY: the check of the arguments proved every operand; the order has every token once,
        // and the sort found no id outside the table.
        Ok(unsafe { self.launch(kernel, &variant, launch) }?)
    }
}
