//! Lists the files of a repository on the hub, and selects the files that a model needs.

use super::{
    Kind,
    client::{Client, Fault},
    names::{is_file_name, is_path},
    replies::{is_commit, plain},
};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Largest size of a list in bytes, and largest number of files in it.
const LIST_BYTES: usize = 32 << 20;
const MOST_FILES: usize = 100_000;
/// Folder of named chat templates.
const TEMPLATES: &str = "additional_chat_templates";

/// Files that a folder has beside the weights.
const BESIDES: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
];
pub(super) const INDEX: &str = "model.safetensors.index.json";
const WHOLE: &str = "model.safetensors";

/// Files of one commit by their names; files whose name is not safe as a local name are left out.
pub(super) struct Listing {
    pub commit: String,
    files: BTreeMap<String, Announced>,
    /// Files that this program does not read, such as pickled weights.
    strange: Vec<String>,
}

/// Facts about a file in the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Announced {
    pub size: Option<u64>,
    pub sha256: Option<String>,
}

/// Place of the weights.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Weights<'a> {
    /// The weights are in one file.
    File(&'a str),
    /// The weights are in the files that the index names.
    Index,
}

#[derive(Deserialize)]
struct Answer {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
}

impl Listing {
    /// Requests the list from the hub.
    pub(super) fn read(
        client: &Client,
        kind: Kind,
        id: &str,
        revision: &str,
    ) -> Result<Self, Fault> {
        let parts = ["api", kind.plural()].into_iter().chain(id.split('/'));
        let mut url = client.address(parts.chain(["revision", revision]))?;
        url.set_query(Some("blobs=true"));
        let located = client.locate(url)?;
        let answer = located.answer.ok_or_else(|| {
            Fault::Wrong(format!("it redirects requests for the {}", kind.noun()))
        })?;
        Self::parse(kind, &answer.whole(LIST_BYTES)?)
    }

    fn parse(kind: Kind, text: &[u8]) -> Result<Self, Fault> {
        let answer: Answer = serde_json::from_slice(text).map_err(|error| {
            Fault::Wrong(format!(
                "its list of files is damaged: {}",
                plain(&error.to_string())
            ))
        })?;
        if !is_commit(&answer.sha) {
            let sha = plain(&answer.sha);
            return Err(Fault::Wrong(format!(
                "it names `{sha}`, which is not a commit"
            )));
        }
        if answer.siblings.len() > MOST_FILES {
            let count = answer.siblings.len();
            return Err(Fault::Wrong(format!("it lists {count} files")));
        }
        let (mut files, mut strange) = (BTreeMap::new(), Vec::new());
        for sibling in answer.siblings {
            let name = sibling.rfilename;
            let safe = match kind {
                Kind::Model => is_file_name(file_of(&name)),
                Kind::DataSet => is_path(&name),
            };
            if !safe {
                continue;
            }
            if !name.ends_with(".safetensors") && name.ends_with(".bin") {
                strange.push(name.clone());
            }
            let announced = Announced {
                size: sibling.size,
                sha256: sibling.lfs.and_then(|lfs| lfs.sha256),
            };
            files.insert(name, announced);
        }
        Ok(Self {
            commit: answer.sha,
            files,
            strange,
        })
    }

    /// Names of all files, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Facts about a file, if it is in the list.
    pub(super) fn announced(&self, name: &str) -> Option<&Announced> {
        self.files.get(name)
    }

