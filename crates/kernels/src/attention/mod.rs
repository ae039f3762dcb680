//! Variable-length causal attention: block-diagonal over ranges, grouped queries, sliding window.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod kernel;
#[cfg(test)]
mod tests;

use crate::{Check, Checked, KernelError, check::Operands};
use std::cmp::Reverse;
use tightrope_device::{DType, Device, DeviceError, Tensor, View, ViewMut};

/// One sequence: some of its queries, and all keys that they may see.
///
/// The last query has the position of the last key: query `i` of `query_len` sees keys `0..=i +
/// key_len − query_len` of its range. In training, queries and keys are the same rows; in
/// generation, the keys are the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First row in `q`.
    pub query_start: u32,
    /// Number of rows in `q`.
    pub query_len: u32,
    /// First row in `k` and `v`.
    pub key_start: u32,
    /// Number of rows in `k` and `v`, at least `query_len`.
    pub key_len: u32,
    /// First row in `k` and `v` of a prefix that all queries see before their own keys.
    pub prefix_start: u32,
    /// Number of rows of the prefix. No kernel computes a prefix yet: more than 0 rows are refused.
    pub prefix_len: u32,
}

impl Range {
    /// A range with as many queries as keys, in the same rows.
    pub fn rows(start: u32, len: u32) -> Self {
        Self {
            query_start: start,
            query_len: len,
            key_start: start,
            key_len: len,
            ..Self::default()
        }
    }
}

/// Number of rows in a tile of [`Ranges`].
const TILE: u32 = 64;

/// The ranges of a batch, on the host and on the device; they are set once per batch and read by
/// every layer. The memory grows to the largest batch and is kept.
#[derive(Debug)]
pub struct Ranges<D: Device> {
    ranges: Vec<Range>,
    device: Tensor<D>,
    query_tiles: Tiles<D>,
    key_tiles: Tiles<D>,
}

/// Pieces of up to 64 rows of the ranges, in the order in which a GPU processes them.
#[derive(Debug)]
pub struct Tiles<D: Device> {
    tiles: Vec<[u32; 2]>,
    device: Tensor<D>,
}

impl<D: Device> Ranges<D> {
    /// An empty list of ranges.
    pub fn empty(device: &D) -> Result<Self, DeviceError> {
        let none = || Tensor::zeros(device, DType::U32, &[0]);
        let tiles = || -> Result<_, DeviceError> {
            Ok(Tiles {
                tiles: Vec::new(),
                device: none()?,
            })
        };
        Ok(Self {
            ranges: Vec::new(),
            device: none()?,
            query_tiles: tiles()?,
            key_tiles: tiles()?,
        })
    }

    /// Replaces the ranges, and copies them and their tiles to the device.
    pub fn set(&mut self, ranges: impl IntoIterator<Item = Range>) -> Result<(), DeviceError> {
        self.ranges.clear();
        self.ranges.extend(ranges);
        let numbers = self.ranges.iter().flat_map(|range| {
            [
                range.query_start,
                range.query_len,
                range.key_start,
                range.key_len,
            ]
        });
        write(&mut self.device, &numbers.collect::<Vec<_>>())?;
        // Queries see the keys before them; keys are seen by the queries after them.
        let (queries, keys) = (&mut self.query_tiles, &mut self.key_tiles);
        queries.set(
            &self.ranges,
            |range| range.query_len,
            |range, first| first.saturating_add(range.key_len.saturating_sub(range.query_len)),
        )?;
        keys.set(
            &self.ranges,
            |range| range.key_len,
            |range, first| range.key_len - first,
        )
    }

    /// The ranges on the host.
    pub fn as_slice(&self) -> &[Range] {
        &self.ranges
    }
    /// The ranges on the device, u32 `[ranges, 4]` or longer.
    pub fn tensor(&self) -> &Tensor<D> {
        &self.device
    }
    fn tensors(&self) -> [&Tensor<D>; 3] {
        let [queries, keys] = [&self.query_tiles, &self.key_tiles];
        [&self.device, &queries.device, &keys.device]
    }
    /// Tiles of the queries.
    pub fn query_tiles(&self) -> &Tiles<D> {
        &self.query_tiles
    }
    /// Tiles of the keys.
    pub fn key_tiles(&self) -> &Tiles<D> {
        &self.key_tiles
    }
}

