//! `ptx.lock` records the sources, headers, flags and compiler that the committed PTX came from.

use super::toolchain;
use crate::digest::sha256;
use anyhow::{Context, Result};
use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};
use toml::{Table, Value};

/// Path in the root of the repository.
pub(super) const FILE: &str = "ptx.lock";

/// Contents of the file.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Lock {
    compiler: String,
    headers: String,
    /// Hashes of the source, the PTX and the launch code, by source.
    modules: BTreeMap<String, [String; 3]>,
}

impl Lock {
    /// A lock without modules, for the compiler that is pinned now.
    pub(super) fn new(headers: &str) -> Self {
        Self {
            compiler: toolchain::identity(),
            headers: headers.into(),
            modules: BTreeMap::new(),
        }
    }

    /// The committed lock; empty if there is none.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let Ok(text) = fs::read_to_string(root.join(FILE)) else {
            return Ok(Self::default());
        };
        let table: Table = text.parse().context(FILE)?;
        let text = |table: &Table, key: &str| {
            let value = table.get(key).and_then(Value::as_str);
            value.unwrap_or_default().to_string()
        };
        let modules = table.get("module").and_then(Value::as_table);
        let modules = modules.into_iter().flatten().filter_map(|(source, value)| {
            let value = value.as_table()?;
            let hashes = ["source", "ptx", "launches"].map(|key| text(value, key));
            Some((source.clone(), hashes))
        });
        Ok(Self {
            compiler: text(&table, "compiler"),
            headers: text(&table, "headers"),
            modules: modules.collect(),
        })
    }

    /// Writes the whole file, then renames it.
    pub(super) fn write(&self, root: &Path) -> Result<()> {
        let mut text =
            String::from("# Written by `cargo xtask ptx`: SHA-256 of what the PTX came from.\n");
        writeln!(text, "compiler = {:?}", self.compiler)?;
        writeln!(text, "headers = {:?}", self.headers)?;
        for (source, [hash, ptx, launches]) in &self.modules {
            write!(
                text,
                "\n[module.{source:?}]\nsource = {hash:?}\nptx = {ptx:?}\nlaunches = {launches:?}\n"
            )?;
        }
        let mut file = tempfile::NamedTempFile::new_in(root)?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        file.persist(root.join(FILE))?;
        Ok(())
    }

    /// Whether the products of `source` are those of this lock, made under the conditions of `new`.
    pub(super) fn is_current(
        &self,
        root: &Path,
        new: &Self,
        source: &Path,
        hash: &str,
        products: &[PathBuf; 2],
    ) -> Result<bool> {
        let Some([known, ptx, launches]) = self.modules.get(&key(source)) else {
            return Ok(false);
        };
        let same = self.compiler == new.compiler && self.headers == new.headers && known == hash;
        if !same || !products.iter().all(|path| root.join(path).exists()) {
            return Ok(false);
        }
        let found = products
            .iter()
            .map(|path| hash_files(root, std::slice::from_ref(path)))
            .collect::<Result<Vec<_>>>()?;
        Ok(found == [ptx.as_str(), launches.as_str()])
    }

    /// Copies the entry of `old` for a source.
    pub(super) fn keep(&mut self, old: &Self, source: &Path) {
        let key = key(source);
        if let Some(hashes) = old.modules.get(&key) {
            self.modules.insert(key, hashes.clone());
        }
    }

    /// Records the products of a source.
    pub(super) fn insert(&mut self, source: &Path, hash: String, texts: &[String; 2]) {
        let [ptx, launches] = texts.each_ref().map(|text| sha256(&[text.as_bytes()]));
        self.modules.insert(key(source), [hash, ptx, launches]);
    }
}

fn key(source: &Path) -> String {
    source.to_string_lossy().into_owned()
}

/// One hash over the contents of files, in order.
pub(super) fn hash_files(root: &Path, files: &[PathBuf]) -> Result<String> {
    let contents = files
        .iter()
        .map(|path| fs::read(root.join(path)).with_context(|| path.display().to_string()))
        .collect::<Result<Vec<_>>>()?;
    let contents: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
    Ok(sha256(&contents))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_read_as_it_was_written_and_sees_every_change() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let source = Path::new("a/kernel.cu");
        fs::create_dir(root.join("a")).unwrap();
        let products = [root.join("a/kernel.ptx"), root.join("a/kernel.rs")];
        for path in &products {
            fs::write(path, "text").unwrap();
        }
        let mut lock = Lock::new("headers");
        lock.insert(source, "hash".into(), &["text".into(), "text".into()]);
        lock.write(root).unwrap();
        let read = Lock::read(root).unwrap();
        assert_eq!(read, lock);
        let current = |headers: &str, hash: &str| {
            read.is_current(root, &Lock::new(headers), source, hash, &products)
                .unwrap()
        };
        assert!(current("headers", "hash"));
        assert!(!current("others", "hash"));
        assert!(!current("headers", "other"));
        fs::write(&products[0], "changed").unwrap();
        assert!(!current("headers", "hash"));
    }
}