    /// Place of the weights: safetensors are preferred to GGUF; `None` if there is no unique
    /// choice.
    pub(super) fn weights(&self) -> Option<Weights<'_>> {
        if self.files.contains_key(WHOLE) {
            return Some(Weights::File(WHOLE));
        }
        if self.files.contains_key(INDEX) {
            return Some(Weights::Index);
        }
        let mut quantized = self.ending(".gguf");
        let only = quantized.next()?;
        quantized.next().is_none().then_some(Weights::File(only))
    }

    /// Files that `weights` need beside them; a GGUF file contains everything.
    pub(super) fn besides(&self, weights: &Weights<'_>) -> Vec<&str> {
        let alone = matches!(weights, Weights::File(name) if *name != WHOLE);
        let wanted = |name: &&str| {
            let template = name
                .strip_prefix(TEMPLATES)
                .is_some_and(|name| name.ends_with(".jinja"));
            !alone && (BESIDES.contains(name) || template)
        };
        self.files
            .keys()
            .map(String::as_str)
            .filter(wanted)
            .collect()
    }

    /// Reason why there is no choice of weights.
    pub(super) fn without_weights(&self) -> String {
        let quantized: Vec<&str> = self.ending(".gguf").collect();
        match (quantized.is_empty(), self.strange.first()) {
            (false, _) => format!(
                "has several .gguf files ({}) and no safetensors; download the one you want and \
                 give its path",
                some(&quantized)
            ),
            (true, Some(pickled)) => format!(
                "has its weights only as pickled files ({}), which are programs and are not read; \
                 look for a revision with safetensors, or write the model with \
                 save_pretrained(..., safe_serialization=True) and give that folder",
                plain(pickled)
            ),
            (true, None) => format!(
                "has neither model.safetensors nor a .gguf file (it has: {})",
                some(&self.files.keys().map(String::as_str).collect::<Vec<_>>())
            ),
        }
    }

    fn ending(&self, end: &'static str) -> impl Iterator<Item = &str> {
        let names = self.files.keys().map(String::as_str);
        names.filter(move |name| name.ends_with(end) && !name.contains('/'))
    }
}

/// Name of the file in a path at the top level or in the folder of named templates; for any other
/// path the whole path, which then is no valid name.
fn file_of(name: &str) -> &str {
    match name.split_once('/') {
        Some((TEMPLATES, file)) => file,
        _ => name,
    }
}

/// A few of many names.
fn some(names: &[&str]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| plain(name)).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(names: &[&str]) -> Listing {
        let names: Vec<_> = names
            .iter()
            .map(|name| serde_json::json!({ "rfilename": name }))
            .collect();
        let text = serde_json::json!({ "sha": "ab".repeat(20), "siblings": names });
        Listing::parse(Kind::Model, text.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn safetensors_come_before_everything_else() {
        let all = listing(&[
            "config.json",
            "additional_chat_templates/tools.jinja",
            "onnx/config.json",
            "README.md",
            "a.gguf",
            "pytorch_model.bin",
            INDEX,
            WHOLE,
        ]);
        let weights = all.weights().unwrap();
        assert_eq!(weights, Weights::File(WHOLE));
        assert_eq!(
            all.besides(&weights),
            ["additional_chat_templates/tools.jinja", "config.json"]
        );
        assert_eq!(listing(&[INDEX, "a.gguf"]).weights(), Some(Weights::Index));
        let one = listing(&["a.gguf", "config.json", "sub/b.gguf"]);
        let weights = one.weights().unwrap();
        assert_eq!(weights, Weights::File("a.gguf"));
        assert!(one.besides(&weights).is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let several = listing(&["a-Q4.gguf", "a-Q8.gguf", "config.json"]);
        assert!(several.weights().is_none());
        assert!(several.without_weights().contains("a-Q4.gguf, a-Q8.gguf"));
        let pickled = listing(&["config.json", "pytorch_model.bin"]);
        assert!(pickled.weights().is_none());
        let reason = pickled.without_weights();
        assert!(reason.contains("pytorch_model.bin"), "{reason}");
        let nothing = listing(&["README.md"]).without_weights();
        assert!(nothing.contains("it has: README.md"), "{nothing}");
    }

    #[test]
    fn names_that_lead_elsewhere_are_not_there() {
        let hostile = listing(&[
            "../config.json",
            "/model.safetensors",
            "..\\model.safetensors",
            "additional_chat_templates/../../x.jinja",
            "x\0.gguf",
            "nul.gguf",
            "additional_chat_templates/../x.jinja",
        ]);
        assert!(hostile.files.is_empty(), "{:?}", hostile.files.keys());
    }

    #[test]
    fn a_damaged_list_is_refused() {
        for (text, expected) in [
            (r#"{"sha":"../../x","siblings":[]}"#, "not a commit"),
            (r#"{"siblings":[]}"#, "damaged"),
            ("<html>", "damaged"),
            (&"[".repeat(1 << 20), "damaged"),
        ] {
            match Listing::parse(Kind::Model, text.as_bytes()) {
                Err(Fault::Wrong(reason)) => assert!(reason.contains(expected), "{reason}"),
                _ => panic!("{expected}"),
            }
        }
    }
}
