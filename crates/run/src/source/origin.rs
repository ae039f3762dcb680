//! Names the initial model of a run so that other tools find it.

use super::{Source, is_hub_id, split_revision};
use std::{
    env,
    path::{Component, Path},
};
use tightrope_train::paths;

/// A name that means the same model elsewhere: a hub id, or else an absolute path. It is never the
/// path of a cache, and does not depend on the current folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The hub id or path.
    pub name: String,
    /// Branch, tag or commit of a hub id, if it was named.
    pub revision: Option<String>,
}

impl Origin {
    /// Origin of a model from its name in the configuration and its place.
    pub fn new(model: &str, source: &Source) -> Self {
        let (id, revision) = split_revision(model);
        match Path::new(model).exists() || !is_hub_id(id) {
            true => Self::of_path(source.path()),
            false => Self {
                name: id.to_owned(),
                revision: revision.map(str::to_owned),
            },
        }
    }

    /// Origin of a path, which may lie in the hub's cache.
    pub fn of_path(path: &Path) -> Self {
        let here = env::current_dir().unwrap_or_default();
        let path = paths::join(&here, path);
        of_cache(&path).unwrap_or_else(|| Self {
            name: path.to_string_lossy().into_owned(),
            revision: None,
        })
    }

    /// Whether the name is a hub id.
    pub fn is_hub_id(&self) -> bool {
        is_hub_id(&self.name) && !Path::new(&self.name).is_absolute()
    }
}

/// Recognises `models--OWNER--NAME/snapshots/COMMIT` anywhere in a path.
fn of_cache(path: &Path) -> Option<Origin> {
    let parts: Vec<&str> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(part) => part.to_str(),
            _ => None,
        })
        .collect();
    parts.windows(3).find_map(|parts| {
        let id = parts[0].strip_prefix("models--")?.replacen("--", "/", 1);
        (parts[1] == "snapshots" && is_hub_id(&id)).then(|| Origin {
            name: id,
            revision: Some(parts[2].to_owned()),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_named_so_that_others_find_it() {
        let folder = tempfile::tempdir().unwrap();
        let cached = folder.path().join("models--owner--na--me/snapshots/c0ffee");
        std::fs::create_dir_all(&cached).unwrap();
        let source = Source::Folder(cached.clone());
        let origin = |model: &str| {
            let origin = Origin::new(model, &source);
            (origin.name, origin.revision)
        };
        let hub = |revision: Option<&str>| ("owner/na--me".into(), revision.map(str::to_owned));
        assert_eq!(origin("owner/na--me"), hub(None));
        assert_eq!(origin("owner/na--me@v1"), hub(Some("v1")));
        assert_eq!(origin(cached.to_str().unwrap()), hub(Some("c0ffee")));
        let file = cached.join("m.gguf");
        assert_eq!(Origin::of_path(&file).name, "owner/na--me");

        let relative = Origin::of_path(Path::new("src/../model"));
        let expected = env::current_dir().unwrap().join("model");
        assert_eq!(Path::new(&relative.name), expected);
        assert_eq!(relative.revision, None);
        assert!(!relative.is_hub_id());
    }
}
