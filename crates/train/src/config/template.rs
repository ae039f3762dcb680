//! The table of keys as text: a commented configuration, and a reference for the documentation.

use super::keys::{KEYS, SECTIONS, SET_KEYS};
use std::fmt::Write;

/// A configuration with every key, its default, its effect and its allowed values. Keys without a
/// default, and optional sections, are commented out.
pub fn default_toml() -> String {
    let mut text = String::new();
    for (section, about) in SECTIONS {
        if section.is_empty() {
            text += &comment(about);
        } else {
            let mark = if *section == "lora" { "# " } else { "" };
            let _ = writeln!(text, "\n# {about}\n{mark}[{section}]");
        }
        for key in KEYS.iter().filter(|key| key.section == *section) {
            text += &comment(key.help);
            text += &comment(&format!("Value: {}.", key.kind.expected()));
            let _ = match (key.default, key.name) {
                (None, "model") => writeln!(text, "model = \"path or hub id\""),
                (Some(default), name) if *section != "lora" => writeln!(text, "{name} = {default}"),
                (Some(default), name) => writeln!(text, "# {name} = {default}"),
                (None, name) => writeln!(text, "# {name} = "),
            };
        }
    }
    text
}

/// The text as comments of at most 80 columns.
fn comment(text: &str) -> String {
    let mut lines = String::from("#");
    let mut width = 1;
    for word in text.split_whitespace() {
        let columns = 1 + word.chars().count();
        if width + columns > 80 {
            lines += "\n#";
            width = 1;
        }
        lines += " ";
        lines += word;
        width += columns;
    }
    lines + "\n"
}

/// A table of every key in Markdown.
pub fn reference_markdown() -> String {
    let mut text =
        String::from("| Key | Value | Default | What it does |\n| --- | --- | --- | --- |\n");
    let sets = |section: &str| if section == "data" { SET_KEYS } else { &[] };
    for key in KEYS
        .chunk_by(|a, b| a.section == b.section)
        .flat_map(|keys| keys.iter().chain(sets(keys[0].section)))
    {
        let default = key.default.map_or_else(String::new, |d| format!("`{d}`"));
        let _ = writeln!(
            text,
            "| `{}` | {} | {default} | {} |",
            key.path(),
            key.kind.expected(),
            key.help
        );
    }
    text
}
