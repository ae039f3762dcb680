//! The `Modelfile` beside an exported file, from which Ollama makes a model.

use super::Job;
use serde_json::{Value, json};
use std::{fs, path::Path};
use tightrope_data::{ChatTemplate, Tokenizer, Variables};

/// First line of every file.
const FIRST: &str = "# Written by tightrope export.";

/// Whether an export has written the file.
pub(super) fn is_ours(path: &Path) -> bool {
    let file = path.symlink_metadata().is_ok_and(|data| data.is_file());
    file && fs::read(path).is_ok_and(|text| text.starts_with(FIRST.as_bytes()))
}

/// Keys of `generation_config.json`, and Ollama's names of them.
const PARAMETERS: [(&str, &str); 5] = [
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("top_k", "top_k"),
    ("min_p", "min_p"),
    ("repetition_penalty", "repeat_penalty"),
];

/// The text for an adapter of the model at `base`.
pub(super) fn of_adapter(base: &Path, file: &str) -> String {
    format!(
        "{FIRST} Then: ollama create NAME -f this-file\n\
         # The model of the adapter; a GGUF file of it serves too.\n\
         FROM {}\nADAPTER ./{file}\n",
        base.display()
    )
}

/// The text for a model in `file`.
pub(super) fn of_model(file: &str, job: &Job<'_>) -> String {
    let mut text = format!("{FIRST} Then: ollama create NAME -f this-file\nFROM ./{file}\n");
    if let Some(tokenizer) = &job.base.tokenizer {
        text.push_str(&template(tokenizer));
        for id in tokenizer.end_ids() {
            if let Some(stop) = tokenizer.id_to_token(*id) {
                text.push_str(&format!("PARAMETER stop {}\n", json!(stop)));
            }
        }
    }
    let generation = job.model.generation_config();
    let given = |key: &str| generation?.get(key)?.as_f64();
    if generation.and_then(|all| all.get("do_sample")) == Some(&Value::Bool(false)) {
        text.push_str("PARAMETER temperature 0\n");
        return text;
    }
    for (key, name) in PARAMETERS {
        if let Some(number) = given(key) {
            text.push_str(&format!("PARAMETER {name} {number}\n"));
        }
    }
    text
}

/// The line with the template, or a note why there is none.
fn template(tokenizer: &Tokenizer) -> String {
    let Some(template) = tokenizer.chat_template() else {
        return "# The model has no chat template.\n".to_owned();
    };
    match Frame::of(template, tokenizer) {
        Some(frame) => format!("TEMPLATE \"\"\"{}\"\"\"\n", frame.in_go()),
        None => {
            "# No TEMPLATE: the chat template is more than texts around messages. Ollama takes its \
                 own for the one in the file, if it knows it.\n"
                .to_owned()
        }
    }
}

/// The texts that a chat template puts around messages, if it does nothing else.
#[derive(Debug, PartialEq)]
struct Frame {
    /// Before the first message, if none is the system's.
    begin: String,
    /// Before and after the system's message, which comes first; absent if the template refuses one.
    system: Option<(String, String)>,
    before_user: String,
    /// After a user's message: also what begins the answer.
    after_user: String,
    after_assistant: String,
}

