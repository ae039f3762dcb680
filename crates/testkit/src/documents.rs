//! Finds the commands that documents tell their readers to run.

/// A command of a document.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    /// Line in the document, counted from 1.
    pub line: usize,
    /// Words of the command, without variables before it and redirections after it.
    pub words: Vec<String>,
    /// Whether the command is in a block of code and meant to be run unchanged; in a sentence it
    /// may lack arguments.
    pub complete: bool,
}

/// Commands in blocks of code and in `spans` of a Markdown text, and in comments of a configuration.
pub fn commands(text: &str) -> Vec<Command> {
    let mut found = Vec::new();
    let mut fenced = false;
    let mut joined = String::new();
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced || line.starts_with("    ") || line.starts_with("#   ") {
            joined += line.trim_start_matches(['#', ' ']);
            if let Some(unfinished) = joined.strip_suffix('\\') {
                joined = format!("{} ", unfinished.trim_end());
                continue;
            }
            collect(&joined, line_number, true, &mut found);
            joined.clear();
        } else {
            for span in line.split('`').skip(1).step_by(2) {
                collect(span, line_number, false, &mut found);
            }
        }
    }
    found
}

/// Collects the commands of one line, each of which a shell would run.
fn collect(code: &str, line: usize, complete: bool, found: &mut Vec<Command>) {
    // Text in a further column explains the command.
    let code = code.split("  ").next().unwrap_or(code);
    let Some(words) = shlex::split(code) else {
        return;
    };
    for part in words.split(|word| matches!(word.as_str(), "&&" | "|" | ";")) {
        let variables = part.iter().take_while(|word| word.contains('='));
        let part = &part[variables.count()..];
        let end = part.iter().position(|word| word == ">" || word == "<");
        let words = part[..end.unwrap_or(part.len())].to_vec();
        if !words.is_empty() {
            found.push(Command {
                line,
                words,
                complete,
            });
        }
    }
}

impl Command {
    /// Arguments of the program `tightrope`, from its name on, if the command calls it: by name, by
    /// path, or with `cargo run`.
    pub fn of_tightrope(&self) -> Option<Vec<&str>> {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let program = *words.first()?;
        if program == "tightrope" || program.ends_with("/tightrope") {
            return Some(words);
        }
        let other = ["-p", "--example", "--package", "--bin"];
        if !words.starts_with(&["cargo", "run"]) || words.iter().any(|word| other.contains(word)) {
            return None;
        }
        let dashes = words.iter().position(|word| *word == "--")?;
        Some([&["tightrope"], &words[dashes + 1..]].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_where_they_are_told() {
        let text = "Run `tightrope eval` or wait.\n\n```sh\nA=1 cargo run --release -- train  # see\n\
                    cargo build && alias x=y\n./target/tightrope pack \\\n    --capacity 2 > file\n```\n";
        let found = commands(text);
        let words: Vec<String> = found.iter().map(|found| found.words.join(" ")).collect();
        let expected = [
            "tightrope eval",
            "cargo run --release -- train",
            "cargo build",
            "alias x=y",
            "./target/tightrope pack --capacity 2",
        ];
        assert_eq!(words, expected);
        assert!(!found[0].complete && found[1].complete);
        assert_eq!(found[1].of_tightrope(), Some(vec!["tightrope", "train"]));
        assert_eq!(found[2].of_tightrope(), None);
        assert_eq!(found[4].of_tightrope().unwrap()[1], "pack");
        assert_eq!(found[4].line, 7);
    }
}