impl<D: Device> Tiles<D> {
    /// Tiles with most `work` come first, so that the last ones are short.
    fn set(
        &mut self,
        ranges: &[Range],
        rows: impl Fn(&Range) -> u32,
        work: impl Fn(&Range, u32) -> u32,
    ) -> Result<(), DeviceError> {
        self.tiles.clear();
        for (index, range) in (0..).zip(ranges) {
            let firsts = (0..rows(range)).step_by(TILE as usize);
            self.tiles.extend(firsts.map(|first| [index, first]));
        }
        self.tiles.sort_unstable_by_key(|&[index, first]| {
            let work = work(&ranges[index as usize], first);
            (Reverse(work), index, first)
        });
        write(&mut self.device, bytemuck::cast_slice(&self.tiles))
    }

    /// Number of tiles.
    pub fn len(&self) -> usize {
        self.tiles.len()
    }
    /// Whether there are no tiles.
    pub fn is_empty(&self) -> bool {
        self.tiles.is_empty()
    }
    /// The tiles on the device, u32 `[len, 2]` or longer: index of the range, and first row within
    /// it.
    pub fn tensor(&self) -> &Tensor<D> {
        &self.device
    }
}

/// Writes `numbers` to a tensor that is replaced if it is too short.
fn write<D: Device>(tensor: &mut Tensor<D>, numbers: &[u32]) -> Result<(), DeviceError> {
    if tensor.len() < numbers.len() {
        let shape = [numbers.len().next_power_of_two()];
        *tensor = Tensor::zeros(tensor.device(), DType::U32, &shape)?;
    }
    tensor.write(numbers)
}

/// Settings that both directions need.
#[derive(Debug)]
pub struct Config<'a, D: Device> {
    /// Which tokens see which.
    pub ranges: &'a Ranges<D>,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads; `heads` is a multiple of it.
    pub kv_heads: usize,
    /// Number of features of a head.
    pub head_dim: usize,
    /// Factor of `q·k`, usually `head_dim^-½`.
    pub scale: f32,
    /// Largest number of keys that a query sees, its own included.
    pub window: Option<usize>,
    /// `softcap · tanh(scores / softcap)` before the softmax (Gemma 2: 50).
    pub softcap: Option<f32>,
}

impl<D: Device> Clone for Config<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D: Device> Copy for Config<'_, D> {}

/// `y[t,h,:] = Σ_s softmax_s(scale · q[t,h,:]·k[s,g(h),:]) · v[s,g(h),:]` over the keys that the
/// range, causality and the window allow; `g(h) = h · kv_heads / heads`.
#[derive(Debug)]
pub struct Forward<'a, D: Device> {
    /// `[queries, heads, head_dim]`.
    pub q: View<'a, D>,
    /// `[keys, kv_heads, head_dim]`.
    pub k: View<'a, D>,
    /// `[keys, kv_heads, head_dim]`.
    pub v: View<'a, D>,
    /// Overwritten in all ranges, `[queries, heads, head_dim]`.
    pub y: ViewMut<'a, D>,
    /// Overwritten with the log of the softmax's denominator, f32 `[queries, heads]`.
    pub lse: ViewMut<'a, D>,
    /// Ranges, sizes and masks.
    pub config: Config<'a, D>,
}

/// Gradients with respect to `q`, `k` and `v`; the probabilities are computed again from `lse`.
#[derive(Debug)]
pub struct Backward<'a, D: Device> {
    /// `[queries, heads, head_dim]`.
    pub dy: View<'a, D>,
    /// From the forward pass, `[queries, heads, head_dim]`.
    pub y: View<'a, D>,
    /// From the forward pass, f32 `[queries, heads]`.
    pub lse: View<'a, D>,
    /// `[queries, heads, head_dim]`.
    pub q: View<'a, D>,
    /// `[keys, kv_heads, head_dim]`.
    pub k: View<'a, D>,
    /// `[keys, kv_heads, head_dim]`.
    pub v: View<'a, D>,
    /// Scratch for `Σ_d dy · y`, f32 `[queries, heads]`.
    pub delta: ViewMut<'a, D>,
    /// Overwritten in all ranges, `[queries, heads, head_dim]`.
    pub dq: ViewMut<'a, D>,
    /// Overwritten in all ranges, `[keys, kv_heads, head_dim]`.
    pub dk: ViewMut<'a, D>,
    /// Overwritten in all ranges, `[keys, kv_heads, head_dim]`.
    pub dv: ViewMut<'a, D>,
    /// Ranges, sizes and masks.
    pub config: Config<'a, D>,
}

