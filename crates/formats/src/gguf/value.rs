//! Metadata values as stored in a GGUF file: a list takes as much memory as in the file.

use std::fmt;

/// Types of numbers, each with its number in the format.
macro_rules! numbers {
    ($($kind:literal $name:ident $number:ty),* $(,)?) => {
        /// A metadata value of one of the format's types.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs, reason = "the names are those of the types")]
        pub enum Value {
            $($name($number),)*
            Bool(bool),
            Text(String),
            List(List),
        }

        /// Size in bytes of a value of this type; `None` for texts, lists and unknown types.
        pub(super) fn width(kind: u32) -> Option<usize> {
            match kind {
                $($kind => Some(size_of::<$number>()),)*
                BOOL => Some(1),
                _ => None,
            }
        }

        /// The value of `bytes`, which have the length that [`width`] gives.
        pub(super) fn scalar(kind: u32, bytes: &[u8]) -> Option<Value> {
            Some(match kind {
                $($kind => Value::$name(<$number>::from_le_bytes(bytes.try_into().ok()?)),)*
                BOOL => Value::Bool(*bytes.first()? != 0),
                _ => return None,
            })
        }

        impl Value {
            /// Number of the type in the format, and bytes of the value in a file.
            pub(super) fn encode(&self) -> (u32, Vec<u8>) {
                match self {
                    $(Value::$name(number) => ($kind, number.to_le_bytes().into()),)*
                    Value::Bool(truth) => (BOOL, vec![u8::from(*truth)]),
                    Value::Text(words) => (TEXT, text(words)),
                    Value::List(list) => {
                        let (kind, len) = (list.kind.to_le_bytes(), (list.len as u64).to_le_bytes());
                        (LIST, [kind.as_slice(), &len, &list.bytes].concat())
                    }
                }
            }
        }
    };
}

numbers! {
    0 U8 u8, 1 I8 i8, 2 U16 u16, 3 I16 i16, 4 U32 u32, 5 I32 i32,
    6 F32 f32, 10 U64 u64, 11 I64 i64, 12 F64 f64,
}

const BOOL: u32 = 7;
/// Number of the type for texts.
pub(super) const TEXT: u32 = 8;
/// Number of the type for lists.
pub(super) const LIST: u32 = 9;

/// A list of numbers, truth values or texts, as bytes of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct List {
    /// Number of the type of the elements.
    pub(super) kind: u32,
    pub(super) len: usize,
    /// Elements one after the other; every text begins with its length.
    pub(super) bytes: Vec<u8>,
}

/// Encodes a text as in files, beginning with its length.
pub(super) fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

impl Value {
    /// The text, if the value is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if the value is an integer of any width.
    pub fn as_integer(&self) -> Option<i128> {
        Some(match *self {
            Value::U8(n) => n.into(),
            Value::I8(n) => n.into(),
            Value::U16(n) => n.into(),
            Value::I16(n) => n.into(),
            Value::U32(n) => n.into(),
            Value::I32(n) => n.into(),
            Value::U64(n) => n.into(),
            Value::I64(n) => n.into(),
            _ => return None,
        })
    }

    /// The number, if the value is a floating-point number of any width.
    pub fn as_float(&self) -> Option<f64> {
        match *self {
            Value::F32(number) => Some(number.into()),
            Value::F64(number) => Some(number),
            _ => None,
        }
    }

    /// The token id, if the value can be one.
    pub fn as_id(&self) -> Option<u32> {
        u32::try_from(self.as_integer()?).ok()
    }
}

/// Writes the value for messages; long values are shortened.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(truth) => write!(f, "{truth}"),
            Value::Text(text) => match text.char_indices().nth(40) {
                None => write!(f, "{text:?}"),
                Some((end, _)) => write!(f, "{:?}…", &text[..end]),
            },
            Value::List(list) => write!(f, "a list of {}", list.len),
            number => match (number.as_integer(), number.as_float()) {
                (Some(number), _) => write!(f, "{number}"),
                (None, number) => write!(f, "{}", number.unwrap_or(f64::NAN)),
            },
        }
    }
}

impl List {
    /// A list of texts.
    pub fn texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        Self::of(TEXT, texts.into_iter().map(text))
    }

    /// A list of i32, such as types of tokens.
    pub fn i32s(numbers: impl IntoIterator<Item = i32>) -> Self {
        Self::of(5, numbers.into_iter().map(i32::to_le_bytes))
    }

    /// A list of f32, such as scores of tokens.
    pub fn f32s(numbers: impl IntoIterator<Item = f32>) -> Self {
        Self::of(6, numbers.into_iter().map(f32::to_le_bytes))
    }

    /// A list of truth values, such as the layers that have windows.
    pub fn bools(truths: impl IntoIterator<Item = bool>) -> Self {
        Self::of(BOOL, truths.into_iter().map(|truth| [u8::from(truth)]))
    }

    fn of<B: AsRef<[u8]>>(kind: u32, elements: impl Iterator<Item = B>) -> Self {
        let (mut len, mut bytes) = (0, Vec::new());
        for element in elements {
            len += 1;
            bytes.extend(element.as_ref());
        }
        Self { kind, len, bytes }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Elements in order; the iterator ends early only if the bytes do.
    pub fn iter(&self) -> impl Iterator<Item = Value> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            if self.kind == TEXT {
                let (length, after) = rest.split_first_chunk::<8>()?;
                let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
                let (text, after) = after.split_at_checked(length)?;
                rest = after;
                return Some(Value::Text(String::from_utf8_lossy(text).into_owned()));
            }
            let (value, after) = rest.split_at_checked(width(self.kind)?)?;
            rest = after;
            scalar(self.kind, value)
        })
        .take(self.len)
    }
}
