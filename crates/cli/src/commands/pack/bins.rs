//! Bins and their picture: sequences by length, packs by how full they are.

use tightrope_data::packing::Histogram;
use tightrope_report::{
    chart::{Bin, Chart, ChartError, svg},
    numbers::grouped,
};

const BINS: u64 = 16;

/// Number of packs by used share of the capacity.
pub(super) struct Fill {
    /// Numbers in the order of [`LIMITS`].
    packs: Vec<u64>,
}

/// Percentages at which a bin of [`Fill`] begins: bins are finer for fuller packs.
const LIMITS: [u64; 8] = [0, 25, 50, 75, 90, 95, 99, 100];

impl Fill {
    /// Counts packs from `(tokens, number of packs)`.
    pub(super) fn new(capacity: u64, packs: impl Iterator<Item = (u64, u64)>) -> Self {
        let mut fill = Self {
            packs: vec![0; LIMITS.len()],
        };
        for (tokens, count) in packs {
            let share = u128::from(tokens) * 100 / u128::from(capacity.max(1));
            let bin = LIMITS.partition_point(|&limit| u128::from(limit) <= share) - 1;
            fill.packs[bin] += count;
        }
        fill
    }

    /// One bin for each range of shares.
    pub(super) fn bins(&self) -> Vec<Bin> {
        let label = |bin: usize| match LIMITS.get(bin + 1) {
            Some(next) => format!("{}–{next} %", LIMITS[bin]),
            None => "100 %".into(),
        };
        let packs = self.packs.iter().enumerate();
        packs
            .map(|(bin, &count)| Bin {
                label: label(bin),
                count,
            })
            .collect()
    }
}

/// The histogram in a few bins.
pub(super) fn lengths(histogram: &Histogram) -> Vec<Bin> {
    let longest = u64::from(histogram.max_length());
    let width = (longest + 1).div_ceil(BINS).max(1);
    let used = longest / width + 1;
    let label = |bin| match width {
        1 => grouped(bin),
        _ => format!(
            "{}–{}",
            grouped(bin * width),
            grouped((bin + 1) * width - 1)
        ),
    };
    let mut bins: Vec<Bin> = (0..used)
        .map(|bin| Bin {
            label: label(bin),
            count: 0,
        })
        .collect();
    for &(length, count) in histogram.entries() {
        bins[(u64::from(length) / width) as usize].count += count;
    }
    bins
}

/// Draws the lengths and, if it is known, how full the packs are.
pub(super) fn picture(
    title: &str,
    histogram: &Histogram,
    fill: Option<&Fill>,
) -> Result<String, ChartError> {
    let (lengths, packs) = (lengths(histogram), fill.map(Fill::bins));
    let caption = format!("Packs by how full they are ({title})");
    let lengths = Chart {
        caption: "Sequences by length",
        axis: "tokens",
        bins: &lengths,
    };
    let packs = packs.as_ref().map(|bins| Chart {
        caption: &caption,
        axis: "share of the capacity",
        bins,
    });
    svg(&[Some(lengths), packs]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sequence_and_pack_is_in_a_bin() {
        for longest in [0, 1, 15, 16, 17, u32::MAX] {
            let histogram = Histogram::from_pairs([(0, 2), (longest, 3)]).unwrap();
            let bins = lengths(&histogram);
            assert!(bins.len() as u64 <= BINS);
            assert_eq!(bins.iter().map(|bin| bin.count).sum::<u64>(), 5);
            picture("", &histogram, None).unwrap();
        }
        let fill = Fill::new(
            1000,
            [(1, 1), (989, 2), (990, 4), (999, 8), (1000, 16)].into_iter(),
        );
        assert_eq!(fill.packs, [1, 0, 0, 0, 0, 2, 12, 16]);
        assert_eq!(fill.bins().len(), LIMITS.len());
    }
}