/// Variable-length attention without tokens × tokens in memory (Dao et al., 2022). f32
/// accumulation; activations are all f32 or bf16 (f32 on the CPU). On a GPU, probabilities are
/// rounded to that type before they are multiplied.
///
/// The bits of a range depend on the range alone. Working memory on the CPU per thread is about `64
/// · (3 · head_dim + 64)` f32; backward `2 · key_len · head_dim` more, for the sums of `dk` and
/// `dv`.
pub trait Attention: Device {
    /// Writes `y` and `lse`.
    fn attention_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError>;
    /// Writes `dq`, `dk`, `dv` and `delta`.
    fn attention_backward(&self, args: Checked<Backward<'_, Self>>) -> Result<(), KernelError>;
}

impl<'a, D: Device> Config<'a, D> {
    fn check(&self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        for tensor in self.ranges.tensors() {
            operands.any("ranges", tensor.view())?;
        }
        let value = |operand, value: f64, rule| KernelError::Value {
            operand,
            value,
            rule,
        };
        if self.kv_heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            let rule = "must be a multiple of the key and value heads";
            return Err(value("heads", self.heads as f64, rule));
        }
        if self.window == Some(0) {
            return Err(value("window", 0.0, "must be at least 1"));
        }
        if let Some(softcap) = self.softcap
            && (softcap.is_nan() || softcap <= 0.0)
        {
            return Err(value("softcap", f64::from(softcap), "must be positive"));
        }
        let (mut query_end, mut key_end) = (0, 0);
        for (index, range) in self.ranges.as_slice().iter().enumerate() {
            // Ranges are in order and do not overlap, so that writers of different ranges never
            // collide.
            let apart = range.query_start >= query_end && range.key_start >= key_end;
            let ends = (
                range.query_start.checked_add(range.query_len),
                range.key_start.checked_add(range.key_len),
            );
            let (Some(queries), Some(keys)) = ends else {
                return Err(value("ranges", index as f64, "must end below 2^32"));
            };
            if !apart || range.key_len < range.query_len {
                let rule = "must follow the range before it and have a key for each query";
                return Err(value("ranges", index as f64, rule));
            }
            if range.prefix_len > 0 {
                let rule = "must not have a prefix: it is not computed yet";
                return Err(value("ranges", index as f64, rule));
            }
            (query_end, key_end) = (queries, keys);
        }
        Ok(())
    }

    fn queries(&self) -> usize {
        let last = self.ranges.as_slice().last();
        last.map_or(0, |r| r.query_start as usize + r.query_len as usize)
    }

    fn keys(&self) -> usize {
        let last = self.ranges.as_slice().last();
        last.map_or(0, |r| r.key_start as usize + r.key_len as usize)
    }
}

impl<D: Device> Check for Forward<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let config = &self.config;
        config.check(operands)?;
        let queries = [config.queries(), config.heads, config.head_dim];
        let keys = [config.keys(), config.kv_heads, config.head_dim];
        let dtype = operands.activation("q", self.q)?;
        operands.at_least("q", self.q, dtype, &queries)?;
        operands.at_least("k", self.k, dtype, &keys)?;
        operands.at_least("v", self.v, dtype, &keys)?;
        operands.at_least("y", self.y.as_view(), dtype, &queries)?;
        operands.at_least("lse", self.lse.as_view(), DType::F32, &queries[..2])
    }
}

impl<D: Device> Check for Backward<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let config = &self.config;
        config.check(operands)?;
        let queries = [config.queries(), config.heads, config.head_dim];
        let keys = [config.keys(), config.kv_heads, config.head_dim];
        let dtype = operands.activation("dy", self.dy)?;
        for (operand, tensor) in [
            ("dy", self.dy),
            ("y", self.y),
            ("q", self.q),
            ("dq", self.dq.as_view()),
        ] {
            operands.at_least(operand, tensor, dtype, &queries)?;
        }
        for (operand, tensor) in [
            ("k", self.k),
            ("v", self.v),
            ("dk", self.dk.as_view()),
            ("dv", self.dv.as_view()),
        ] {
            operands.at_least(operand, tensor, dtype, &keys)?;
        }
        operands.at_least("lse", self.lse, DType::F32, &queries[..2])?;
        operands.at_least("delta", self.delta.as_view(), DType::F32, &queries[..2])
    }
}
