//! The repository's text files, held in memory, so that rules are pure functions.

use anyhow::{Context, Result};
use std::{collections::BTreeMap, fs, path::Path};

/// Path from the root, with `/`, to contents. Files that are not UTF-8 are not text and left out.
#[derive(Default)]
pub(super) struct Tree {
    pub files: BTreeMap<String, String>,
}

impl Tree {
    /// Reads everything under `root` but `.git` and the top-level folders named in `.gitignore`.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let ignored = fs::read_to_string(root.join(".gitignore")).context(".gitignore")?;
        let ignored: Vec<&str> = ignored
            .lines()
            .filter_map(|line| line.strip_prefix('/'))
            .collect();
        let mut tree = Self::default();
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(root.join(&folder)).with_context(|| folder.clone())? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let path = format!("{folder}{name}");
                if name == ".git" || ignored.contains(&path.as_str()) {
                    continue;
                }
                if entry.file_type()?.is_dir() {
                    folders.push(path + "/");
                } else if let Ok(text) = String::from_utf8(fs::read(entry.path())?) {
                    tree.files.insert(path, text);
                }
            }
        }
        Ok(tree)
    }

    /// A tree for tests.
    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let files = files
            .iter()
            .map(|(path, text)| (path.to_string(), text.to_string()))
            .collect();
        Self { files }
    }

    /// Files whose name ends with `ending`.
    pub(super) fn ending(&self, ending: &str) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .filter(move |(path, _)| path.ends_with(ending))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Whether `path` is a file, or a folder with files.
    pub(super) fn exists(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        self.files.contains_key(path)
            || self
                .files
                .range(folder.clone()..)
                .next()
                .is_some_and(|(first, _)| first.starts_with(&folder))
    }

    /// Names of the entries that lie directly in `folder` (without the trailing `/`), sorted.
    pub(super) fn entries(&self, folder: &str) -> Vec<&str> {
        let folder = format!("{folder}/");
        let mut names: Vec<&str> = self
            .files
            .range(folder.clone()..)
            .map_while(|(path, _)| path.strip_prefix(&folder))
            .map(|rest| rest.split('/').next().unwrap_or(rest))
            .collect();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_text_and_leaves_out_what_git_ignores() {
        let root = tempfile::tempdir().unwrap();
        for folder in [".git", "target/debug", "src/target", "src/deep"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        for (path, bytes) in [
            (".gitignore", b"/target\n".as_slice()),
            (".git/config", b"secret"),
            ("target/debug/output", b"built"),
            ("src/target/kept.rs", b"kept"),
            ("src/deep/a.rs", b"a"),
            ("src/binary", b"\xff\xfe"),
        ] {
            fs::write(root.path().join(path), bytes).unwrap();
        }
        let tree = Tree::read(root.path()).unwrap();
        let paths: Vec<_> = tree.files.keys().map(String::as_str).collect();
        assert_eq!(paths, [".gitignore", "src/deep/a.rs", "src/target/kept.rs"]);
    }

    #[test]
    fn folders_exist_when_they_hold_files() {
        let tree = Tree::of(&[("a/b/c.rs", ""), ("a/b-d.rs", ""), ("a/e.rs", "")]);
        assert!(tree.exists("a") && tree.exists("a/b/") && tree.exists("a/e.rs"));
        assert!(!tree.exists("a/c") && !tree.exists("a/b/c"));
        assert_eq!(tree.entries("a"), ["b-d.rs", "b", "e.rs"]);
        assert!(tree.entries("nothing").is_empty());
    }
}
