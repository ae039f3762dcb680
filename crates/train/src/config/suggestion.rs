//! Suggestions for words that are not known.

use super::keys::{KEYS, Key, SECTIONS};

/// Suggestion for an unknown key.
pub(super) fn hint(path: &str) -> String {
    let name = path.rsplit('.').next().unwrap_or(path);
    // The right name in the wrong section is the most likely mistake.
    if let Some(key) = KEYS.iter().find(|key| key.name == name) {
        return match key.section {
            "" => format!("`{name}` belongs at the top, before any [section]"),
            section => format!("`{name}` belongs in [{section}]"),
        };
    }
    if let Some(key) = Key::named_elsewhere(name) {
        return format!("it is `{}` here", key.path());
    }
    let section = path.rsplit_once('.').map_or("", |(section, _)| section);
    let here = KEYS.iter().filter(|key| key.section == section);
    // A key at the top level may also be a misspelt section.
    let sections = || {
        let named = SECTIONS.iter().map(|(name, _)| *name);
        named.filter(|name| !name.is_empty() && section.is_empty())
    };
    match nearest(name, here.map(|key| key.name).chain(sections())) {
        Some(known) if sections().any(|name| name == known) => {
            format!("did you mean the section [{known}]?")
        }
        Some(known) if section.is_empty() => format!("did you mean `{known}`?"),
        Some(known) => format!("did you mean `{section}.{known}`?"),
        None if section.is_empty() => {
            let sections: Vec<String> = sections().map(|name| format!("[{name}]")).collect();
            let (keys, sections) = (names(section), sections.join(", "));
            format!("the top level has {keys} and the sections {sections}")
        }
        None => format!("[{section}] has {}", names(section)),
    }
}

fn names(section: &str) -> String {
    let keys = KEYS.iter().filter(|key| key.section == section);
    keys.map(|key| key.name).collect::<Vec<_>>().join(", ")
}

/// The most similar candidate, if any is similar at all.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
