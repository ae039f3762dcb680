//! The table of keys as text: a commented configuration, and a reference for the documentation.

use super::keys::{KEYS, SECTIONS};
use std::fmt::Write;

/// A configuration with every key, its default and what it does. Keys without a default, and
/// sections that need not be there, are commented out.
pub fn default_toml() -> String {
    let mut text = String::new();
    for (section, about) in SECTIONS {
        if section.is_empty() {
            let _ = writeln!(text, "# {about}");
        } else {
            let mark = if *section == "lora" { "# " } else { "" };
            let _ = writeln!(text, "\n# {about}\n{mark}[{section}]");
        }
        for key in KEYS.iter().filter(|key| key.section == *section) {
            let _ = writeln!(text, "# {}", key.help);
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

/// A table of every key in Markdown.
pub fn reference_markdown() -> String {
    let mut text =
        String::from("| Key | Value | Default | What it does |\n| --- | --- | --- | --- |\n");
    for key in KEYS {
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
