//! First-fit decreasing: longest first, into the first pack that holds it.

use crate::{
    Histogram, HistogramPacker, Limits, PackError, Strategies,
    random::{Random, Stream},
    strategies::{Contents, Link},
};

/// Exact first-fit decreasing on the histogram: at most 11/9 · OPT + 6/9 packs.
///
/// Packs are numbered in the order in which they are opened. A run of neighbours with equal
/// contents is one node of a treap, which finds the first run with enough room in O(log groups).
pub(crate) struct FirstFit;

impl HistogramPacker for FirstFit {
    fn pack(&self, histogram: &Histogram, limits: &Limits) -> Result<Strategies, PackError> {
        let mut packs = Packs::default();
        let mut contents = Contents::default();
        for &(length, mut left) in histogram.entries().iter().rev() {
            let tokens = u64::from(length);
            while left > 0 {
                let group = packs.take_first(tokens).unwrap_or_else(|| Group {
                    start: packs.opened,
                    count: u64::MAX - packs.opened,
                    room: limits.capacity,
                    sequences: 0,
                    contents: None,
                });
                // The first pack of the group takes as many as fit before the second gets any.
                let repeat = (group.room / tokens)
                    .min(limits.sequences - group.sequences)
                    .min(left);
                let count = group.count.min(left / repeat);
                left -= count * repeat;
                let full = group.sequences + repeat == limits.sequences;
                let room = group.room - repeat * tokens;
                packs.insert(Group {
                    start: group.start,
                    count,
                    room: if full { 0 } else { room },
                    sequences: group.sequences + repeat,
                    contents: contents.with(group.contents, length, repeat),
                });
                if group.contents.is_none() {
                    packs.opened += count;
                } else if group.count > count {
                    packs.insert(Group {
                        start: group.start + count,
                        count: group.count - count,
                        ..group
                    });
                }
            }
        }
        let mut strategies = Strategies::default();
        for node in packs.nodes.iter().filter(|node| node.group.count > 0) {
            strategies.push(node.group.count, contents.runs(node.group.contents));
        }
        Ok(strategies)
    }
}

/// A group of `count` equal packs, numbered from `start`.
#[derive(Clone, Copy)]
struct Group {
    start: u64,
    count: u64,
    room: u64,
    sequences: u64,
    contents: Link,
}

struct Node {
    group: Group,
    priority: u64,
    /// Largest room in the subtree.
    most: u64,
    left: usize,
    right: usize,
}

/// A treap ordered by `start`; `NIL` = no subtree.
struct Packs {
    nodes: Vec<Node>,
    /// Nodes that are not in the tree.
    free: Vec<usize>,
    root: usize,
    opened: u64,
    priorities: Random,
}

const NIL: usize = usize::MAX;

impl Default for Packs {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            free: Vec::new(),
            root: NIL,
            opened: 0,
            priorities: Random::stream(0, Stream::Packs),
        }
    }
}

impl Packs {
    fn most(&self, node: usize) -> u64 {
        if node == NIL {
            0
        } else {
            self.nodes[node].most
        }
    }

    fn refresh(&mut self, node: usize) {
        let Node { left, right, .. } = self.nodes[node];
        let below = self.most(left).max(self.most(right));
        self.nodes[node].most = self.nodes[node].group.room.max(below);
    }

    /// Removes and returns the first group with room for `tokens`.
    fn take_first(&mut self, tokens: u64) -> Option<Group> {
        if self.most(self.root) < tokens {
            return None;
        }
        let mut path = Vec::new();
        let mut at = self.root;
        loop {
            let Node { group, left, .. } = self.nodes[at];
            if self.most(left) >= tokens {
                path.push(at);
                at = left;
            } else if group.room >= tokens {
                break;
            } else {
                path.push(at);
                at = self.nodes[at].right;
            }
        }
        let Node { left, right, .. } = self.nodes[at];
        let merged = self.merge(left, right);
        match path.last() {
            None => self.root = merged,
            Some(&parent) if self.nodes[parent].left == at => self.nodes[parent].left = merged,
            Some(&parent) => self.nodes[parent].right = merged,
        }
        for &node in path.iter().rev() {
            self.refresh(node);
        }
        self.free.push(at);
        let group = self.nodes[at].group;
        self.nodes[at].group.count = 0;
        Some(group)
    }

    fn insert(&mut self, group: Group) {
        let node = Node {
            group,
            priority: self.priorities.below(u64::MAX),
            most: group.room,
            left: NIL,
            right: NIL,
        };
        let at = self.free.pop().unwrap_or(self.nodes.len());
        if at == self.nodes.len() {
            self.nodes.push(node);
        } else {
            self.nodes[at] = node;
        }
        let (before, after) = self.split(self.root, group.start);
        let before = self.merge(before, at);
        self.root = self.merge(before, after);
    }

    /// Splits a subtree into the nodes with smaller `start` and the others.
    fn split(&mut self, node: usize, start: u64) -> (usize, usize) {
        if node == NIL {
            return (NIL, NIL);
        }
        if self.nodes[node].group.start < start {
            let (before, after) = self.split(self.nodes[node].right, start);
            self.nodes[node].right = before;
            self.refresh(node);
            (node, after)
        } else {
            let (before, after) = self.split(self.nodes[node].left, start);
            self.nodes[node].left = after;
            self.refresh(node);
            (before, node)
        }
    }

    /// Joins two subtrees, all of `left` before all of `right`.
    fn merge(&mut self, left: usize, right: usize) -> usize {
        if left == NIL || right == NIL {
            return if left == NIL { right } else { left };
        }
        if self.nodes[left].priority > self.nodes[right].priority {
            self.nodes[left].right = self.merge(self.nodes[left].right, right);
            self.refresh(left);
            left
        } else {
            self.nodes[right].left = self.merge(left, self.nodes[right].left);
            self.refresh(right);
            right
        }
    }
}
