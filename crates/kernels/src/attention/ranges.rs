//! Which queries see which keys: the ranges of a batch, and their tiles on a GPU.

use std::cmp::Reverse;
use tightrope_device::{DType, Device, DeviceError, Tensor};

/// One sequence: some of its queries, and all keys that they may see.
///
/// The keys are those of the prefix, if there is one, and then the range's own. The last query has
/// the position of the last key: query `i` of `query_len` sees keys `0..=i + keys() − query_len`. In
/// training, queries and the range's own keys are the same rows; in generation, the keys are the
/// cache.
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
    /// First row in `k` and `v` of a prefix that all queries see before the range's own keys.
    pub prefix_start: u32,
    /// Number of rows of the prefix; 0: none. A prefix is all keys of an earlier range, which has no
    /// prefix itself.
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

    /// The same range after the keys of another one.
    #[must_use]
    pub fn after(self, prefix: &Self) -> Self {
        Self {
            prefix_start: prefix.key_start,
            prefix_len: prefix.key_len,
            ..self
        }
    }

    /// Number of keys, those of the prefix included.
    pub fn keys(&self) -> u32 {
        self.prefix_len.saturating_add(self.key_len)
    }
}

/// Number of rows in a tile of [`Ranges`].
pub(super) const TILE: u32 = 64;

/// The ranges of a batch, on the host and on the device; they are set once per batch and read by
/// every layer. The memory grows to the largest batch and is kept.
#[derive(Debug)]
pub struct Ranges<D: Device> {
    ranges: Vec<Range>,
    /// For a range without prefix, the first range that reads it; for another, the next that reads
    /// the same prefix. 0 = none: the first range reads nothing.
    readers: Vec<u32>,
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
            readers: Vec::new(),
            device: none()?,
            query_tiles: tiles()?,
            key_tiles: tiles()?,
        })
    }

    /// Replaces the ranges, and copies them and their tiles to the device.
    pub fn set(&mut self, ranges: impl IntoIterator<Item = Range>) -> Result<(), DeviceError> {
        self.ranges.clear();
        self.ranges.extend(ranges);
        self.link();
        let rows = self.ranges.iter().zip(&self.readers);
        let numbers = rows.flat_map(|(range, &reader)| {
            [
                range.query_start,
                range.query_len,
                range.key_start,
                range.key_len,
                range.prefix_start,
                range.prefix_len,
                reader,
            ]
        });
        write(&mut self.device, &numbers.collect::<Vec<_>>())?;
        // Queries see the keys before them; keys are seen by the queries after them.
        self.query_tiles.set(
            &self.ranges,
            |range| range.query_len,
            |index, first| {
                let range = &self.ranges[index];
                u64::from(first) + u64::from(range.keys().saturating_sub(range.query_len))
            },
        )?;
        let seen = |index: usize, first: u32| {
            let family = Family::new(&self.readers, index).skip(1);
            let readers = family.map(|reader| u64::from(self.ranges[reader].query_len));
            u64::from(self.ranges[index].key_len - first) + readers.sum::<u64>()
        };
        self.key_tiles.set(
            &self.ranges,
            |range| range.key_len,
            |index, first| match self.ranges[index].prefix_len {
                0 => seen(index, first),
                _ => u64::from(self.ranges[index].key_len - first),
            },
        )
    }

    /// Chains the readers of each range.
    fn link(&mut self) {
        self.readers.clear();
        self.readers.resize(self.ranges.len(), 0);
        // The last range so far that reads each range.
        let mut last: Vec<usize> = (0..self.ranges.len()).collect();
        for index in 0..self.ranges.len() {
            if let Some(prefix) = self.prefix(index) {
                self.readers[last[prefix]] = index as u32;
                last[prefix] = index;
            }
        }
    }

    /// Index of the range whose keys are the prefix of a range.
    fn prefix(&self, index: usize) -> Option<usize> {
        let (before, rest) = self.ranges.split_at(index);
        let range = rest.first().filter(|range| range.prefix_len > 0)?;
        let index = before.partition_point(|before| before.key_start <= range.prefix_start);
        let prefix = index.checked_sub(1)?;
        let place = (before[prefix].key_start, before[prefix].key_len);
        let whole = place == (range.prefix_start, range.prefix_len);
        (whole && before[prefix].prefix_len == 0).then_some(prefix)
    }

    /// Indices of a range without prefix and of those that read it, in ascending order.
    pub(super) fn family(&self, index: usize) -> impl Iterator<Item = usize> {
        Family::new(&self.readers, index)
    }

    /// The ranges on the host.
    pub fn as_slice(&self) -> &[Range] {
        &self.ranges
    }
    /// The ranges on the device, u32 `[ranges, 7]` or longer: the fields of [`Range`], then the first
    /// range that reads this one or, for a range with a prefix, the next one that reads the same
    /// prefix (0 = none).
    pub fn tensor(&self) -> &Tensor<D> {
        &self.device
    }
    pub(super) fn tensors(&self) -> [&Tensor<D>; 3] {
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

    /// Returns the index of the first range that breaks a rule, and the rule.
    ///
    /// Ranges are in order and do not overlap, so that writers of different ranges never collide; a
    /// prefix is the keys of one range, so that one writer sums over all its readers.
    pub(super) fn check(&self) -> Result<(), (usize, &'static str)> {
        let (mut query_end, mut key_end) = (0, 0);
        for (index, range) in self.ranges.iter().enumerate() {
            let apart = range.query_start >= query_end && range.key_start >= key_end;
            let ends = (
                range.query_start.checked_add(range.query_len),
                range.key_start.checked_add(range.key_len),
                range.prefix_len.checked_add(range.key_len),
            );
            let (Some(queries), Some(keys), Some(_)) = ends else {
                return Err((index, "must end below 2^32"));
            };
            if !apart || range.key_len < range.query_len {
                let rule = "must follow the range before it and have a key for each query";
                return Err((index, rule));
            }
            if range.prefix_len > 0 && self.prefix(index).is_none() {
                let rule = "must have the keys of an earlier range without prefix as its prefix";
                return Err((index, rule));
            }
            (query_end, key_end) = (queries, keys);
        }
        Ok(())
    }
}

/// A range without prefix, and then its readers.
struct Family<'a> {
    readers: &'a [u32],
    next: Option<usize>,
}

impl<'a> Family<'a> {
    fn new(readers: &'a [u32], index: usize) -> Self {
        Self {
            readers,
            next: Some(index),
        }
    }
}

impl Iterator for Family<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let index = self.next?;
        let next = self.readers.get(index).copied().unwrap_or(0);
        self.next = (next > 0).then_some(next as usize);
        Some(index)
    }
}

impl<D: Device> Tiles<D> {
    /// Tiles with most `work` come first, so that the last ones are short.
    fn set(
        &mut self,
        ranges: &[Range],
        rows: impl Fn(&Range) -> u32,
        work: impl Fn(usize, u32) -> u64,
    ) -> Result<(), DeviceError> {
        self.tiles.clear();
        for (index, range) in (0..).zip(ranges) {
            let firsts = (0..rows(range)).step_by(TILE as usize);
            self.tiles.extend(firsts.map(|first| [index, first]));
        }
        self.tiles.sort_by_cached_key(|&[index, first]| {
            let work = work(index as usize, first);
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
    #[cfg(test)]
    pub(super) fn as_slice(&self) -> &[[u32; 2]] {
        &self.tiles
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
