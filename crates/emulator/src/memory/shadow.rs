//! The race check: it records the last write and the last reads of every granule of a range of
//! memory.
//!
//! Each new access is compared with the recorded ones: two accesses, at least one of them a write,
//! must be ordered by a happens-before edge (program order, barrier, `__syncwarp`, fence and
//! atomic, stream order) or both be atomic. A record that is ordered before the new access may be
//! replaced by it; concurrent reads are merged into a set of threads.
use super::access::{Access, Kind};

/// Decides whether a recorded access happens before the current one.
pub(crate) trait Judge {
    fn is_before(&self, earlier: &Access) -> bool;
}

/// Two unordered accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Race {
    pub earlier: Access,
    pub now: Kind,
}

#[derive(Clone, Copy)]
struct Cell {
    write: Access,
    read: Access,
}

impl Cell {
    const EMPTY: Cell = Cell {
        write: Access::NONE,
        read: Access::NONE,
    };

    fn touch(&mut self, now: Access, judge: &impl Judge) -> Result<(), Race> {
        let race = |earlier| {
            Err(Race {
                earlier,
                now: now.kind,
            })
        };
        let write_is_before = self.write.is_none() || judge.is_before(&self.write);
        match now.kind {
            Kind::Read | Kind::AtomicRead => {
                let both_atomic = now.kind != Kind::Read && self.write.kind == Kind::Atomic;
                if !write_is_before && !both_atomic {
                    return race(self.write);
                }
                let replace = self.read.is_none() || judge.is_before(&self.read);
                self.read = if replace {
                    now
                } else {
                    now.merged_with(self.read)
                };
            }
            Kind::Write | Kind::Atomic => {
                let both_atomic = now.kind == Kind::Atomic && self.write.kind == Kind::Atomic;
                if !write_is_before && !both_atomic {
                    return race(self.write);
                }
                let reads_atomic = now.kind == Kind::Atomic && self.read.kind == Kind::AtomicRead;
                if !self.read.is_none() && !reads_atomic && !judge.is_before(&self.read) {
                    return race(self.read);
                }
                self.write = if write_is_before {
                    now
                } else {
                    now.merged_with(self.write)
                };
            }
        }
        Ok(())
    }
}

/// Records of a range of memory. The granule starts at the size of the first access and becomes
/// finer with smaller accesses.
pub(crate) struct Shadow {
    bytes: usize,
    granule_log2: u32,
    cells: Vec<Cell>,
}

impl Shadow {
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            bytes,
            granule_log2: 0,
            cells: Vec::new(),
        }
    }

    /// Clears all records.
    pub(crate) fn clear(&mut self) {
        self.cells.clear();
    }

    /// Records an access of `bytes` bytes (a power of two) at the aligned `offset`.
    #[inline]
    pub(crate) fn touch(
        &mut self,
        offset: usize,
        bytes: usize,
        now: Access,
        judge: &impl Judge,
    ) -> Result<(), Race> {
        let log2 = bytes.trailing_zeros();
        if self.cells.is_empty() {
            self.granule_log2 = log2;
            self.cells = vec![Cell::EMPTY; self.bytes.div_ceil(bytes)];
        } else if log2 < self.granule_log2 {
            self.refine(log2);
        }
        let first = offset >> self.granule_log2;
        let count = bytes >> self.granule_log2;
        for cell in &mut self.cells[first..first + count] {
            cell.touch(now, judge)?;
        }
        Ok(())
    }

    /// Records an access of any length, from a copy by the host.
    pub(crate) fn touch_range(
        &mut self,
        offset: usize,
        bytes: usize,
        now: Access,
        judge: &impl Judge,
    ) -> Result<(), Race> {
        let (mut at, end) = (offset, offset + bytes);
        while at < end {
            let most = if self.cells.is_empty() {
                4
            } else {
                self.granule_log2
            };
            let mut log2 = most.min(at.trailing_zeros());
            while 1 << log2 > end - at {
                log2 -= 1;
            }
            self.touch(at, 1 << log2, now, judge)?;
            at += 1 << log2;
        }
        Ok(())
    }

    fn refine(&mut self, log2: u32) {
        let times = 1usize << (self.granule_log2 - log2);
        let fine = self.bytes.div_ceil(1 << log2);
        let cells = self
            .cells
            .iter()
            .flat_map(|cell| std::iter::repeat_n(*cell, times));
        self.cells = cells.take(fine).collect();
        self.granule_log2 = log2;
    }
}