impl Frame {
    /// Finds the texts from rendered conversations, and checks them on others.
    fn of(template: &ChatTemplate, tokenizer: &Tokenizer) -> Option<Self> {
        // The day would be that of the export.
        if template.reads_clock() {
            return None;
        }
        let mut variables = Variables::new();
        for (name, text) in tokenizer.special_texts() {
            variables.insert(name.clone(), text.clone());
        }
        let render = |messages: &[(&str, &str)]| {
            let messages = messages
                .iter()
                .map(|(role, content)| json!({ "role": role, "content": content }));
            let messages: Vec<Value> = messages.collect();
            Some(
                template
                    .render(&messages, None, true, &variables)
                    .ok()?
                    .text,
            )
        };
        let (user, answer, again) = (("user", "Q1q"), ("assistant", "A1a"), ("user", "Q2q"));
        let [start, after_user, between, end] =
            cut(&render(&[user, answer, again])?, ["Q1q", "A1a", "Q2q"])?;
        if end != after_user {
            return None;
        }
        let mut before_user = common_end(&start, &between);
        before_user.drain(..end_of_turn(&before_user, tokenizer));
        let begin = start.strip_suffix(&before_user)?.to_owned();
        let after_assistant = between.strip_suffix(&before_user)?.to_owned();
        let system = render(&[("system", "S1s"), user]).and_then(|text| {
            let [before, after, _] = cut(&text, ["S1s", "Q1q"])?;
            Some((before, after.strip_suffix(&before_user)?.to_owned()))
        });
        let mut frame = Self {
            begin,
            system,
            before_user,
            after_user,
            after_assistant,
        };
        let mut tried = vec![vec![user], vec![user, answer, again]];
        tried.push(vec![
            user,
            ("assistant", "A b\nc"),
            ("user", "D\n\ne"),
            answer,
            again,
        ]);
        if frame.system.is_some() {
            tried.push(vec![("system", "S b\nc"), user]);
            tried.push(vec![("system", "S1s"), user, answer, again]);
        }
        for messages in tried {
            if render(&messages)? != frame.render(&messages) {
                return None;
            }
        }
        // What the tokenizer adds to every text is added by Ollama too.
        let bos = tokenizer
            .special_texts()
            .get("bos_token")
            .and_then(Value::as_str);
        let added = tokenizer.encode("a", true).ok()?.first().copied() == tokenizer.bos_id();
        if let (Some(bos), true) = (bos, added && tokenizer.bos_id().is_some()) {
            let without = |text: &mut String| {
                if let Some(rest) = text.strip_prefix(bos) {
                    *text = rest.to_owned();
                }
            };
            without(&mut frame.begin);
            if let Some((before, _)) = &mut frame.system {
                without(before);
            }
        }
        Some(frame)
    }

    fn render(&self, messages: &[(&str, &str)]) -> String {
        let mut text = String::new();
        if messages.first().is_none_or(|(role, _)| *role != "system") {
            text.push_str(&self.begin);
        }
        for (role, content) in messages {
            let (before, after) = match (*role, &self.system) {
                ("system", Some((before, after))) => (before.as_str(), after.as_str()),
                ("user", _) => (self.before_user.as_str(), self.after_user.as_str()),
                _ => ("", self.after_assistant.as_str()),
            };
            text.push_str(before);
            text.push_str(content);
            text.push_str(after);
        }
        text
    }

    /// The same as a template of Go, whose texts are all quoted.
    fn in_go(&self) -> String {
        let say = |text: &str| match text {
            "" => String::new(),
            // A text that ends a conversation must not end Ollama's quotes.
            text => format!("{{{{ {} }}}}", json!(text)),
        };
        let begin = match &self.system {
            Some((before, after)) => format!(
                "{{{{ if .System }}}}{}{{{{ .System }}}}{}{{{{ else }}}}{}{{{{ end }}}}",
                say(before),
                say(after),
                say(&self.begin)
            ),
            None => say(&self.begin),
        };
        format!(
            "{begin}{{{{ range .Messages }}}}{{{{ if eq .Role \"user\" }}}}{}{{{{ .Content }}}}{}\
             {{{{ else if eq .Role \"assistant\" }}}}{{{{ .Content }}}}{}{{{{ end }}}}{{{{ end }}}}",
            say(&self.before_user),
            say(&self.after_user),
            say(&self.after_assistant)
        )
    }
}

