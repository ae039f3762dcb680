//! Packs each optimizer step by itself, so that packing changes neither the number of steps nor
//! which sequences share one.

use crate::{
    Cut, PackError, Packer, Packing, Piece,
    overlong::Pieces,
    packing::Storage,
    random::{Random, Stream},
};

/// The packs of an epoch, step by step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steps {
    /// The packs; those of a step follow each other.
    pub packing: Packing,
    /// End of each step among the packs.
    pub ends: Vec<u32>,
}

impl Packer {
    /// Puts the sequences that have tokens into an order that is a function of `seed` and `epoch`,
    /// gives `per_step` of them to each step (the last may have fewer), and packs each step by
    /// itself. A step holds the same sequences with every algorithm and capacity.
    ///
    /// # Errors
    /// As [`Packer::pack`]; and if `per_step` is 0.
    pub fn pack_steps(
        &self,
        lengths: &[u32],
        per_step: usize,
        seed: u64,
        epoch: u64,
    ) -> Result<Steps, PackError> {
        if per_step == 0 {
            return Err(PackError::Zero { name: "per_step" });
        }
        let packer = Packer {
            seed: None,
            ..self.clone()
        };
        // Errors name a sequence by its place among all.
        let all = Pieces::new(lengths, packer.longest(), packer.overlong)?;
        let lower_bound = packer.lower_bound(&all.histogram);
        let mut cuts = all.cuts;
        cuts.split.clear();

        let with_tokens = (0..).zip(lengths).filter(|(_, length)| **length > 0);
        let mut order: Vec<u32> = with_tokens.map(|(sequence, _)| sequence).collect();
        Random::stream(seed, Stream::Sequences(epoch)).shuffle(&mut order);
        let mut storage = Storage::with_capacity(order.len(), 0);
        let mut ends = Vec::with_capacity(order.len().div_ceil(per_step));
        for step in order.chunks(per_step) {
            let own: Vec<u32> = step.iter().map(|&index| lengths[index as usize]).collect();
            let packing = packer.pack(&own)?;
            let sequence = |index: u32| step[index as usize];
            for pack in packing.iter() {
                storage.extend(pack.iter().map(|piece| Piece {
                    sequence: sequence(piece.sequence),
                    ..*piece
                }));
                storage.end_pack();
            }
            cuts.split
                .extend(packing.cuts().split.iter().map(|cut| Cut {
                    sequence: sequence(cut.sequence),
                    ..*cut
                }));
            ends.push(storage.packs());
        }
        storage.check()?;
        cuts.split.sort_unstable_by_key(|cut| cut.sequence);
        let (layout, capacity) = (self.algorithm.layout(), self.capacity);
        let packing = Packing::from_parts(layout, capacity, lower_bound, storage, cuts);
        Ok(Steps { packing, ends })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Algorithm, Overlong};
    use std::collections::BTreeSet;

    fn lengths() -> Vec<u32> {
        (0..100u32).map(|index| (index * index) % 37).collect()
    }

    /// The sequences of each step.
    fn sequences(steps: &Steps) -> Vec<BTreeSet<u32>> {
        let mut first = 0;
        let step = |&end: &u32| {
            let packs = first..end;
            first = end;
            let pieces = packs.flat_map(|pack| steps.packing.pack(pack as usize));
            pieces.map(|piece| piece.sequence).collect()
        };
        steps.ends.iter().map(step).collect()
    }

    #[test]
    fn a_step_holds_the_same_sequences_with_every_algorithm() {
        let lengths = lengths();
        let count = lengths.iter().filter(|length| **length > 0).count();
        let of = |algorithm, epoch| {
            let packer = Packer {
                batch_size: 3,
                ..Packer::new(algorithm, 40)
            };
            let steps = packer.pack_steps(&lengths, 7, 5, epoch).unwrap();
            steps.packing.check_lengths(&lengths).unwrap();
            assert!(steps.packing.lower_bound() <= steps.packing.len() as u64);
            sequences(&steps)
        };
        let expected = of(Algorithm::Padded, 0);
        assert_eq!(expected.len(), count.div_ceil(7));
        let full = expected[..expected.len() - 1].iter();
        assert!(full.into_iter().all(|step| step.len() == 7));
        let all: BTreeSet<u32> = expected.iter().flatten().copied().collect();
        assert_eq!(all.len(), count);
        for algorithm in Algorithm::ALL {
            assert_eq!(of(algorithm, 0), expected, "{algorithm}");
        }
        assert_ne!(of(Algorithm::BestFit, 1), expected);
    }

    #[test]
    fn what_is_cut_is_named_as_without_steps() {
        let lengths = lengths();
        for overlong in [Overlong::Truncate, Overlong::Split, Overlong::Drop] {
            let packer = Packer {
                overlong,
                ..Packer::new(Algorithm::BestFit, 20)
            };
            let steps = packer.pack_steps(&lengths, 7, 5, 0).unwrap();
            let cuts = packer.pack(&lengths).unwrap().cuts().clone();
            assert_eq!(steps.packing.cuts(), &cuts, "{overlong:?}");
            steps.packing.check_lengths(&lengths).unwrap();
        }
        let packer = Packer {
            overlong: Overlong::Error,
            ..Packer::new(Algorithm::BestFit, 20)
        };
        let error = packer.pack_steps(&lengths, 7, 5, 0).unwrap_err();
        assert_eq!(Err(error), packer.pack(&lengths).map(|_| ()));
        let none = packer.pack_steps(&lengths, 0, 5, 0);
        assert_eq!(none, Err(PackError::Zero { name: "per_step" }));
    }
}
