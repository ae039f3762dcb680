//! Sequences that begin alike, as units in which the beginning is computed once.

use std::cmp::Ordering;
use tightrope_packing::{Part, Sequence};

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
    parts: Vec<SharedPart>,
    /// End of each example among the parts.
    ends: Vec<u32>,
    /// Sequences of all examples, and the end of each example among them.
    members: Vec<u32>,
    member_ends: Vec<u32>,
    saved_tokens: u64,
}

/// A part of an example.
#[derive(Clone, Debug)]
enum SharedPart {
    /// A whole sequence, by its index.
    Whole(u32),
    /// A beginning.
    Beginning(Sequence),
    /// The rest of a sequence, after the part with this index.
    Rest(Sequence, u32),
}

impl Shared {
    /// Pairs: sequences `2i` and `2i + 1` share their beginning if neither is longer than `longest`.
    pub(crate) fn of_pairs(sequences: &[Sequence], longest: u64) -> Self {
        let mut all = Self::default();
        for (index, pair) in (0..).step_by(2).zip(sequences.chunks_exact(2)) {
            let fits = pair.iter().all(|sequence| sequence.len() as u64 <= longest);
            let beginning = match fits {
                true => common(&pair[0], &pair[1]),
                false => 0,
            };
            all.push(sequences, &[index, index + 1], beginning);
        }
        all
    }

    /// Groups sequences whose beginnings are the same and untrained, as long as a group has at most
    /// `capacity` tokens and none of its sequences is longer than `longest`. Examples are in the
    /// order of their first sequences.
    ///
    /// Sequences are sorted by their untrained beginnings, so that those with the longest beginnings
    /// in common are neighbours. Each then joins the group before it if that saves at least as many
    /// tokens as starting a new group with the next one.
    pub(crate) fn of_sequences(sequences: &[Sequence], longest: u64, capacity: u64) -> Self {
        let most = longest.min(capacity);
        let shares = |sequence: &Sequence| {
            let beginning = sequence.untrained_beginning();
            beginning >= SHORTEST && beginning < sequence.len() && sequence.len() as u64 <= most
        };
        let untrained = |index: u32| {
            let sequence = &sequences[index as usize];
            &sequence.tokens()[..sequence.untrained_beginning()]
        };
        let all = 0..sequences.len() as u32;
        let (mut order, alone): (Vec<u32>, Vec<u32>) =
            all.partition(|&index| shares(&sequences[index as usize]));
        order.sort_by(|&a, &b| match untrained(a).cmp(untrained(b)) {
            Ordering::Equal => a.cmp(&b),
            order => order,
        });
        let mut groups = Vec::new();
        // Those that are left alone have new neighbours when the others are gone.
        loop {
            let (grouped, single): (Vec<_>, Vec<_>) = neighbours(sequences, &order, capacity)
                .into_iter()
                .partition(|(group, _)| group.len() > 1);
            order = single.into_iter().flat_map(|(group, _)| group).collect();
            if grouped.is_empty() {
                break;
            }
            groups.extend(grouped);
        }
        let alone = alone.into_iter().chain(order);
        groups.extend(alone.map(|index| (vec![index], 0)));
        for (group, _) in &mut groups {
            group.sort_unstable();
        }
        groups.sort_unstable_by_key(|(group, _)| group[0]);
        let mut shared = Self::default();
        for (group, beginning) in groups {
            shared.push(sequences, &group, beginning);
        }
        shared
    }

    /// Adds an example of these sequences, which share this many tokens.
    fn push(&mut self, sequences: &[Sequence], members: &[u32], beginning: usize) {
        let start = self.parts.len();
        let shares = beginning >= SHORTEST && members.len() > 1;
        if shares {
            let first = &sequences[members[0] as usize];
            self.parts
                .push(SharedPart::Beginning(first.part(0..beginning)));
            self.saved_tokens += ((members.len() - 1) * beginning) as u64;
        }
        let before = self.parts.len() - start;
        self.parts.extend(members.iter().map(|&index| {
            let sequence = &sequences[index as usize];
            match shares {
                true => SharedPart::Rest(sequence.part(beginning..sequence.len()), index),
                false => SharedPart::Whole(index),
            }
        }));
        debug_assert_eq!(before, usize::from(shares));
        self.ends.push(self.parts.len() as u32);
        self.members.extend(members);
        self.member_ends.push(self.members.len() as u32);
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
        of(&self.members, &self.member_ends, example)
    }

    /// A part of an example; `None` beyond the last.
    pub(crate) fn part<'a>(
        &'a self,
        sequences: &'a [Sequence],
        example: usize,
        part: usize,
    ) -> Option<Part<'a>> {
        let (sequence, prefix) = match of(&self.parts, &self.ends, example).get(part)? {
            SharedPart::Whole(index) => (sequences.get(*index as usize)?, None),
            SharedPart::Beginning(sequence) => (sequence, None),
            SharedPart::Rest(sequence, _) => (sequence, Some(0)),
        };
        Some(Part { sequence, prefix })
    }

    /// Index of the sequence that a part belongs to; `None` for a beginning.
    pub(crate) fn sequence_of(&self, example: usize, part: usize) -> Option<usize> {
        match of(&self.parts, &self.ends, example).get(part)? {
            SharedPart::Beginning(_) => None,
            SharedPart::Whole(index) | SharedPart::Rest(_, index) => Some(*index as usize),
        }
    }
}

