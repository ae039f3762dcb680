//! Files of lengths and histograms for `pack`, after the capacity on the first line, packed by
//! every algorithm.

use crate::{Outcome, Target};
use tightrope_packing::{Algorithm, Histogram, Implementation, Packer};
use tightrope_run::lengths::{read_histogram, read_lengths};

pub(super) const LENGTHS: Target = Target {
    name: "lengths",
    run,
    seeds: || {
        [
            "8\n3\n1\n0\n5\n9\n2\n",
            "512\n500\n13\n499\n1\n512\n",
            "1\n1\n1\n",
        ]
        .map(Into::into)
        .into()
    },
    words: &["0", "1", "4294967295", "65536", "\n"],
};

pub(super) const HISTOGRAM: Target = Target {
    name: "histogram",
    run: histogram,
    seeds: || {
        [
            "8\n[3, 0, 1, 5, 0, 0, 0, 2]",
            "4\n{\"counts\": [1, 1, 0, 7], \"source\": \"a\"}",
            "3\n [0]",
        ]
        .map(Into::into)
        .into()
    },
    words: &[
        "counts",
        "{\"counts\": [",
        "18446744073709551615",
        "1e3",
        "[]",
    ],
};

/// Largest number of sequences packed at once; the cost of more is known and bounded elsewhere.
const MOST_SEQUENCES: usize = 64;
const MOST_CAPACITY: u64 = 1 << 16;
const MOST_TOKENS: u64 = 1 << 20;
/// Largest capacity for NNLSHP, whose effort grows with the square of the capacity, whatever the
/// lengths are.
const MOST_FOR_NNLSHP: u64 = 128;
/// Largest number of sequences for algorithms that take the sequences of a histogram one by one.
const MOST_SPELLED: u64 = 1 << 16;

fn run(bytes: &[u8]) -> Outcome {
    let (capacity, file) = after_capacity(bytes)?;
    let mut lengths = read_lengths(file)?;
    lengths.truncate(MOST_SEQUENCES);
    let histogram = Histogram::from_lengths(lengths.iter().copied())?;
    if capacity > MOST_CAPACITY || histogram.tokens() > MOST_TOKENS {
        return Ok(());
    }
    for algorithm in Algorithm::ALL {
        if algorithm == Algorithm::Nnlshp && capacity > MOST_FOR_NNLSHP {
            continue;
        }
        let packer = Packer {
            seed: Some(1),
            ..Packer::new(algorithm, capacity)
        };
        let packing = packer.pack(&lengths)?;
        packing.check_lengths(&lengths)?;
        assert!(packing.lower_bound() <= packing.len() as u64, "{algorithm}");
    }
    Ok(())
}

fn histogram(bytes: &[u8]) -> Outcome {
    let (capacity, file) = after_capacity(bytes)?;
    let histogram = Histogram::from_counts(&read_histogram(file)?)?;
    if capacity > MOST_CAPACITY || histogram.entries().len() > MOST_SEQUENCES {
        return Ok(());
    }
    for algorithm in Algorithm::ALL {
        if algorithm == Algorithm::Nnlshp && capacity > MOST_FOR_NNLSHP {
            continue;
        }
        let ordered = matches!(algorithm.implementation(), Implementation::Ordered(_));
        if ordered && histogram.sequences() > MOST_SPELLED {
            continue;
        }
        let packing = Packer::new(algorithm, capacity).pack_histogram(&histogram)?;
        assert!(packing.lower_bound <= packing.packs, "{algorithm}");
    }
    Ok(())
}

fn after_capacity(bytes: &[u8]) -> Result<(u64, &[u8]), Box<dyn std::error::Error>> {
    let end = bytes.iter().position(|&byte| byte == b'\n');
    let (line, file) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
    Ok((std::str::from_utf8(line)?.trim_end().parse()?, file))
}