#[cfg(test)]
mod tests {
    use super::super::access::Scope;
    use super::*;

    /// Accesses with a stamp below the number, or of the same lane, are ordered before.
    struct Before(u32, u32);
    impl Judge for Before {
        fn is_before(&self, earlier: &Access) -> bool {
            earlier.stamp < self.0 || (earlier.scope == Scope::Lanes && earlier.mask == self.1)
        }
    }

    fn access(lane: u32, stamp: u32, kind: Kind) -> Access {
        Access {
            operation: 1,
            stamp,
            mask: 1 << lane,
            kind,
            ..Access::NONE
        }
    }

    fn touch(shadow: &mut Shadow, at: usize, n: usize, lane: u32, stamp: u32, kind: Kind) -> bool {
        let judge = Before(stamp, 1 << lane);
        shadow
            .touch(at, n, access(lane, stamp, kind), &judge)
            .is_ok()
    }

    #[test]
    fn conflicts_need_an_order_between_them() {
        use Kind::*;
        for (first, second, allowed) in [
            (Read, Read, true),
            (Read, Write, false),
            (Write, Read, false),
            (Write, Write, false),
            (Atomic, Atomic, true),
            (Atomic, Read, false),
            (Read, Atomic, false),
            (Atomic, Write, false),
            (Write, Atomic, false),
            (AtomicRead, Read, true),
            (AtomicRead, Write, false),
            (AtomicRead, Atomic, true),
            (Atomic, AtomicRead, true),
            (Write, AtomicRead, false),
        ] {
            let mut shadow = Shadow::new(64);
            assert!(touch(&mut shadow, 0, 4, 0, 1, first));
            assert_eq!(
                touch(&mut shadow, 0, 4, 1, 1, second),
                allowed,
                "{first:?} {second:?}"
            );
            let mut shadow = Shadow::new(64);
            assert!(touch(&mut shadow, 0, 4, 0, 1, first));
            assert!(
                touch(&mut shadow, 0, 4, 1, 2, second),
                "ordered {first:?} {second:?}"
            );
            let mut shadow = Shadow::new(64);
            assert!(touch(&mut shadow, 0, 4, 0, 1, first));
            assert!(
                touch(&mut shadow, 0, 4, 0, 1, second),
                "same lane {first:?} {second:?}"
            );
        }
    }

    #[test]
    fn every_concurrent_reader_counts() {
        let mut shadow = Shadow::new(64);
        assert!(touch(&mut shadow, 0, 4, 0, 1, Kind::Read));
        assert!(touch(&mut shadow, 0, 4, 1, 1, Kind::Read));
        assert!(
            !touch(&mut shadow, 0, 4, 1, 1, Kind::Write),
            "lane 0 read it too"
        );
    }

    #[test]
    fn a_finer_access_refines_the_granule() {
        let mut shadow = Shadow::new(64);
        assert!(touch(&mut shadow, 0, 16, 0, 1, Kind::Write));
        assert!(!touch(&mut shadow, 14, 2, 1, 1, Kind::Read));
        assert!(touch(&mut shadow, 16, 2, 1, 1, Kind::Read));
        assert!(
            touch(&mut shadow, 18, 2, 2, 1, Kind::Write),
            "a neighbour is no conflict"
        );
        assert!(!touch(&mut shadow, 16, 4, 3, 1, Kind::Write));
    }

    #[test]
    fn ranges_cover_odd_ends() {
        let mut shadow = Shadow::new(64);
        let judge = Before(0, 0);
        shadow
            .touch_range(3, 18, access(0, 1, Kind::Write), &judge)
            .unwrap();
        for at in 0..64 {
            let inside = (3..21).contains(&at);
            assert_eq!(
                touch(&mut shadow, at, 1, 1, 1, Kind::Read),
                !inside,
                "byte {at}"
            );
        }
    }
}
