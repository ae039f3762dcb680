//! Scalar types and state spaces of PTX.
use std::fmt;

/// A fundamental or alternate type of PTX, as written after the dot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[allow(missing_docs, reason = "the names are those of the PTX manual")]
pub enum ScalarType {
    B8,
    U8,
    S8,
    B16,
    U16,
    S16,
    F16,
    BF16,
    B32,
    U32,
    S32,
    F32,
    TF32,
    F16x2,
    BF16x2,
    B64,
    U64,
    S64,
    F64,
    Pred,
}

use ScalarType::*;

const NAMES: [(&str, ScalarType); 20] = [
    ("b8", B8),
    ("u8", U8),
    ("s8", S8),
    ("b16", B16),
    ("u16", U16),
    ("s16", S16),
    ("f16", F16),
    ("bf16", BF16),
    ("b32", B32),
    ("u32", U32),
    ("s32", S32),
    ("f32", F32),
    ("tf32", TF32),
    ("f16x2", F16x2),
    ("bf16x2", BF16x2),
    ("b64", B64),
    ("u64", U64),
    ("s64", S64),
    ("f64", F64),
    ("pred", Pred),
];

impl ScalarType {
    /// The type that PTX writes as `name` (without the dot).
    pub fn parse(name: &str) -> Option<Self> {
        NAMES
            .iter()
            .find(|(text, _)| *text == name)
            .map(|(_, ty)| *ty)
    }

    /// Number of the type; [`Self::from_code`] reverses it.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    pub(crate) fn from_code(code: u8) -> Self {
        NAMES[usize::from(code) % NAMES.len()].1
    }

    /// Size in memory in bytes; a predicate counts as one.
    pub fn bytes(self) -> usize {
        match self {
            B8 | U8 | S8 | Pred => 1,
            B16 | U16 | S16 | F16 | BF16 => 2,
            B64 | U64 | S64 | F64 => 8,
            _ => 4,
        }
    }

    /// Number of bits of a value.
    pub fn bits(self) -> u32 {
        self.bytes() as u32 * 8
    }

    /// Whether the type is a signed integer.
    pub fn is_signed(self) -> bool {
        matches!(self, S8 | S16 | S32 | S64)
    }

    /// Whether the type is an integer or untyped bits.
    pub fn is_integer(self) -> bool {
        !self.is_float() && self != Pred
    }

    /// Whether the type is a floating-point type (packed pairs included).
    pub fn is_float(self) -> bool {
        matches!(self, F16 | BF16 | F32 | TF32 | F16x2 | BF16x2 | F64)
    }
}

impl fmt::Display for ScalarType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES
            .iter()
            .find(|(_, ty)| ty == self)
            .map_or("?", |(name, _)| name);
        write!(f, ".{name}")
    }
}

/// State space of an address. Constant variables are ordinary read-only allocations here, so that
/// each has its own bounds; `.const` and `.global` differ in name only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Space {
    /// Device memory, `.global` and `.const`.
    Global,
    /// Memory of the thread block.
    Shared,
    /// Memory of the thread.
    Local,
    /// Parameters of the kernel.
    Param,
    /// Any space; the address decides.
    Generic,
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Space::Global => "global",
            Space::Shared => "shared",
            Space::Local => "local",
            Space::Param => "param",
            Space::Generic => "generic",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_lead_back() {
        for (name, ty) in NAMES {
            assert_eq!(ScalarType::from_code(ty.code()), ty);
            assert_eq!(ScalarType::parse(name), Some(ty));
            assert_eq!(ty.to_string(), format!(".{name}"));
        }
    }
}
