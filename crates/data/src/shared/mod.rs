//! Sequences that begin alike, as units in which the beginning is computed once.

mod order;

use std::borrow::Cow;

use tightrope_packing::{Part, SegmentError, Sequence};

use crate::error::DataError;
use crate::store::{Sequences, unreadable};

/// Shorter beginnings are not shared: the token after them is computed once more in each sequence
/// anyway.
const SHORTEST: usize = 2;

/// The examples of a data set, where each is a sequence, a pair, or sequences that share their
/// beginning.
///
/// The parts of an example with a shared beginning are the beginning, without any trained token,
/// and then the rest of each sequence.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    /// Sequences of all examples, and the end of each example among them.
    members: Vec<u32>,
    ends: Vec<u32>,
    /// Number of tokens that the sequences of each example share.
    beginnings: Vec<u32>,
    saved_tokens: u64,
}

impl Shared {
    /// Pairs: sequences `2i` and `2i + 1` share their beginning if neither is longer than `longest`.
    pub(crate) fn of_pairs(sequences: &Sequences, longest: u64) -> Result<Self, DataError> {
        let mut all = Self::default();
        for index in (0..sequences.len() / 2 * 2).step_by(2) {
            let pair = [index, index + 1];
            let fits = pair.map(|index| sequences.length(index) as u64 <= longest);
            let beginning = match fits {
                [true, true] => {
                    let [chosen, rejected] = pair.map(|index| most(sequences, index));
                    let length = chosen.min(rejected);
                    let chosen = sequences.first_tokens(index, 0..length)?;
                    common(&chosen, &sequences.first_tokens(index + 1, 0..length)?)
                }
                _ => 0,
            };
            all.push(&pair.map(|index| index as u32), beginning);
        }
        Ok(all)
    }

    /// Groups sequences whose beginnings are the same and untrained, as long as a group has at most
    /// `capacity` tokens and none of its sequences is longer than `longest`. Examples are in the
    /// order of their first sequences.
    ///
    /// Sequences are sorted by their untrained beginnings, so that those with the longest beginnings
    /// in common are neighbours. Each then joins the group before it if that saves at least as many
    /// tokens as starting a new group with the next one.
    pub(crate) fn of_sequences(
        sequences: &Sequences,
        longest: u64,
        capacity: u64,
    ) -> Result<Self, DataError> {
        let limit = longest.min(capacity);
        let shares = |index: usize| {
            let (beginning, length) = (
                sequences.untrained_beginning(index),
                sequences.length(index),
            );
            beginning >= SHORTEST && beginning < length && length as u64 <= limit
        };
        let all = 0..sequences.len() as u32;
        let (order, alone): (Vec<u32>, Vec<u32>) = all.partition(|&index| shares(index as usize));
        let mut order = order::by_beginnings(sequences, order)?;
        let mut groups = Groups::default();
        // Those that are left alone have new neighbours when the others are gone.
        while groups.add_neighbours(sequences, &mut order, capacity) {}
        let alone = alone
            .into_iter()
            .chain(order.into_iter().map(|(index, _)| index));
        Ok(groups.with_alone(alone.collect()))
    }

    /// Adds an example of these sequences, which share this many tokens.
    fn push(&mut self, members: &[u32], beginning: usize) {
        let shares = beginning >= SHORTEST && members.len() > 1;
        let beginning = if shares { beginning } else { 0 };
        self.saved_tokens += (members.len().saturating_sub(1) * beginning) as u64;
        self.members.extend(members);
        self.ends.push(self.members.len() as u32);
        self.beginnings.push(beginning as u32);
    }

    /// Number of examples.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// Number of tokens that are not computed, because another sequence of their example has them.
    pub fn saved_tokens(&self) -> u64 {
        self.saved_tokens
    }

    /// Indices of the sequences of an example.
    pub(crate) fn members(&self, example: usize) -> &[u32] {
        let Some(&end) = self.ends.get(example) else {
            return &[];
        };
        let start = example.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.members[start as usize..end as usize]
    }

    fn beginning(&self, example: usize) -> usize {
        self.beginnings
            .get(example)
            .map_or(0, |&tokens| tokens as usize)
    }

    /// Number of tokens of an example that are computed.
    pub(crate) fn length(&self, sequences: &Sequences, example: usize) -> usize {
        let members = self.members(example);
        let lengths = members
            .iter()
            .map(|&index| sequences.length(index as usize));
        lengths.sum::<usize>() - members.len().saturating_sub(1) * self.beginning(example)
    }