/// Groups neighbours in `order`, each group with the number of tokens that it shares.
fn neighbours(sequences: &[Sequence], order: &[u32], capacity: u64) -> Vec<(Vec<u32>, usize)> {
    let mut groups: Vec<(Vec<u32>, usize)> = Vec::new();
    // Sum of the lengths of the last group.
    let mut lengths = 0;
    for (place, &index) in order.iter().enumerate() {
        let sequence = &sequences[index as usize];
        let with = |other: u32| common(sequence, &sequences[other as usize]);
        if let Some((group, beginning)) = groups.last_mut() {
            // The order makes the last member the most similar one.
            let before = group.last().copied().unwrap_or(index);
            let less = with(before).min(*beginning);
            let members = group.len();
            let tokens = lengths + sequence.len() - members * less;
            let gain = (members * less) as i64 - ((members - 1) * *beginning) as i64;
            let next = order.get(place + 1).map_or(0, |&next| with(next));
            let pays = less >= SHORTEST && gain > 0 && gain >= next as i64;
            if pays && tokens as u64 <= capacity {
                group.push(index);
                *beginning = less;
                lengths += sequence.len();
                continue;
            }
        }
        groups.push((vec![index], sequence.untrained_beginning()));
        lengths = sequence.len();
    }
    groups
}

/// The items of an example; none if there is no such example.
fn of<'a, T>(items: &'a [T], ends: &[u32], example: usize) -> &'a [T] {
    let start = match example {
        0 => 0,
        _ => ends
            .get(example - 1)
            .map_or(items.len(), |&end| end as usize),
    };
    let end = ends.get(example).map_or(start, |&end| end as usize);
    &items[start..end]
}

/// Number of tokens that both begin with before the first token with a target, at least one less
/// than either has.
fn common(a: &Sequence, b: &Sequence) -> usize {
    let same = a
        .tokens()
        .iter()
        .zip(b.tokens())
        .take_while(|(a, b)| a == b);
    let most = |sequence: &Sequence| {
        let rest = sequence.len().saturating_sub(1);
        sequence.untrained_beginning().min(rest)
    };
    same.count().min(most(a)).min(most(b))
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

    /// Tokens and prefix of each part.
    fn parts<'a>(
        shared: &'a Shared,
        sequences: &'a [Sequence],
        example: usize,
    ) -> Vec<(&'a [u32], Option<usize>)> {
        let parts = (0..).map_while(|part| shared.part(sequences, example, part));
        parts
            .map(|part| (part.sequence.tokens(), part.prefix))
            .collect()
    }

    #[test]
    fn a_pair_shares_its_prompt_but_the_last_token() {
        let pair = [sequence(&[1, 2, 3], &[7, 8]), sequence(&[1, 2, 3], &[9])];
        let shared = Shared::of_pairs(&pair, u64::MAX);
        assert_eq!(
            parts(&shared, &pair, 0),
            [
                (&[1, 2][..], None),
                (&[3, 7, 8][..], Some(0)),
                (&[3, 9][..], Some(0))
            ]
        );
        assert_eq!((shared.count(), shared.saved_tokens()), (1, 2));
        assert_eq!(shared.members(0), [0, 1]);
        let of = |part| shared.sequence_of(0, part);
        assert_eq!([of(0), of(1), of(2), of(3)], [None, Some(0), Some(1), None]);
        // No target is lost, and none lies in the beginning.
        let targets = |part| shared.part(&pair, 0, part).unwrap().sequence.targets();
        assert_eq!(targets(0), [-100, -100]);
        assert_eq!(targets(1), [7, 8, -100]);
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
            let shared = Shared::of_pairs(&pair, u64::MAX);
            let whole: Vec<_> = pair.iter().map(|s| (s.tokens(), None)).collect();
            assert_eq!(parts(&shared, &pair, 0), whole);
            assert_eq!(shared.saved_tokens(), 0);
        }
        let pair = [sequence(&[1, 2, 3, 4], &[5]), sequence(&[1, 2, 3, 4], &[6])];
        assert_eq!(Shared::of_pairs(&pair, 5).saved_tokens(), 3);
        assert_eq!(Shared::of_pairs(&pair, 4).saved_tokens(), 0);
        assert_eq!(Shared::of_pairs(&pair, 4).count(), 1);
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
            let shared = Shared::of_sequences(&all, u64::MAX, capacity);
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
        let shared = Shared::of_sequences(&all, u64::MAX, 100);
        assert_eq!(
            parts(&shared, &all, 0),
            [
                (&system[..], None),
                (&[40, 41, 9][..], Some(0)),
                (&[50, 8, 8][..], Some(0))
            ]
        );
        // Every sequence is in one example, once.
        let mut members: Vec<u32> = (0..3).flat_map(|e| shared.members(e).to_vec()).collect();
        members.sort_unstable();
        assert_eq!(members, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn nothing_is_shared_by_nothing() {
        for shared in [Shared::of_pairs(&[], 9), Shared::of_sequences(&[], 9, 9)] {
            assert_eq!((shared.count(), shared.saved_tokens()), (0, 0));
        }
        let untrained = [sequence(&[1, 2, 3], &[]), sequence(&[1, 2, 3], &[])];
        assert_eq!(Shared::of_sequences(&untrained, 9, 9).saved_tokens(), 0);
    }
}
