//! Groups of equal, unfinished packs, ordered by the room left.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    Histogram, Limits, Strategies,
    strategies::{Contents, Link},
};

/// Chooses among the packs that have room for a sequence.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Takes the fullest pack.
    Least,
    /// Takes the emptiest pack.
    Most,
}

/// Chooses among equally full packs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tie {
    Oldest,
    Newest,
}

struct Group {
    count: u64,
    sequences: u64,
    contents: Link,
}

/// Places lengths from long to short, a whole group of equal packs at a time.
///
/// If the fullest pack is chosen, it stays the fullest pack with room for the next sequence of the
/// same length: so as many sequences enter at once as fit. Cost: O(groups · log groups), with at
/// most about twice as many groups as distinct lengths.
pub(super) fn pack_decreasing(
    histogram: &Histogram,
    limits: &Limits,
    room: Room,
    tie: Tie,
) -> Strategies {
    let mut open: BTreeMap<u64, VecDeque<Group>> = BTreeMap::new();
    let mut contents = Contents::default();
    let mut strategies = Strategies::default();
    for &(length, mut left) in histogram.entries().iter().rev() {
        let tokens = u64::from(length);
        while left > 0 {
            let (remaining, mut group) = take(&mut open, tokens, room, tie).unwrap_or((
                limits.capacity,
                Group {
                    count: u64::MAX,
                    sequences: 0,
                    contents: None,
                },
            ));
            let repeat = match room {
                Room::Least => (remaining / tokens)
                    .min(limits.sequences - group.sequences)
                    .min(left),
                Room::Most => 1,
            };
            let count = group.count.min(left / repeat);
            left -= count * repeat;
            let placed = Group {
                count,
                sequences: group.sequences + repeat,
                contents: contents.with(group.contents, length, repeat),
            };
            if group.contents.is_some() && group.count > count {
                group.count -= count;
                put_back(&mut open, remaining, group, tie);
            }
            let remaining = remaining - repeat * tokens;
            if remaining == 0 || placed.sequences == limits.sequences {
                strategies.push(placed.count, contents.runs(placed.contents));
            } else {
                open.entry(remaining).or_default().push_back(placed);
            }
        }
    }
    for group in open.into_values().flatten() {
        strategies.push(group.count, contents.runs(group.contents));
    }
    strategies
}

fn take(
    open: &mut BTreeMap<u64, VecDeque<Group>>,
    tokens: u64,
    room: Room,
    tie: Tie,
) -> Option<(u64, Group)> {
    let found = match room {
        Room::Least => open.range_mut(tokens..).next(),
        Room::Most => open.range_mut(tokens..).next_back(),
    };
    let (&remaining, groups) = found?;
    let group = match tie {
        Tie::Oldest => groups.pop_front(),
        Tie::Newest => groups.pop_back(),
    }?;
    if groups.is_empty() {
        open.remove(&remaining);
    }
    Some((remaining, group))
}

fn put_back(open: &mut BTreeMap<u64, VecDeque<Group>>, remaining: u64, group: Group, tie: Tie) {
    let groups = open.entry(remaining).or_default();
    match tie {
        Tie::Oldest => groups.push_front(group),
        Tie::Newest => groups.push_back(group),
    }
}
