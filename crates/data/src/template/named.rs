//! The chat templates of a model: usually one, sometimes with others by name.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::ChatTemplate;
use crate::error::DataError;

const FILE: &str = "chat_template.jinja";
const FOLDER: &str = "additional_chat_templates";
const KEY: &str = "chat_template";
/// Name of the template for conversations with tools.
const TOOL_USE: &str = "tool_use";

/// The templates of a model.
#[derive(Debug)]
pub struct ChatTemplates {
    default: ChatTemplate,
    tool_use: Option<ChatTemplate>,
    /// All templates but `default`, in order, used or not.
    named: Vec<(String, String)>,
}

impl From<ChatTemplate> for ChatTemplates {
    fn from(default: ChatTemplate) -> Self {
        Self {
            default,
            tool_use: None,
            named: Vec::new(),
        }
    }
}

impl ChatTemplates {
    /// The template that `apply_chat_template` takes: `tool_use`, if there is one, for a
    /// conversation with tools, otherwise `default`.
    pub fn choose(&self, tools: bool) -> &ChatTemplate {
        let tool_use = self.tool_use.as_ref().filter(|_| tools);
        tool_use.unwrap_or(&self.default)
    }

    /// Whether the output of any template may depend on the day.
    pub fn read_clock(&self) -> bool {
        self.default.reads_clock()
            || self
                .tool_use
                .as_ref()
                .is_some_and(ChatTemplate::reads_clock)
    }

    /// Templates of a folder: `chat_template.jinja` and `additional_chat_templates/NAME.jinja`;
    /// without such files, those of `config`, the folder's `tokenizer_config.json`.
    pub(crate) fn from_folder(
        folder: &Path,
        config: &Map<String, Value>,
    ) -> Result<Option<Self>, DataError> {
        let configured = folder.join("tokenizer_config.json");
        let mut found = Vec::new();
        for (name, path) in files(folder)? {
            let source = std::fs::read_to_string(&path).map_err(DataError::io(&path))?;
            found.push((name, source, path));
        }
        match config.get(KEY).filter(|_| found.is_empty()) {
            Some(Value::String(source)) => {
                found.push(("default".to_owned(), source.clone(), configured.clone()));
            }
            Some(Value::Array(named)) => {
                let text = |entry: &Value, key: &str| {
                    let value = entry.get(key)?;
                    let text = value.as_str().or_else(|| value.get("content")?.as_str());
                    text.map(str::to_owned)
                };
                for entry in named {
                    if let (Some(name), Some(source)) =
                        (text(entry, "name"), text(entry, "template"))
                    {
                        found.push((name, source, configured.clone()));
                    }
                }
            }
            _ => {}
        }
        Self::from_named(found, &configured)
    }

    /// Templates of a GGUF file, by name.
    pub(crate) fn from_file(
        file: &Path,
        named: Vec<(String, String)>,
    ) -> Result<Option<Self>, DataError> {
        let found = named.into_iter();
        let found = found.map(|(name, source)| (name, source, file.to_owned()));
        Self::from_named(found.collect(), file)
    }

    /// Templates in an adapter's folder.
    pub fn beside_adapter(folder: &Path) -> Result<Option<Self>, DataError> {
        Self::from_folder(folder, &Map::new())
    }

    fn from_named(
        found: Vec<(String, String, PathBuf)>,
        configured: &Path,
    ) -> Result<Option<Self>, DataError> {
        if found.is_empty() {
            return Ok(None);
        }
        let is_name = |name: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !name.is_empty() && !name.starts_with('.') && name.chars().all(allowed)
        };
        if let Some((name, _, path)) = found.iter().find(|(name, _, _)| !is_name(name)) {
            return Err(DataError::TokenizerFile {
                path: path.clone(),
                message: format!("a chat template cannot have the name {name:?}"),
            });
        }
        let compile = |name: &str| {
            let found = found.iter().find(|(other, _, _)| other == name);
            found
                .map(|(_, source, path)| ChatTemplate::compile_from(source, path))
                .transpose()
        };
        let default = compile("default")?.ok_or_else(|| DataError::TokenizerFile {
            path: configured.to_owned(),
            message: "`chat_template` has several templates but none named `default`".to_owned(),
        })?;
        let tool_use = compile(TOOL_USE)?;
        let named = found
            .into_iter()
            .filter(|(name, _, _)| name != "default")
            .map(|(name, source, _)| (name, source));
        Ok(Some(Self {
            default,
            tool_use,
            named: named.collect(),
        }))
    }

    /// Every template with its name.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&str, &str)> {
        let default = ("default", self.default.source());
        let others = self.named.iter();
        std::iter::once(default)
            .chain(others.map(|(name, source)| (name.as_str(), source.as_str())))
    }

    /// Every file with a template, with its path in the folder of a model.
    pub(crate) fn files(&self) -> Vec<(PathBuf, &str)> {
        let mut files = vec![(PathBuf::from(FILE), self.default.source())];
        for (name, source) in &self.named {
            files.push((Path::new(FOLDER).join(format!("{name}.jinja")), source));
        }
        files
    }
}

/// Files of a folder that hold templates, with the names of the templates.
fn files(folder: &Path) -> Result<Vec<(String, PathBuf)>, DataError> {
    let mut files = Vec::new();
    let default = folder.join(FILE);
    if default.exists() {
        files.push(("default".to_owned(), default));
    }
    let additional = folder.join(FOLDER);
    if additional.is_dir() {
        let failed = |e| DataError::io(&additional)(e);
        for entry in std::fs::read_dir(&additional).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_stem().and_then(|stem| stem.to_str());
            if let Some(name) = name.filter(|_| path.extension().is_some_and(|e| e == "jinja")) {
                files.push((name.to_owned(), path));
            }
        }
    }
    files.sort();
    Ok(files)
}
