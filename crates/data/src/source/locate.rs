//! Finds the place of a value in the text of a JSON row, for error messages.

use crate::error::{Key, KeyPath};

/// Line and column of `text[offset]`, if `text[0]` is at `line` and `column`. Columns count
/// characters; invalid UTF-8 counts by bytes that start a character.
pub(super) fn advance(text: &[u8], offset: usize, line: u64, column: u64) -> (u64, u64) {
    let before = &text[..offset.min(text.len())];
    let lines = before.iter().filter(|&&b| b == b'\n').count() as u64;
    let tail = before.rsplit(|&b| b == b'\n').next().unwrap_or(before);
    let characters = tail.iter().filter(|&&b| b & 0xc0 != 0x80).count() as u64;
    if lines == 0 {
        (line, column + characters)
    } else {
        (line + lines, characters + 1)
    }
}

/// Offset of serde_json's 1-based line and column (its column counts bytes and may be 0).
pub(super) fn offset_of(text: &[u8], line: usize, column: usize) -> usize {
    let start: usize = text
        .split_inclusive(|&b| b == b'\n')
        .take(line.saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    (start + column.saturating_sub(1)).min(text.len())
}

/// Offset of the value at `path` in valid JSON.
///
/// A path that leaves the row (a missing key) gives the deepest value that exists.
pub(super) fn find(text: &[u8], path: &KeyPath) -> Option<usize> {
    let mut cursor = Cursor { text, at: 0 };
    cursor.space();
    'steps: for step in &path.0 {
        let here = cursor.at;
        match (step, cursor.peek()?) {
            (Key::Name(name), b'{') => {
                cursor.at += 1;
                loop {
                    cursor.space();
                    if cursor.peek()? != b'"' {
                        return Some(here);
                    }
                    let start = cursor.at;
                    cursor.string()?;
                    let key: String = serde_json::from_slice(&text[start..cursor.at]).ok()?;
                    cursor.space();
                    cursor.at += 1;
                    cursor.space();
                    if key == *name {
                        continue 'steps;
                    }
                    cursor.value()?;
                    cursor.space();
                    if cursor.peek()? != b',' {
                        return Some(here);
                    }
                    cursor.at += 1;
                }
            }
            (Key::Index(index), b'[') => {
                cursor.at += 1;
                cursor.space();
                for _ in 0..*index {
                    cursor.value()?;
                    cursor.space();
                    if cursor.peek()? != b',' {
                        return Some(here);
                    }
                    cursor.at += 1;
                    cursor.space();
                }
            }
            _ => return Some(here),
        }
    }
    Some(cursor.at)
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// Skips a string, from quote to quote.
    fn string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            match self.peek()? {
                b'\\' => self.at += 2,
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                _ => self.at += 1,
            }
        }
    }

    /// Skips any value.
    fn value(&mut self) -> Option<()> {
        let mut depth = 0usize;
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth -= 1;
                    self.at += 1;
                }
                b',' | b':' => self.at += 1,
                byte if byte.is_ascii_whitespace() => self.at += 1,
                _ => {
                    while self
                        .peek()
                        .is_some_and(|b| !b",:]}".contains(&b) && !b.is_ascii_whitespace())
                    {
                        self.at += 1;
                    }
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_through_nesting() {
        let text = br#" {"a": [1, {"b": "x\"}]", "c": null}], "d": true}"#;
        let at = |path: &[Key]| {
            let offset = find(text, &KeyPath(path.to_vec())).unwrap();
            std::str::from_utf8(&text[offset..]).unwrap()
        };
        assert!(at(&["d".into()]).starts_with("true"));
        assert!(at(&["a".into(), 1.into(), "c".into()]).starts_with("null"));
        assert!(at(&["a".into(), 1.into(), "b".into()]).starts_with("\"x"));
        assert!(at(&["a".into(), 0.into()]).starts_with("1,"));
        // A missing value gives the deepest value that exists.
        assert!(at(&["a".into(), 1.into(), "z".into()]).starts_with("{\"b\""));
        assert!(at(&["z".into()]).starts_with("{\"a\""));
        assert!(at(&["a".into(), 7.into()]).starts_with("[1"));
    }

    #[test]
    fn columns_count_characters() {
        let text = "한글\nab".as_bytes();
        assert_eq!(advance(text, 6, 3, 5), (3, 7));
        assert_eq!(advance(text, 8, 3, 5), (4, 2));
        assert_eq!(offset_of(text, 2, 2), 8);
    }
}
