//! `trainable_token_indices`, and what a file of PEFT has of the embedding and of the head.

use super::{AdapterConfig, EMBEDDING, HEAD, Inventory, PREFIX, matching::Choice};
use crate::{ConfigError, ModelError, TokenIndices, checkpoint::only_floats, read_json};
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, path::Path};
use tightrope_formats::Tensors;

const KEY: &str = "trainable_token_indices";
/// End of the name of trained rows in files.
const DELTA: &str = "token_adapter.trainable_tokens_delta";

/// Rows by the end of the name of their module.
pub(super) type ByModule = Vec<(String, Vec<usize>)>;

/// What a tensor of the embedding or of the head is in a file of PEFT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The whole table that the adapter belongs to.
    Table,
    /// The same as another tensor of the file.
    Twice,
}

/// The settings in the form of PEFT.
pub(super) fn to_json(indices: &TokenIndices) -> Value {
    match indices {
        TokenIndices::Embedding(ids) => json!(ids),
        TokenIndices::ByModule(modules) => {
            let modules = modules.iter().map(|(name, ids)| (name.clone(), json!(ids)));
            Value::Object(modules.collect())
        }
    }
}

/// Reads the key: a list of ids, or lists by module.
pub(super) fn read(settings: &Map<String, Value>) -> Result<ByModule, ConfigError> {
    let wrong = |reason: String| ConfigError::new(KEY, reason);
    let ids = |value: &Value| -> Result<Vec<usize>, ConfigError> {
        let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = value.as_array().map(|ids| ids.iter().map(id));
        let ids = ids.and_then(Iterator::collect::<Option<Vec<u32>>>);
        let ids = ids.ok_or_else(|| wrong(format!("expected ids of tokens, got {value}")))?;
        let mut seen = BTreeSet::new();
        match ids.iter().find(|id| !seen.insert(**id)) {
            Some(id) => Err(wrong(format!("has the id {id} twice"))),
            None => Ok(ids.into_iter().map(|id| id as usize).collect()),
        }
    };
    let modules = match settings.get(KEY) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Object(modules)) => {
            let module = |(name, of): (&String, &Value)| Ok((name.clone(), ids(of)?));
            modules.iter().map(module).collect::<Result<_, _>>()?
        }
        Some(list) => vec![("embed_tokens".to_owned(), ids(list)?)],
    };
    Ok(modules
        .into_iter()
        .filter(|(_, of)| !of.is_empty())
        .collect())
}

impl AdapterConfig {
    /// Name in the adapter's file of the trained rows of a table, and their numbers.
    pub(crate) fn rows_of(&self, parameter: &str) -> Option<(&str, &[usize])> {
        let (in_file, ids) = self.rows.get(parameter)?;
        Some((in_file, ids))
    }

