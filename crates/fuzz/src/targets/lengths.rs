//! Lengths of sequences, one a line after the capacity, packed by every algorithm.

use crate::{Outcome, Target};
use tightrope_packing::{Algorithm, Histogram, Packer};

pub const LENGTHS: Target = Target {
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

/// So much is packed at once; what more would cost is known and bounded elsewhere.
const MOST_SEQUENCES: usize = 64;
const MOST_CAPACITY: u64 = 1 << 16;
const MOST_TOKENS: u64 = 1 << 20;
/// Its effort grows with the square of the capacity, whatever the lengths are.
const MOST_FOR_NNLSHP: u64 = 128;

fn run(bytes: &[u8]) -> Outcome {
    let mut lines = std::str::from_utf8(bytes)?.lines();
    let capacity: u64 = lines.next().unwrap_or_default().parse()?;
    let lengths = lines.take(MOST_SEQUENCES).map(str::parse);
    let lengths = lengths.collect::<Result<Vec<u32>, _>>()?;
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
