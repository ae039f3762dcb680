//! Packs by their contents: the number of packs for each multiset of lengths.

use crate::{Histogram, PackError};

/// Occurrences of one length in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The length.
    pub length: u32,
    /// Number of times that the length occurs in the pack.
    pub repeat: u64,
}

/// Groups of packs that hold the same lengths.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Strategies {
    counts: Vec<u64>,
    ends: Vec<usize>,
    runs: Vec<Run>,
}

impl Strategies {
    /// Adds `count` packs that hold `runs`; empty ones are left out.
    pub fn push(&mut self, count: u64, runs: impl IntoIterator<Item = Run>) {
        let start = self.runs.len();
        self.runs.extend(runs);
        if count == 0 || self.runs.len() == start {
            self.runs.truncate(start);
            return;
        }
        self.counts.push(count);
        self.ends.push(self.runs.len());
    }

    /// Pairs of `(number of packs, contents of each)`.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u64, &[Run])> {
        (0..self.counts.len()).map(|index| (self.counts[index], self.runs(index)))
    }

    /// Contents of the packs of one group.
    pub fn runs(&self, index: usize) -> &[Run] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.runs[start..self.ends[index]]
    }

    /// Number of groups.
    pub fn len(&self) -> usize {
        self.counts.len()
    }
    /// Whether there are no packs.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
    /// Number of packs; at most the number of sequences.
    pub fn packs(&self) -> u64 {
        self.counts.iter().sum()
    }
    /// Histogram of the lengths in all packs.
    pub fn histogram(&self) -> Result<Histogram, PackError> {
        let runs = self
            .iter()
            .flat_map(|(count, runs)| runs.iter().map(move |run| (run.length, count * run.repeat)));
        Histogram::from_pairs(runs)
    }
}

/// Contents of packs under construction: packs that were equal up to some length share that part.
#[derive(Default)]
pub(crate) struct Contents(Vec<(Link, Run)>);

/// Last run of a pack, or none.
pub(crate) type Link = Option<u32>;

impl Contents {
    /// Appends a run to `pack`.
    pub(crate) fn with(&mut self, pack: Link, length: u32, repeat: u64) -> Link {
        // There is one node per placement of a group: memory ends long before 2³² nodes.
        let link = u32::try_from(self.0.len()).ok();
        self.0.push((pack, Run { length, repeat }));
        link
    }

    /// The runs of a pack, longest first.
    pub(crate) fn runs(&self, mut pack: Link) -> Vec<Run> {
        let mut runs = Vec::new();
        while let Some(link) = pack {
            let (before, run) = self.0[link as usize];
            runs.push(run);
            pack = before;
        }
        runs.reverse();
        // The same length may have entered one by one.
        runs.dedup_by(|next, kept| {
            let same = next.length == kept.length;
            if same {
                kept.repeat += next.repeat;
            }
            same
        });
        runs
    }
}