    /// Parts of an example.
    pub(crate) fn parts(
        &self,
        sequences: &Sequences,
        example: usize,
    ) -> Result<Vec<Part<'static>>, SegmentError> {
        let beginning = self.beginning(example);
        let mut parts = Vec::new();
        let mut push = |sequence: Sequence, prefix| {
            parts.push(Part {
                sequence: Cow::Owned(sequence),
                prefix,
            });
        };
        for (place, &index) in self.members(example).iter().enumerate() {
            let sequence = sequences.get(index as usize);
            let sequence = sequence.map_err(|error| unreadable(example, &error))?;
            if beginning == 0 {
                push(sequence, None);
                continue;
            }
            if place == 0 {
                push(sequence.part(0..beginning), None);
            }
            push(sequence.part(beginning..sequence.len()), Some(0));
        }
        Ok(parts)
    }

    /// Index of the sequence that a part belongs to; `None` for a beginning.
    pub(crate) fn sequence_of(&self, example: usize, part: usize) -> Option<usize> {
        let member = match self.beginning(example) {
            0 => part,
            _ => part.checked_sub(1)?,
        };
        let index = self.members(example).get(member);
        index.map(|&index| index as usize)
    }
}

/// Groups of several sequences.
#[derive(Default)]
struct Groups {
    members: Vec<u32>,
    /// First member of each group, place of its members, their number, and what they share.
    groups: Vec<(u32, u32, u32, u32)>,
}

impl Groups {
    /// Groups neighbours in `order`, where each is beside the number of tokens that it has in common
    /// with the one before it, and leaves those without a group there. Returns whether there was a
    /// group.
    fn add_neighbours(
        &mut self,
        sequences: &Sequences,
        order: &mut Vec<(u32, u32)>,
        capacity: u64,
    ) -> bool {
        let before = self.groups.len();
        let mut alone = Vec::new();
        // What those between the last one that was left alone and the next have in common.
        let mut between = u32::MAX;
        let mut place = 0;
        while place < order.len() {
            let (first, with_before) = order[place];
            between = between.min(with_before);
            let mut beginning = sequences.untrained_beginning(first as usize);
            let mut lengths = sequences.length(first as usize);
            let mut members = 1;
            while let Some(&(index, with)) = order.get(place + members) {
                let less = (with as usize).min(beginning);
                let length = sequences.length(index as usize);
                let tokens = lengths + length - members * less;
                let gain = (members * less) as i64 - ((members - 1) * beginning) as i64;
                let next = order.get(place + members + 1).map_or(0, |&(_, next)| next);
                let pays = less >= SHORTEST && gain > 0 && gain >= i64::from(next);
                if !pays || tokens as u64 > capacity {
                    break;
                }
                members += 1;
                beginning = less;
                lengths += length;
            }
            let group = &order[place..place + members];
            match group {
                [(index, _)] => {
                    alone.push((*index, between));
                    between = u32::MAX;
                }
                _ => {
                    let start = self.members.len();
                    self.members.extend(group.iter().map(|(index, _)| index));
                    self.members[start..].sort_unstable();
                    let inner = group[1..].iter().map(|&(_, with)| with);
                    between = inner.fold(between, u32::min);
                    self.groups.push((
                        self.members[start],
                        start as u32,
                        members as u32,
                        beginning as u32,
                    ));
                }
            }
            place += members;
        }
        *order = alone;
        self.groups.len() > before
    }

    /// All groups and single sequences, in the order of their first members.
    fn with_alone(mut self, mut alone: Vec<u32>) -> Shared {
        self.groups.sort_unstable();
        alone.sort_unstable();
        let mut shared = Shared::default();
        let mut alone = alone.into_iter().peekable();
        for (first, start, count, beginning) in self.groups {
            while let Some(single) = alone.next_if(|&single| single < first) {
                shared.push(&[single], 0);
            }
            let members = &self.members[start as usize..][..count as usize];
            shared.push(members, beginning as usize);
        }
        alone.for_each(|single| shared.push(&[single], 0));
        shared
    }
}

/// Largest number of tokens that a sequence shares: those before its first token with a target, and
/// at least one less than it has.
fn most(sequences: &Sequences, index: usize) -> usize {
    let rest = sequences.length(index).saturating_sub(1);
    sequences.untrained_beginning(index).min(rest)
}