/// Number of bytes up to the end of a turn in a text between two messages: what ends a turn belongs to
/// the message before it.
fn end_of_turn(text: &str, tokenizer: &Tokenizer) -> usize {
    let ends = tokenizer.end_ids().iter();
    let ends = ends.filter_map(|id| tokenizer.id_to_token(*id));
    let after = |end: String| text.rfind(&end).map(|at| at + end.len());
    let at = ends.filter_map(after).max().unwrap_or(0);
    let rest = &text[at..];
    match at {
        0 => 0,
        at => at + rest.len() - rest.trim_start_matches('\n').len(),
    }
}

/// The texts around these parts, which must each be there once, in order.
fn cut<const P: usize, const N: usize>(text: &str, parts: [&str; P]) -> Option<[String; N]> {
    let mut rest = text;
    let mut texts = Vec::with_capacity(N);
    for part in parts {
        let (before, after) = rest.split_once(part)?;
        texts.push(before.to_owned());
        rest = after;
    }
    texts.push(rest.to_owned());
    let once = parts.iter().all(|part| text.matches(part).count() == 1);
    texts.try_into().ok().filter(|_| once)
}

/// The longest text with which both end.
fn common_end(one: &str, other: &str) -> String {
    let pairs = one.chars().rev().zip(other.chars().rev());
    let same = pairs.take_while(|(a, b)| a == b).map(|(a, _)| a);
    let same: Vec<char> = same.collect();
    same.into_iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(source: &str) -> Option<Frame> {
        let template = ChatTemplate::compile(source).unwrap();
        let mut letters: Vec<String> = (33..127_u8).map(|b| char::from(b).to_string()).collect();
        letters.extend(["<s>", "<|im_end|>"].map(str::to_owned));
        let data = tightrope_data::GgufTokenizer {
            model: "gpt2".to_owned(),
            pre: "gpt-2".to_owned(),
            token_types: letters
                .iter()
                .map(|l| if l.len() > 1 { 3 } else { 1 })
                .collect(),
            bos_id: Some(94),
            add_bos: Some(true),
            tokens: letters,
            ..Default::default()
        };
        Frame::of(&template, &Tokenizer::from_gguf(data).unwrap())
    }

    const CHATML: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n\
        {{ message.content }}<|im_end|>\n{% endfor %}\
        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

    #[test]
    fn texts_around_messages_become_a_template_of_go() {
        let found = frame(CHATML).unwrap();
        assert_eq!(found.begin, "");
        assert_eq!(found.before_user, "<|im_start|>user\n");
        assert_eq!(found.after_user, "<|im_end|>\n<|im_start|>assistant\n");
        assert_eq!(found.after_assistant, "<|im_end|>\n");
        let system = ("<|im_start|>system\n".into(), "<|im_end|>\n".into());
        assert_eq!(found.system, Some(system));
        let go = found.in_go();
        let user = r#"{{ if eq .Role "user" }}{{ "<|im_start|>user\n" }}{{ .Content }}"#;
        assert!(go.contains(user) && !go.contains('\n'), "{go}");
    }

    #[test]
    fn a_message_of_the_system_that_is_always_there_is_kept() {
        let always = format!(
            "{{{{ bos_token }}}}{{% if messages[0].role != 'system' %}}<|im_start|>system\nBe kind.\
             <|im_end|>\n{{% endif %}}{CHATML}"
        );
        let found = frame(&always).unwrap();
        assert_eq!(found.begin, "<|im_start|>system\nBe kind.<|im_end|>\n");
        assert_eq!(found.system.unwrap().0, "<|im_start|>system\n");
    }

    #[test]
    fn what_is_more_than_texts_has_no_template() {
        for more in [
            "{{ messages|length }}",
            "{{ strftime_now('%Y') }}",
            "{% if messages|length > 3 %}long{% endif %}",
        ] {
            assert_eq!(frame(&format!("{more}{CHATML}")), None, "{more}");
        }
        // A template that refuses the system's messages.
        let strict = format!(
            "{{% if messages[0].role == 'system' %}}{{{{ raise_exception('no') }}}}{{% endif %}}{CHATML}"
        );
        assert_eq!(frame(&strict).unwrap().system, None);
    }
}
