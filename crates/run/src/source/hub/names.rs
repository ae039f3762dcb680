//! Checks names from a server: only a plain name may name a local file.

/// Longest name of a file in bytes; file systems allow 255, and `.incomplete` must fit.
const LONGEST: usize = 200;

/// Whether every system accepts this as the name of a file in a folder: no path to another folder,
/// no device of Windows, no hidden file, no control characters for terminals.
pub(crate) fn is_file_name(name: &str) -> bool {
    let forbidden = |c: char| c.is_control() || r#"/\:<>"|?*"#.contains(c);
    let stem = name.split('.').next().unwrap_or_default().trim_end();
    let numbered = |device: &str| {
        let number = stem
            .get(..3)
            .filter(|start| start.eq_ignore_ascii_case(device))
            .map(|_| &stem[3..]);
        number.is_some_and(|number| number.chars().count() == 1)
    };
    let device = ["con", "prn", "aux", "nul"].map(|device| stem.eq_ignore_ascii_case(device));
    !name.is_empty()
        && name.len() <= LONGEST
        && !name.chars().any(forbidden)
        && !name.starts_with(['.', ' ', '~', '-'])
        && !name.ends_with(['.', ' '])
        && !device.contains(&true)
        && !numbered("com")
        && !numbered("lpt")
}

/// Whether the text is a path of such names into a folder and at most a few below it.
pub(super) fn is_path(path: &str) -> bool {
    const DEPTH: usize = 8;
    path.split('/').count() <= DEPTH && path.split('/').all(is_file_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_name_files() {
        for good in [
            "config.json",
            "model-00001-of-00002.safetensors",
            "é ü (1).gguf",
        ] {
            assert!(is_file_name(good), "{good}");
        }
        for good in ["a", "default/train/0000.parquet"] {
            assert!(is_path(good), "{good}");
        }
        for bad in [
            "",
            "/a",
            "a/",
            "a//b",
            "a/../b",
            "../a",
            "a/.b",
            "a/b\\c",
            &"a/".repeat(9),
        ] {
            assert!(!is_path(bad), "{bad}");
        }
        let long = "x".repeat(201);
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "/x",
            "a/b",
            r"a\b",
            r"..\x",
            r"C:\x",
            "c:x",
            "a\0b",
            "a\nb",
            "a\u{1b}[2J",
            "nul",
            "NUL.json",
            "com1.gguf",
            "Lpt9",
            "CON .txt",
            "x.",
            "x ",
            ".hidden",
            "-rf",
            "~",
            "a?b",
            "a*b",
            "a|b",
            &long,
        ] {
            assert!(!is_file_name(bad), "{bad:?}");
        }
    }
}