/// Number of tokens that both begin with.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A prompt and an answer, which is trained.
    fn sequence(prompt: &[u32], answer: &[u32]) -> Sequence {
        let tokens = [prompt, answer].concat();
        let labels = prompt.iter().map(|_| -100);
        let labels = labels.chain(answer.iter().map(|&token| token.into()));
        let labels: Vec<i64> = labels.collect();
        Sequence::from_labels(tokens, &labels).unwrap()
    }

    fn of_pairs(pair: &[Sequence], longest: u64) -> Shared {
        Shared::of_pairs(&pair.iter().cloned().collect(), longest).unwrap()
    }

    fn of_sequences(all: &[Sequence], longest: u64, capacity: u64) -> Shared {
        Shared::of_sequences(&all.iter().cloned().collect(), longest, capacity).unwrap()
    }

    /// Tokens and prefix of each part.
    fn parts(
        shared: &Shared,
        sequences: &[Sequence],
        example: usize,
    ) -> Vec<(Vec<u32>, Option<usize>)> {
        let sequences = sequences.iter().cloned().collect();
        let parts = shared.parts(&sequences, example).unwrap();
        let length: usize = parts.iter().map(|part| part.sequence.len()).sum();
        assert_eq!(shared.length(&sequences, example), length);
        parts
            .iter()
            .map(|part| (part.sequence.tokens().to_vec(), part.prefix))
            .collect()
    }

    #[test]
    fn a_pair_shares_its_prompt_but_the_last_token() {
        let pair = [sequence(&[1, 2, 3], &[7, 8]), sequence(&[1, 2, 3], &[9])];
        let shared = of_pairs(&pair, u64::MAX);
        assert_eq!(
            parts(&shared, &pair, 0),
            [
                (vec![1, 2], None),
                (vec![3, 7, 8], Some(0)),
                (vec![3, 9], Some(0))
            ]
        );
        assert_eq!((shared.count(), shared.saved_tokens()), (1, 2));
        assert_eq!(shared.members(0), [0, 1]);
        let of = |part| shared.sequence_of(0, part);
        assert_eq!([of(0), of(1), of(2), of(3)], [None, Some(0), Some(1), None]);
        // No target is lost, and none lies in the beginning.
        let parts = shared.parts(&pair.into_iter().collect(), 0).unwrap();
        assert_eq!(parts[0].sequence.targets(), [-100, -100]);
        assert_eq!(parts[1].sequence.targets(), [7, 8, -100]);
    }

    #[test]
    fn no_trained_token_is_shared_and_no_short_beginning() {
        for pair in [
            // The answers begin alike; the prompt is too short.
            [sequence(&[1, 2], &[3, 4]), sequence(&[1, 2], &[3, 5])],
            // The prompts differ.
            [sequence(&[1, 2, 3], &[4]), sequence(&[1, 3, 2], &[4])],
            [sequence(&[], &[1, 2, 3, 4]), sequence(&[], &[1, 2, 3, 5])],
        ] {
            let shared = of_pairs(&pair, u64::MAX);
            let whole: Vec<_> = pair.iter().map(|s| (s.tokens().to_vec(), None)).collect();
            assert_eq!(parts(&shared, &pair, 0), whole);
            assert_eq!(shared.saved_tokens(), 0);
        }
        let pair = [sequence(&[1, 2, 3, 4], &[5]), sequence(&[1, 2, 3, 4], &[6])];
        assert_eq!(of_pairs(&pair, 5).saved_tokens(), 3);
        assert_eq!(of_pairs(&pair, 4).saved_tokens(), 0);
        assert_eq!(of_pairs(&pair, 4).count(), 1);
    }

    #[test]
    fn sequences_are_grouped_where_it_saves_most() {
        let system = [1, 1, 1];
        let prompt = |own: &[u32]| [&system[..], own].concat();
        let long: Vec<u32> = (10..30).collect();
        let all = [
            sequence(&prompt(&[40, 41]), &[9]),
            sequence(&prompt(&long), &[5, 6]),
            sequence(&[2, 3], &[4]),
            sequence(&prompt(&long), &[7]),
            sequence(&prompt(&[50]), &[8, 8]),
        ];
        let groups = |capacity| {
            let shared = of_sequences(&all, u64::MAX, capacity);
            let members = (0..shared.count()).map(|example| shared.members(example).to_vec());
            (members.collect::<Vec<_>>(), shared.saved_tokens())
        };
        // The long prompt is shared whole (but its last token), and the system prompt by the rest.
        assert_eq!(groups(100), (vec![vec![0, 4], vec![1, 3], vec![2]], 22 + 3));
        // Too long a group is not made.
        assert_eq!(groups(27), groups(100));
        assert_eq!(groups(26).1, 0);
        assert_eq!(groups(9), (vec![vec![0, 4], vec![1], vec![2], vec![3]], 3));
        assert_eq!(groups(8).1, 0);
        let shared = of_sequences(&all, u64::MAX, 100);
        assert_eq!(
            parts(&shared, &all, 0),
            [
                (system.to_vec(), None),
                (vec![40, 41, 9], Some(0)),
                (vec![50, 8, 8], Some(0))
            ]
        );
        // Every sequence is in one example, once.
        let mut members: Vec<u32> = (0..3).flat_map(|e| shared.members(e).to_vec()).collect();
        members.sort_unstable();
        assert_eq!(members, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn nothing_is_shared_by_nothing() {
        for shared in [of_pairs(&[], 9), of_sequences(&[], 9, 9)] {
            assert_eq!((shared.count(), shared.saved_tokens()), (0, 0));
        }
        let untrained = [sequence(&[1, 2, 3], &[]), sequence(&[1, 2, 3], &[])];
        assert_eq!(of_sequences(&untrained, 9, 9).saved_tokens(), 0);
    }
}
