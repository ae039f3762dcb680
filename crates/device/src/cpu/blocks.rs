//! Cuts rows of several buffers into the same blocks and distributes them over the threads of the
//! CPU.

use crate::Cpu;

/// Up to this number of blocks run on the calling thread: waking another would take longer.
const SEQUENTIAL_BLOCKS: usize = 4;

/// A value that can be split before a row into two independent parts.
pub trait Split: Sized + Send {
    /// Splits into rows `0..row` and rows `row..`.
    fn split(self, row: usize) -> (Self, Self);
}

/// Rows of `width` elements; the last row may be shorter (padding after its elements is not
/// needed).
#[derive(Clone, Copy, Debug)]
pub struct Rows<S> {
    /// The elements.
    pub slice: S,
    /// Number of elements from one row to the next.
    pub width: usize,
}

/// Makes rows of `width` elements of `slice`.
pub fn rows<S>(slice: S, width: usize) -> Rows<S> {
    Rows { slice, width }
}

impl<T: Sync> Split for Rows<&[T]> {
    fn split(self, row: usize) -> (Self, Self) {
        let middle = (row * self.width).min(self.slice.len());
        let (left, right) = self.slice.split_at(middle);
        (rows(left, self.width), rows(right, self.width))
    }
}

impl<T: Send> Split for Rows<&mut [T]> {
    fn split(self, row: usize) -> (Self, Self) {
        let middle = (row * self.width).min(self.slice.len());
        let (left, right) = self.slice.split_at_mut(middle);
        (rows(left, self.width), rows(right, self.width))
    }
}

impl<S: Split> Split for Option<S> {
    fn split(self, row: usize) -> (Self, Self) {
        self.map(|parts| parts.split(row)).unzip()
    }
}

macro_rules! split_tuple {
    ($($part:ident)*) => {
        impl<$($part: Split),*> Split for ($($part,)*) {
            #[allow(non_snake_case, reason = "types and values of a tuple share their names")]
            fn split(self, row: usize) -> (Self, Self) {
                let ($($part,)*) = self;
                $(let $part = $part.split(row);)*
                (($($part.0,)*), ($($part.1,)*))
            }
        }
    };
}
split_tuple!(A B);
split_tuple!(A B C);
split_tuple!(A B C D);

impl Cpu {
    /// Calls `work(first row, number of rows, those rows of parts)` for each block of `block` rows
    /// (the last may be shorter), in any order and on any thread. The start of a block depends on
    /// `block` alone, never on the number of threads. Up to four blocks run on the calling thread.
    pub fn for_each_block<P: Split>(
        &self,
        rows: usize,
        block: usize,
        parts: P,
        work: impl Fn(usize, usize, P) + Sync,
    ) {
        let block = block.max(1);
        if self.threads() == 1 || rows.div_ceil(block) <= SEQUENTIAL_BLOCKS {
            let (mut first, mut rest) = (0, parts);
            while first < rows {
                let count = block.min(rows - first);
                let (now, later) = rest.split(count);
                work(first, count, now);
                (first, rest) = (first + count, later);
            }
        } else {
            self.install(|| halves(0, rows, block, parts, &work));
        }
    }
}

fn halves<P: Split>(
    first: usize,
    rows: usize,
    block: usize,
    parts: P,
    work: &(impl Fn(usize, usize, P) + Sync),
) {
    if rows <= block {
        return work(first, rows, parts);
    }
    let middle = rows.div_ceil(block) / 2 * block;
    let (left, right) = parts.split(middle);
    rayon::join(
        || halves(first, middle, block, left, work),
        || halves(first + middle, rows - middle, block, right, work),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn every_row_is_visited_once_in_the_same_blocks_for_any_number_of_threads() {
        for (count, block) in [
            (0, 3),
            (1, 3),
            (3, 3),
            (4, 3),
            (12, 3),
            (13, 3),
            (40, 1),
            (5, 0),
        ] {
            let mut seen = Vec::new();
            for threads in [1, 2, 3] {
                let cpu = Cpu::new(threads).unwrap();
                // The second buffer ends before the end of its last row.
                let (mut a, b) = (
                    vec![0u32; 2 * count],
                    vec![7u8; (3 * count).saturating_sub(1)],
                );
                let blocks = Mutex::new(Vec::new());
                let parts = (rows(&mut a[..], 2), Some(rows(&b[..], 3)));
                cpu.for_each_block(count, block, parts, |first, length, (a, b)| {
                    assert_eq!(a.slice.len(), 2 * length);
                    assert!(b.unwrap().slice.len() + 1 >= 3 * length);
                    for (index, value) in a.slice.iter_mut().enumerate() {
                        *value += (2 * first + index) as u32 + 1;
                    }
                    blocks.lock().unwrap().push((first, length));
                });
                assert!(a.iter().copied().eq(1..=2 * count as u32));
                let mut blocks = blocks.into_inner().unwrap();
                blocks.sort_unstable();
                seen.push(blocks);
            }
            assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
        }
    }
}
