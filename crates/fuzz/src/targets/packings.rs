//! Stored packings: reads them, compares them with lengths, and makes batches.

use crate::Target;
use tightrope_packing::{Algorithm, IGNORED, Packer, Packing, Sequence};

const LENGTHS: [u32; 6] = [3, 1, 0, 5, 9, 2];

pub(super) const PACKING: Target = Target {
    name: "packing",
    run: |bytes| {
        let packing: Packing = serde_json::from_slice(bytes)?;
        let again = serde_json::to_vec(&packing)?;
        assert_eq!(
            packing,
            serde_json::from_slice(&again)?,
            "stored again, it is another"
        );
        packing.epoch_order(1, 2);
        packing.check_lengths(&LENGTHS)?;
        let sequences = LENGTHS.map(|length| {
            let (tokens, labels) = (
                vec![1; length as usize],
                vec![i64::from(IGNORED); length as usize],
            );
            Sequence::from_labels(tokens, &labels).expect("as many labels as tokens")
        });
        for index in 0..packing.len() {
            packing.batch(index, &sequences, 0)?;
        }
        Ok(())
    },
    seeds: || {
        let algorithms = [Algorithm::BestFit, Algorithm::Wrapped, Algorithm::Padded];
        let stored = algorithms.map(|algorithm| {
            let packer = Packer::new(algorithm, 8);
            packer
                .pack(&LENGTHS)
                .map(|packing| serde_json::to_vec(&packing))
        });
        stored.into_iter().flatten().flatten().collect()
    },
    words: &[
        "4294967295",
        "4294967296",
        "packed",
        "padded",
        "padding_free",
        "dropped",
        "split",
        "empty",
    ],
};