    /// Tables that the adapter's file holds whole: their own names, and those in the file.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.tables.iter().map(|(own, file)| (&**own, &**file))
    }

    /// Selects the rows of a model, as PEFT does.
    pub(super) fn select_rows(&mut self, inventory: &Inventory) -> Result<(), ConfigError> {
        let wrong = |reason: String| ConfigError::new(KEY, reason);
        self.rows.clear();
        for (name, ids) in &self.tokens {
            let tables = inventory.tables().iter();
            let Some(module) = tables.copied().find(|table| table.ends_with(&**name)) else {
                return Err(wrong(format!(
                    "names `{name}`: only rows of embed_tokens and lm_head can be trained"
                )));
            };
            if let Some(id) = ids.iter().find(|id| **id >= inventory.vocabulary) {
                return Err(wrong(format!(
                    "has the id {id}, and the model has {} rows, from 0",
                    inventory.vocabulary
                )));
            }
            let in_file = format!("{PREFIX}{module}.{DELTA}");
            let rows = (in_file, ids.clone());
            self.rows.insert(format!("{module}.weight"), rows);
        }
        let [embedding, head] = [EMBEDDING, HEAD].map(|module| format!("{module}.weight"));
        if inventory.tied && self.rows.contains_key(&head) {
            let [of_embedding, of_head] = [&embedding, &head].map(|table| self.rows.get(table));
            if of_embedding.map(|(_, ids)| ids) != of_head.map(|(_, ids)| ids) {
                let reason = "the head of this model is its embedding: lm_head needs the rows of \
                              embed_tokens, and a list stands for both";
                return Err(wrong(reason.into()));
            }
            self.rows.remove(&head);
        }
        for (module, table) in [(EMBEDDING, &embedding), (HEAD, &head)] {
            // A head that is the embedding has its rows.
            let of = if inventory.tied { &embedding } else { table };
            let whole = self.copies.contains_key(table);
            let also = whole || self.modules.contains_key(module);
            if also && self.rows.contains_key(of) {
                let by = if whole {
                    "modules_to_save"
                } else {
                    "target_modules"
                };
                return Err(wrong(format!(
                    "and `{by}` both train `{module}`; name it in one"
                )));
            }
        }
        Ok(())
    }

    /// Lets a new adapter train the rows of new tokens, if its settings do not say what trains
    /// them.
    pub(super) fn add_new_tokens(
        &mut self,
        new: &[u32],
        inventory: &Inventory,
    ) -> Result<(), ConfigError> {
        if new.is_empty() || !self.tokens.is_empty() {
            return Ok(());
        }
        let mut free = Vec::new();
        for &module in inventory.tables() {
            let saved = self.saved.iter().any(|name| module.ends_with(&**name));
            if !saved && self.rules.choice(module)? != Choice::Chosen {
                free.push(module);
            }
        }
        let ids = new.to_vec();
        let of = |module: &str| {
            (
                module.rsplit('.').next().unwrap_or(module).into(),
                ids.clone(),
            )
        };
        let indices = match (inventory.tied, &free[..]) {
            (_, []) => return Ok(()),
            (true, [_, _]) | (false, [EMBEDDING]) => TokenIndices::Embedding(ids.clone()),
            (true, _) => return Ok(()),
            (false, free) => TokenIndices::ByModule(free.iter().map(|m| of(m)).collect()),
        };
        self.settings.insert(KEY.into(), to_json(&indices));
        self.tokens = read(&self.settings)?;
        Ok(())
    }

    /// Refuses a new adapter that does not train the rows of new tokens; tables that it trains
    /// through factors alone are saved with it.
    pub(super) fn check_new_tokens(
        &mut self,
        new: &[u32],
        inventory: &Inventory,
    ) -> Result<(), ConfigError> {
        for &module in inventory.tables() {
            let Some(first) = new.first() else {
                return Ok(());
            };
            let own = format!("{module}.weight");
            let shared = format!("{EMBEDDING}.weight");
            let whole = self.copies.contains_key(&own) || self.shared;
            let rows = self.rows.get(match inventory.tied {
                true => &shared,
                false => &own,
            });
            let has = |id: &u32| rows.is_some_and(|(_, ids)| ids.contains(&(*id as usize)));
            if self.modules.contains_key(module) {
                let table = if inventory.tied { &shared } else { &own };
                let module = table.trim_end_matches(".weight");
                let place = match self.modules.contains_key(module) {
                    true => "base_layer.weight",
                    false => "weight",
                };
                let in_file = format!("{PREFIX}{module}.{place}");
                self.tables.insert(table.clone(), in_file);
            } else if !whole && !new.iter().all(has) {
                let id = new.iter().find(|id| !has(id)).unwrap_or(first);
                let (key, why) = match (self.settings.contains_key(KEY), self.saved.is_empty()) {
                    (true, _) => (KEY, "does not have it; leave the key out, or"),
                    (false, false) => ("modules_to_save", "does not name it;"),
                    (false, true) => ("target_modules", "names a table of the model;"),
                };
                let reason = format!(
                    "nothing trains the row of the new token {id} in `{module}`: this key {why} name \
                     embed_tokens and lm_head in modules_to_save{}",
                    match inventory.tied {
                        true => ", or one of them with ensure_weight_tying",
                        false => "",
                    }
                );
                return Err(ConfigError::new(key, reason));
            }
        }
        Ok(())
    }

    /// Takes in what a file has of the embedding and of the head beside what is trained.
    pub(super) fn note_tables(&mut self, file: &Tensors, inventory: &Inventory) {
        self.tables.clear();
        for name in file.names() {
            for module in [EMBEDDING, HEAD] {
                if self.role(name, module, inventory.tied) == Some(Role::Table) {
                    let table = format!("{module}.weight");
                    self.tables.insert(table, name.to_owned());
                }
            }
        }
    }

    /// Whether a tensor of the file is a whole table or repeats another tensor.
    pub(crate) fn is_beside(&self, name: &str, tied: bool) -> bool {
        let role = |module| self.role(name, module, tied).is_some();
        [EMBEDDING, HEAD].into_iter().any(role)
    }

    fn role(&self, name: &str, module: &str, tied: bool) -> Option<Role> {
        let rest = name.strip_prefix(PREFIX)?.strip_prefix(module)?;
        let own = |known: &String| known == name;
        let of_embedding = tied && module == HEAD;
        match rest.strip_prefix('.')? {
            "weight" if self.copies.values().any(own) => None,
            "modules_to_save.weight" => Some(Role::Twice),
            DELTA => match self.rows.values().any(|(known, _)| own(known)) {
                true => None,
                false => of_embedding.then_some(Role::Twice),
            },
            "weight"
            | "base_layer.weight"
            | "original_module.weight"
            | "token_adapter.base_layer.weight" => Some(match of_embedding {
                true => Role::Twice,
                false => Role::Table,
            }),
            _ => None,
        }
    }
}

/// Number of rows of the embedding that the adapter in `folder` belongs to, if it has more than
/// the model: those of a table in its file, or those that it trains.
pub(crate) fn vocabulary(folder: &Path, own: usize) -> Result<usize, ModelError> {
    let (config, weights) = (folder.join(super::CONFIG), folder.join(super::WEIGHTS));
    if !config.is_file() || !weights.is_file() {
        // Opening the adapter says what is wrong.
        return Ok(own);
    }
    let settings = read_json(&config)?;
    let mut rows = own;
    if let Some(settings) = settings.as_object() {
        for (_, mut ids) in read(settings).map_err(ModelError::config(&config))? {
            // Ids that the model lacks, one after the other.
            ids.sort_unstable();
            ids.iter().for_each(|&id| rows += usize::from(id == rows));
        }
    }
    let file = only_floats(Tensors::open(&weights)?)?;
    for name in file.names() {
        let of = |module: &str| {
            let rest = name.strip_prefix(PREFIX)?.strip_prefix(module)?;
            let shape = &file.info(name)?.shape;
            match (rest.strip_prefix('.')?, &shape[..]) {
                ("lora_embedding_A", [_, rows]) => Some(*rows),
                ("lora_A.weight" | "lora_embedding_B" | DELTA, _) => None,
                (_, [rows, _]) => Some(*rows),
                _ => None,
            }
        };
        let of_table = [EMBEDDING, HEAD].into_iter().find_map(of);
        rows = rows.max(of_table.unwrap_or(0));
    }
    Ok(rows)
}
