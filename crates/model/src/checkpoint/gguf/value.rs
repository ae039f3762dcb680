//! Metadata values as a GGUF file has them: a list takes as much memory as in the file.

use std::fmt;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum GgufValue {
    /// A signed or unsigned whole number of any width.
    Integer(i128),
    /// A floating-point number of any width.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// Text.
    Text(String),
    /// A list of values of one type.
    List(List),
}

/// For messages, however long it is.
impl fmt::Display for GgufValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GgufValue::Integer(number) => write!(f, "{number}"),
            GgufValue::Float(number) => write!(f, "{number}"),
            GgufValue::Bool(truth) => write!(f, "{truth}"),
            GgufValue::Text(text) => match text.char_indices().nth(40) {
                None => write!(f, "{text:?}"),
                Some((end, _)) => write!(f, "{:?}…", &text[..end]),
            },
            GgufValue::List(list) => write!(f, "a list of {}", list.len),
        }
    }
}

/// A list of numbers, truth values or texts, as bytes of the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct List {
    /// The format's number for the type of the elements.
    pub kind: u32,
    pub len: usize,
    /// One after the other; before a text stands its length.
    pub bytes: Vec<u8>,
}

/// The format's number for texts.
pub(super) const TEXT: u32 = 8;

/// Bytes of a value of this type; `None` for texts, lists and what is unknown.
pub(super) fn width(kind: u32) -> Option<usize> {
    Some(match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        _ => return None,
    })
}

/// The value of `bytes`, as many as [`width`] says.
pub(super) fn scalar(kind: u32, bytes: &[u8]) -> Option<GgufValue> {
    let mut word = [0; 8];
    word.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let unsigned = u64::from_le_bytes(word);
    let integer = |n: i128| Some(GgufValue::Integer(n));
    match kind {
        0 | 2 | 4 | 10 => integer(unsigned.into()),
        1 => integer((unsigned as i8).into()),
        3 => integer((unsigned as i16).into()),
        5 => integer((unsigned as i32).into()),
        11 => integer((unsigned as i64).into()),
        6 => Some(GgufValue::Float(f32::from_bits(unsigned as u32).into())),
        7 => Some(GgufValue::Bool(unsigned != 0)),
        12 => Some(GgufValue::Float(f64::from_bits(unsigned))),
        _ => None,
    }
}

impl List {
    /// The elements, one after the other; ends early only where the bytes do.
    pub fn iter(&self) -> impl Iterator<Item = GgufValue> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            if self.kind == TEXT {
                let (length, after) = rest.split_first_chunk::<8>()?;
                let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
                let (text, after) = after.split_at_checked(length)?;
                rest = after;
                return Some(GgufValue::Text(String::from_utf8_lossy(text).into_owned()));
            }
            let (value, after) = rest.split_at_checked(width(self.kind)?)?;
            rest = after;
            scalar(self.kind, value)
        })
        .take(self.len)
    }
}
