//! The last access to a piece of memory, recorded for the race check.

/// Kind of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Read,
    Write,
    /// A strong (`volatile`, `relaxed`, `acquire`) read: it races with plain writes only.
    AtomicRead,
    /// Read-modify-write or a strong (`volatile`, `relaxed`, `release`) write: it races with plain
    /// accesses only.
    Atomic,
}

impl Kind {
    pub(crate) fn is_read(self) -> bool {
        matches!(self, Kind::Read | Kind::AtomicRead)
    }
}

/// The set of threads that an [`Access`] stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    /// Lanes (mask) of one warp.
    Lanes,
    /// Warps (mask) of one block.
    Warps,
    /// Several blocks of one launch.
    Blocks,
    /// Several launches or copies.
    Operations,
}

/// One access, or several concurrent ones merged (then the stamp is the latest).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Access {
    /// Number of the host operation; 0: no access yet.
    pub operation: u32,
    /// Number of the block in the launch.
    pub block: u32,
    /// Number of synchronisation events in the block at the time of the access.
    pub stamp: u32,
    /// Mask of lanes or warps.
    pub mask: u32,
    /// PTX line, or 0.
    pub line: u32,
    pub warp: u8,
    pub scope: Scope,
    pub kind: Kind,
}

impl Access {
    pub(crate) const NONE: Access = Access {
        operation: 0,
        block: 0,
        stamp: 0,
        mask: 0,
        line: 0,
        warp: 0,
        scope: Scope::Lanes,
        kind: Kind::Read,
    };

    pub(crate) fn is_none(&self) -> bool {
        self.operation == 0
    }

    /// Merges this access with an earlier one that is not ordered before it.
    pub(crate) fn merged_with(mut self, earlier: Access) -> Access {
        if earlier.kind == Kind::Read {
            self.kind = Kind::Read;
        }
        let stamp = self.stamp.max(earlier.stamp);
        let operation = self.operation.max(earlier.operation);
        if self.operation != earlier.operation || earlier.scope == Scope::Operations {
            return Access {
                operation,
                scope: Scope::Operations,
                ..self
            };
        }
        if self.block != earlier.block || earlier.scope == Scope::Blocks {
            return Access {
                scope: Scope::Blocks,
                ..self
            };
        }
        if earlier.scope == Scope::Lanes && earlier.warp == self.warp {
            return Access {
                mask: self.mask | earlier.mask,
                stamp,
                ..self
            };
        }
        let warps = |a: Access| {
            if a.scope == Scope::Lanes {
                1 << a.warp
            } else {
                a.mask
            }
        };
        Access {
            scope: Scope::Warps,
            mask: warps(self) | warps(earlier),
            stamp,
            ..self
        }
    }

    /// Describes the threads, for findings.
    pub(crate) fn describe(&self) -> String {
        let line = if self.line == 0 {
            String::new()
        } else {
            format!(" (PTX line {})", self.line)
        };
        let who = match self.scope {
            Scope::Lanes if self.mask == 0 => "a copy or fill by the host".into(),
            Scope::Lanes if self.mask.count_ones() == 1 => {
                let thread = u32::from(self.warp) * 32 + self.mask.trailing_zeros();
                format!("thread {thread} of block {}", self.block)
            }
            Scope::Lanes => format!(
                "lanes {:#x} of warp {} of block {}",
                self.mask, self.warp, self.block
            ),
            Scope::Warps => format!("warps {:#x} of block {}", self.mask, self.block),
            Scope::Blocks => "several blocks".into(),
            Scope::Operations => "several launches or copies".into(),
        };
        format!("{who}{line}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(block: u32, warp: u8, lane: u32) -> Access {
        let mask = 1 << lane;
        Access {
            operation: 1,
            block,
            stamp: 3,
            mask,
            line: 0,
            warp,
            ..Access::NONE
        }
    }

    #[test]
    fn merging_widens_the_scope_step_by_step() {
        let lanes = by(0, 0, 1).merged_with(by(0, 0, 4));
        assert_eq!((lanes.scope, lanes.mask), (Scope::Lanes, 0b10010));
        let warps = by(0, 2, 0).merged_with(lanes);
        assert_eq!((warps.scope, warps.mask), (Scope::Warps, 0b101));
        let warps = by(0, 5, 0).merged_with(warps);
        assert_eq!((warps.scope, warps.mask), (Scope::Warps, 0b100101));
        let blocks = by(1, 0, 0).merged_with(warps);
        assert_eq!(blocks.scope, Scope::Blocks);
        assert_eq!(by(1, 0, 0).merged_with(blocks).scope, Scope::Blocks);
        let later = Access {
            operation: 2,
            ..by(1, 0, 0)
        };
        assert_eq!(later.merged_with(blocks).scope, Scope::Operations);
    }
}
