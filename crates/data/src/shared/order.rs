//! Sorts sequences by their untrained beginnings, with little of them in memory at a time.

use crate::error::DataError;
use crate::store::Sequences;

/// Number of tokens of beginnings that are in memory together.
const TOGETHER: usize = 1 << 24;
/// Number of tokens by which more sequences are divided.
const KEY: usize = 8;

/// The sequences in the order of their untrained beginnings, equal ones in their own order, each with
/// the number of tokens that its beginning has in common with the one before it.
pub(super) fn by_beginnings(
    sequences: &Sequences,
    order: Vec<u32>,
) -> Result<Vec<(u32, u32)>, DataError> {
    by_beginnings_in(sequences, order, TOGETHER)
}

fn by_beginnings_in(
    sequences: &Sequences,
    order: Vec<u32>,
    together: usize,
) -> Result<Vec<(u32, u32)>, DataError> {
    let mut sorted: Vec<(u32, u32)> = order.into_iter().map(|index| (index, 0)).collect();
    // Ranges of sequences that have this many tokens in common.
    let mut open = vec![(0..sorted.len(), 0)];
    while let Some((range, depth)) = open.pop() {
        let part = &mut sorted[range.clone()];
        let rest = |index: u32| sequences.untrained_beginning(index as usize) - depth;
        if part.iter().map(|&(index, _)| rest(index)).sum::<usize>() <= together {
            sort(sequences, part, depth)?;
            continue;
        }
        let key = |&(index, with): &(u32, u32)| {
            let length = rest(index).min(KEY);
            let tokens = sequences.first_tokens(index as usize, depth..depth + length)?;
            let mut key = [0; KEY];
            key[..length].copy_from_slice(&tokens);
            Ok((key, length, index, with))
        };
        let keys = part.iter().map(key).collect::<Result<Vec<_>, DataError>>();
        let mut keys = keys?;
        // The first in order keeps what it has in common with the one before the range.
        let with_before = part[0].1;
        keys.sort_unstable();
        let mut start = 0;
        for place in 0..keys.len() {
            let (key, length, index, _) = keys[place];
            let with = match place.checked_sub(1) {
                None => with_before as usize,
                Some(before) => {
                    let (before, before_length, ..) = keys[before];
                    let same = super::common(&before[..before_length], &key[..length]);
                    depth + same
                }
            };
            part[place] = (index, with as u32);
            let next = keys.get(place + 1);
            if next.map(|next| (next.0, next.1)) != Some((key, length)) {
                // Shorter ones have ended, and are equal.
                if length == KEY && place > start {
                    open.push((range.start + start..range.start + place + 1, depth + KEY));
                }
                start = place + 1;
            }
        }
    }
    Ok(sorted)
}

/// Sorts sequences that have `depth` tokens in common.
fn sort(sequences: &Sequences, part: &mut [(u32, u32)], depth: usize) -> Result<(), DataError> {
    let Some(&(_, with_before)) = part.first() else {
        return Ok(());
    };
    let mut rests = Vec::with_capacity(part.len());
    for &(index, _) in part.iter() {
        let end = sequences.untrained_beginning(index as usize);
        rests.push((sequences.first_tokens(index as usize, depth..end)?, index));
    }
    rests.sort_unstable();
    for (place, (rest, index)) in rests.iter().enumerate() {
        let with = match place.checked_sub(1) {
            None => with_before as usize,
            Some(before) => depth + super::common(&rests[before].0, rest),
        };
        part[place] = (*index, with as u32);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tightrope_packing::{Sequence, random::Random};

    #[test]
    fn the_order_is_that_of_the_beginnings_however_few_are_in_memory() {
        let mut random = Random::new(5);
        let sequences: Sequences = (0..400)
            .map(|_| {
                let tokens: Vec<u32> = (0..2 + random.below(30))
                    .map(|place| match place < 12 {
                        true => 0,
                        false => random.below(2) as u32,
                    })
                    .collect();
                let mut labels = vec![-100; tokens.len()];
                labels[tokens.len() - 1] = 0;
                Sequence::from_labels(tokens, &labels).unwrap()
            })
            .collect();
        let beginning = |index: u32| {
            let sequence = sequences.get(index as usize).unwrap();
            sequence.tokens()[..sequence.untrained_beginning()].to_vec()
        };
        let mut all: Vec<u32> = (0..400).rev().collect();
        let mut expected = all.clone();
        expected.sort_by_key(|&index| (beginning(index), index));
        let with = |place: usize| match place {
            0 => 0,
            _ => super::super::common(&beginning(expected[place - 1]), &beginning(expected[place])),
        };
        let expected: Vec<_> = (0..400)
            .map(|place| (expected[place], with(place) as u32))
            .collect();
        for together in [0, 1, 40, 500, TOGETHER] {
            let sorted = by_beginnings_in(&sequences, all.clone(), together).unwrap();
            assert_eq!(sorted, expected, "{together}");
            all.reverse();
        }
        assert!(by_beginnings(&sequences, vec![]).unwrap().is_empty());
    }
}
