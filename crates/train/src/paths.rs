//! Resolves and compares paths as users write them: `~` is the home folder, no shown path has
//! `a/../b`, and an address is no path.

use std::{
    env, fs,
    path::{self, Component, Path, PathBuf},
};

/// Replaces a `~` at the start by the home folder. `~name` stays unchanged.
pub fn home(path: &Path) -> PathBuf {
    let folder = env::home_dir().filter(|folder| !folder.as_os_str().is_empty());
    match (path.strip_prefix("~"), folder) {
        (Ok(rest), Some(folder)) if rest.as_os_str().is_empty() => folder,
        (Ok(rest), Some(folder)) => folder.join(rest),
        _ => path.to_owned(),
    }
}

/// Advice if `text` is an address (`https://…`, `s3://…`), which is no path.
pub fn address(text: &str) -> Option<String> {
    let (scheme, _) = text.split_once("://")?;
    let letter = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    let rest = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    (letter && scheme.chars().all(rest)).then(|| {
        format!(
            "{} is an address, and a path on this machine is needed (`hf download --repo-type \
             dataset` downloads data from the hub)",
            without_secrets(text)
        )
    })
}

/// The given text; if it is an address, without the parts that may hold a password or a signature.
pub fn without_secrets(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}/{path}")
}

/// Resolves `path` from `base`, with `~` replaced, and without `.` and `a/..` if omitting them
/// leads to the same place: `a` must be a folder, and no link to another.
pub fn join(base: &Path, path: &Path) -> PathBuf {
    let joined = base.join(home(path));
    let mut short = PathBuf::new();
    for part in joined.components() {
        match part {
            Component::CurDir => (),
            Component::ParentDir if steps_back(&short) => {
                short.pop();
            }
            part => short.push(part),
        }
    }
    match short.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => short,
    }
}

/// Whether `..` after this path leads to the folder that the path without its last part names.
fn steps_back(path: &Path) -> bool {
    let named = matches!(path.components().next_back(), Some(Component::Normal(_)));
    named && path.symlink_metadata().is_ok_and(|data| data.is_dir())
}

/// Whether a text in place of a hub id can only be a path.
pub fn looks_local(text: &str) -> bool {
    let path = Path::new(text);
    // An address is neither path nor hub id.
    !text.contains("://")
        && (path.is_absolute()
            || ["./", "../", "~"]
                .iter()
                .any(|start| text.starts_with(start))
            || path
                .extension()
                .is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
            || path.components().count() > 2)
}

/// Relation of a folder to write to an input, by real places: `is`, `holds`, `lies in`; none if they
/// do not overlap or the input does not exist.
pub fn relation(output: &Path, input: &Path) -> Option<&'static str> {
    let place = fs::canonicalize(input).ok()?;
    let folder = canonical(output);
    if place == folder {
        Some("is")
    } else if place.starts_with(&folder) {
        Some("holds")
    } else {
        folder.starts_with(&place).then_some("lies in")
    }
}

/// Real place of a path whose last parts need not exist yet.
pub fn canonical(path: &Path) -> PathBuf {
    let path = path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for ancestor in path.ancestors() {
        if let (Ok(place), Ok(rest)) = (fs::canonicalize(ancestor), path.strip_prefix(ancestor)) {
            return place.join(rest);
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(base: &str, path: &str) -> String {
        join(Path::new(base), Path::new(path)).display().to_string()
    }

    #[test]
    fn the_tilde_is_the_home_folder() {
        let folder = env::home_dir().unwrap();
        assert_eq!(home(Path::new("~")), folder);
        assert_eq!(home(Path::new("~/a/b")), folder.join("a/b"));
        assert_eq!(join(Path::new("x"), Path::new("~/a")), folder.join("a"));
        for other in ["~name/a", "a/~", "./~", "/~"] {
            assert_eq!(home(Path::new(other)), Path::new(other));
        }
    }

    #[test]
    fn steps_back_are_left_out() {
        for (base, path, expected) in [
            ("src", "../b", "b"),
            ("src/config", "../../data/x.jsonl", "data/x.jsonl"),
            ("src", ".", "src"),
            ("src", "..", "."),
            ("nowhere", "../b", "nowhere/../b"),
            ("", "../b", "../b"),
            ("..", "../b", "../../b"),
            ("src", "../../b", "../b"),
            ("/", "../b", "/../b"),
            ("a", "/c/./d", "/c/d"),
            ("", "./x", "x"),
        ] {
            assert_eq!(joined(base, path), expected, "{base} and {path}");
        }
    }

    #[test]
    fn an_address_is_told_from_a_path() {
        for text in [
            "https://x/y.jsonl",
            "s3://bucket",
            "file:///a/b",
            "hf://a/b",
        ] {
            assert!(address(text).unwrap().starts_with(text), "{text}");
        }
        for text in ["a.jsonl", "/a/b", "a/b://c", "://x", "1://x", "c:/x", ""] {
            assert_eq!(address(text), None, "{text}");
        }
        let secret = address("https://name:hf_1234@host/a.jsonl?key=5678#9").unwrap();
        assert!(secret.starts_with("https://host/a.jsonl is "), "{secret}");
        for part in ["name", "1234", "5678", "9"] {
            assert!(!secret.contains(part), "{secret}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_link_is_not_stepped_back_from() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/", &link).unwrap();
        let expected = link.join("../b");
        assert_eq!(join(&link, Path::new("../b")), expected);
    }
}
