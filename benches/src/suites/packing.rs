//! Compares packing algorithms on a million log-normal lengths: packs, efficiency, seconds.

use crate::{Row, Suite, log_normal_lengths, row, time};
use anyhow::{Result, ensure};
use tightrope_packing::{Algorithm, Packer};

pub(crate) const SUITE: Suite = Suite {
    name: "packing",
    about: "all algorithms but nnlshp on 1,000,000 log-normal lengths (median 90, sigma 0.9), capacity 2,048",
    run,
};

const SEQUENCES: usize = 1_000_000;
const CAPACITY: u32 = 2048;
const REPETITIONS: usize = 3;

fn run(emit: &mut dyn FnMut(Row)) -> Result<()> {
    let lengths = log_normal_lengths(SEQUENCES, 90.0, 0.9, CAPACITY, 1);
    let tokens: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
    // The strategies of nnlshp grow with capacity^depth: minutes at this capacity.
    let algorithms = Algorithm::ALL
        .into_iter()
        .filter(|a| *a != Algorithm::Nnlshp);
    for algorithm in algorithms {
        let packer = Packer::new(algorithm, CAPACITY.into());
        let packing = packer.pack(&lengths)?;
        ensure!(
            packing.tokens() == tokens,
            "{algorithm} packed {} of {tokens} tokens",
            packing.tokens()
        );
        let timing = time(REPETITIONS, || packer.pack(&lengths));
        emit(row([
            ("algorithm", algorithm.name().into()),
            ("sequences", SEQUENCES.into()),
            ("capacity", CAPACITY.into()),
            ("packs", packing.len().into()),
            ("efficiency", packing.efficiency().into()),
            ("min_s", timing.min_s.into()),
            ("median_s", timing.median_s.into()),
        ]));
    }
    Ok(())
}
