//! The width of the offsets that a kernel computes.

/// Whether the offsets of a launch fit 32 bits; the value is proved from the largest offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IndexWidth {
    /// All offsets fit `u32`.
    Narrow,
    /// Some offset needs `u64`.
    Wide,
}

impl IndexWidth {
    /// The narrowest width for offsets up to and including `largest` (strides included, in elements).
    pub const fn for_largest_offset(largest: u64) -> Self {
        // Compilers generate signed 32-bit arithmetic for the narrow form.
        if largest <= i32::MAX as u64 {
            IndexWidth::Narrow
        } else {
            IndexWidth::Wide
        }
    }

    /// Suffix of kernel symbols.
    pub const fn suffix(self) -> &'static str {
        match self {
            IndexWidth::Narrow => "u32",
            IndexWidth::Wide => "u64",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::IndexWidth;

    #[test]
    fn width_changes_just_above_the_largest_signed_offset() {
        assert_eq!(
            IndexWidth::for_largest_offset((1 << 31) - 1),
            IndexWidth::Narrow
        );
        assert_eq!(IndexWidth::for_largest_offset(1 << 31), IndexWidth::Wide);
    }
}
