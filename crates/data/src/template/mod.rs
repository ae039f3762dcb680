//! Chat templates: Jinja as Transformers configures it, byte for byte.

mod filters;
mod methods;
mod python;
mod turns;

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use chrono::NaiveDateTime;
use minijinja::value::{Kwargs, Object, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use serde_json::Map;

pub use turns::Turn;
pub(crate) use turns::assistant_turns;

use crate::error::DataError;

/// What a template is given besides the messages and tools.
pub type Variables = Map<String, serde_json::Value>;

/// A compiled chat template.
///
/// Rendering equals Python's jinja2 3.1 in Transformers' environment: sandboxed, `trim_blocks`,
/// `lstrip_blocks`, loop controls, `tojson` without HTML escapes, `raise_exception`,
/// `strftime_now`, Python's methods of strings, lists and dictionaries, its `str()` of every
/// value, and `{% generation %}`.
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    marks_generation: bool,
}

/// A conversation as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// All of it.
    pub text: String,
    /// Byte ranges inside `{% generation %}` blocks, in order.
    pub spans: Vec<std::ops::Range<usize>>,
}

/// Why a conversation was refused, in the template's or the engine's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RenderError(pub String);

const NAME: &str = "chat template";
const GENERATION: &str = "__generation__";

impl ChatTemplate {
    /// Compiles a template. `strftime_now` reads the local clock.
    pub fn compile(source: &str) -> Result<Self, DataError> {
        Self::compile_at(source, None)
    }

    /// Compiles a template for which the time is always `now`.
    pub fn compile_at(source: &str, now: Option<NaiveDateTime>) -> Result<Self, DataError> {
        let mut environment = Environment::new();
        let syntax = minijinja::syntax::SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(|e| template_error(&e))?;
        environment.set_syntax(syntax);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(methods::call);
        python::install(&mut environment);
        environment.add_function("strftime_now", move |format: String| {
            python::strftime(
                now.unwrap_or_else(|| chrono::Local::now().naive_local()),
                &format,
            )
        });
        let (replaced, marks_generation) = mark_generation(source);
        environment
            .add_template_owned(NAME, replaced)
            .map_err(|e| template_error(&e))?;
        Ok(Self {
            environment,
            source: source.to_owned(),
            marks_generation,
        })
    }

    /// Compiles `text` if it is a template (contains `{{` or `{%`), otherwise the file it names.
    pub fn from_option(text: &str) -> Result<Self, DataError> {
        if text.contains("{{") || text.contains("{%") {
            return Self::compile(text);
        }
        let path = Path::new(text);
        let source = std::fs::read_to_string(path).map_err(DataError::io(path))?;
        Self::compile(&source)
    }

    /// The text it was compiled from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it marks assistant text with `{% generation %}`.
    pub fn marks_generation(&self) -> bool {
        self.marks_generation
    }

    /// Whether its output may depend on the day.
    pub fn reads_clock(&self) -> bool {
        self.source.contains("strftime_now")
    }

    /// Renders a conversation. Messages and tools are plain JSON; without tools the template sees
    /// `tools = none`, as from Transformers. `variables` win over the defaults.
    pub fn render(
        &self,
        messages: &[serde_json::Value],
        tools: Option<&serde_json::Value>,
        add_generation_prompt: bool,
        variables: &Variables,
    ) -> Result<Rendered, RenderError> {
        let written = Arc::new(AtomicUsize::new(0));
        let generation = Arc::new(Generation {
            written: written.clone(),
            blocks: Mutex::default(),
        });
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| python::value_of(&with_reasoning(message)))
            .collect();
        let mut context: Vec<(&str, Value)> = vec![
            ("messages", messages.into()),
            (
                "tools",
                python::value_of(tools.unwrap_or(&serde_json::Value::Null)),
            ),
            ("documents", Value::from(())),
            ("add_generation_prompt", add_generation_prompt.into()),
            (GENERATION, Value::from_dyn_object(generation.clone())),
        ];
        for (name, value) in variables {
            context.push((name, python::value_of(value)));
        }
        let context = Value::from_pairs(context);
        let template = self.environment.get_template(NAME).map_err(render_error)?;
        let mut text = Vec::new();
        let counting = Counting {
            text: &mut text,
            written,
        };
        template
            .render_captured_to(context, counting)
            .map(drop)
            .map_err(render_error)?;
        let text = String::from_utf8(text).map_err(|e| RenderError(e.to_string()))?;
        let blocks = generation
            .blocks
            .lock()
            .map(|b| b.clone())
            .unwrap_or_default();
        let mut spans = Vec::with_capacity(blocks.len());
        for (start, body) in blocks {
            let span = start..start + body.len();
            // Inside a macro or a captured block it is not known where the text will stand.
            if text.get(span.clone()) != Some(&body) {
                return Err(RenderError(
                    "a {% generation %} block inside a macro or a captured block".to_owned(),
                ));
            }
            spans.push(span);
        }
        Ok(Rendered { text, spans })
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("source", &self.source)
            .finish()
    }
}

