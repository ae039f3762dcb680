//! Every reader of what others wrote, as a function of bytes that may fail but not panic, hang or
//! exhaust memory. `cargo xtask fuzz` runs them under libFuzzer; the tests run their seeds.
#![forbid(unsafe_code)]

mod model;
mod targets;

pub use targets::TARGETS;

use std::{error::Error, path::PathBuf};
use tempfile::TempDir;

/// What a reader says of an input.
pub type Outcome = Result<(), Box<dyn Error>>;

/// A reader under test.
pub struct Target {
    /// Its name on the command line, and of its folder in `found/`.
    pub name: &'static str,
    /// Reads an input and uses what it gives.
    pub run: fn(&[u8]) -> Outcome,
    /// Inputs that it accepts, from which others are made.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words of its language that bytes alone would hardly find.
    pub words: &'static [&'static str],
}

/// The target of this name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// The words as a dictionary of libFuzzer, which knows no escapes but those of bytes.
pub fn dictionary(words: &[&str]) -> String {
    let byte = |byte: u8| match byte {
        b'"' | b'\\' | 0..=31 | 127.. => format!("\\x{byte:02x}"),
        _ => char::from(byte).to_string(),
    };
    let entry = |word: &&str| format!("\"{}\"\n", word.bytes().map(byte).collect::<String>());
    words.iter().map(entry).collect()
}

/// Between the files of an input that is several.
const BOUNDARY: &[u8] = b"\n====\n";

/// The first `N` files of an input; what is missing is empty.
fn files<const N: usize>(mut bytes: &[u8]) -> [&[u8]; N] {
    std::array::from_fn(|index| {
        let boundary = |window: &[u8]| window == BOUNDARY;
        let at = bytes.windows(BOUNDARY.len()).position(boundary);
        let Some(at) = at.filter(|_| index + 1 < N) else {
            return std::mem::take(&mut bytes);
        };
        let (file, rest) = bytes.split_at(at);
        bytes = &rest[BOUNDARY.len()..];
        file
    })
}

/// A folder of its own with these files; removed when dropped.
fn folder(files: &[(&str, &[u8])]) -> Result<(TempDir, PathBuf), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().to_owned();
    for (name, bytes) in files {
        std::fs::write(path.join(name), bytes)?;
    }
    Ok((folder, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_divided_into_its_files() {
        let (one, two): ([_; 2], [_; 2]) = (files(b"a"), files(b"a\n====\nb\n====\nc"));
        assert_eq!(one, [b"a".as_slice(), b""]);
        assert_eq!(two, [b"a".as_slice(), b"b\n====\nc"]);
    }

    #[test]
    fn a_dictionary_has_one_quoted_word_a_line() {
        let text = dictionary(&["{%", "a\"'\n"]);
        assert_eq!(text, "\"{%\"\n\"a\\x22'\\x0a\"\n");
    }

    #[test]
    fn names_are_told_apart() {
        for target in TARGETS {
            assert!(std::ptr::eq(find(target.name).unwrap(), target));
        }
    }
}