/// Writes the text and tells the generation blocks how much there is.
struct Counting<'a> {
    text: &'a mut Vec<u8>,
    written: Arc<AtomicUsize>,
}

impl std::io::Write for Counting<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.text.extend_from_slice(bytes);
        self.written.store(self.text.len(), Ordering::Relaxed);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Called for each `{% generation %}` block, as Transformers' extension is.
#[derive(Debug)]
struct Generation {
    written: Arc<AtomicUsize>,
    /// Where each block began and what it rendered to.
    blocks: Mutex<Vec<(usize, String)>>,
}

impl Object for Generation {
    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        let (kwargs,): (Kwargs,) = from_args(args)?;
        let caller: Value = kwargs.get("caller")?;
        let start = self.written.load(Ordering::Relaxed);
        let body = caller.call(state, &[])?;
        let text = body.as_str().unwrap_or_default().to_owned();
        if let Ok(mut blocks) = self.blocks.lock() {
            blocks.push((start, text));
        }
        Ok(body)
    }
}

/// `{% generation %}` as a call block, which is what Transformers' extension makes of it.
fn mark_generation(source: &str) -> (String, bool) {
    let mut out = String::with_capacity(source.len());
    let mut found = false;
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let inner = &tag[2..end];
        let word = inner.trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace());
        let replaced = match word {
            "generation" => format!("call {GENERATION}()"),
            "endgeneration" => "endcall".to_owned(),
            _ => String::new(),
        };
        if replaced.is_empty() {
            out.push_str(&tag[..end + 2]);
        } else {
            found = true;
            out.push_str("{%");
            out.push_str(&inner.replacen(word, &format!(" {replaced} "), 1));
            out.push_str("%}");
        }
        rest = &tag[end + 2..];
    }
    out.push_str(rest);
    (out, found)
}

/// Reasoning goes by several names; Transformers gives templates the standard one (and an older).
fn with_reasoning(message: &serde_json::Value) -> serde_json::Value {
    let serde_json::Value::Object(fields) = message else {
        return message.clone();
    };
    let reasoning = ["reasoning_content", "thinking", "reasoning"]
        .iter()
        .find_map(|key| fields.get(*key).filter(|v| !v.is_null()));
    let Some(reasoning) = reasoning else {
        return message.clone();
    };
    let mut with = Map::new();
    with.insert("thinking".to_owned(), reasoning.clone());
    with.extend(fields.clone());
    with.insert("reasoning_content".to_owned(), reasoning.clone());
    serde_json::Value::Object(with)
}

fn template_error(error: &Error) -> DataError {
    DataError::Template {
        line: error.line().unwrap_or(0),
        message: message(error),
    }
}

fn render_error(error: Error) -> RenderError {
    RenderError(message(&error))
}

/// The words of `raise_exception` alone, others with their kind.
fn message(error: &Error) -> String {
    match (error.kind(), error.detail()) {
        (ErrorKind::InvalidOperation, Some(detail)) if python::is_raised(detail) => {
            python::raised(detail).to_owned()
        }
        _ => error.to_string(),
    }
}
