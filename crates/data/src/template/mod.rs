//! Chat templates: Jinja as Transformers configures it, with byte-identical output.

mod dictionary;
mod dropped;
mod filters;
pub(crate) mod limits;
mod macros;
mod methods;
mod named;
mod native;
mod operands;
pub(crate) mod parts;
mod python;
mod scan;
mod turns;

use std::borrow::Cow;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use chrono::NaiveDateTime;
use minijinja::value::{Kwargs, Object};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use serde_json::Map;

pub use dropped::Dropped;
pub use named::ChatTemplates;
pub use turns::Turn;
pub(crate) use turns::assistant_turns;

use crate::error::DataError;
use dictionary::Dictionary;

/// Variables of a template besides the messages and tools.
pub type Variables = Map<String, serde_json::Value>;

/// A compiled chat template.
///
/// Rendering equals Python's jinja2 3.1 in Transformers' environment: sandboxed, `trim_blocks`,
/// `lstrip_blocks`, loop controls, `tojson` without HTML escapes, `raise_exception`,
/// `strftime_now`, Python's methods of strings, lists and dictionaries, its `str()` of every value,
/// attributes before keys, and `{% generation %}`. Templates come with untrusted models, so their
/// size and their work are limited; docs/configuration.md lists the limits.
pub struct ChatTemplate {
    environment: Environment<'static>,
    name: String,
    source: String,
    marks_generation: bool,
    /// Makes the value for an object, which shows its methods to a template that reads them.
    dictionary: fn(Value) -> Value,
}

/// A rendered conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Text of the whole conversation.
    pub text: String,
    /// Byte ranges inside `{% generation %}` blocks, in order.
    pub spans: Vec<std::ops::Range<usize>>,
}

/// Reason why a conversation was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{template}: {message}")]
pub struct RenderError {
    /// Name of the template: its file, if it has one.
    pub template: String,
    /// Message of the template or of the engine.
    pub message: String,
    /// Whether the template uses a filter, test, function, method or operator that the engine lacks:
    /// then no row is at fault.
    pub lacks: bool,
}

const NAME: &str = "chat template";

impl ChatTemplate {
    /// Compiles a template. `strftime_now` reads the local clock.
    pub fn compile(source: &str) -> Result<Self, DataError> {
        Self::build(source, NAME, None)
    }

    /// Compiles a template for which the time is always `now`.
    pub fn compile_at(source: &str, now: Option<NaiveDateTime>) -> Result<Self, DataError> {
        Self::build(source, NAME, now)
    }

    /// Compiles a template from a file, whose name appears in errors.
    pub fn compile_from(source: &str, path: &Path) -> Result<Self, DataError> {
        let name = format!("{NAME} {}", path.display());
        Self::build(source, name.trim_end(), None)
    }

    fn build(source: &str, name: &str, now: Option<NaiveDateTime>) -> Result<Self, DataError> {
        let failed = |line: usize, message: String| DataError::Template {
            name: name.to_owned(),
            line,
            message,
        };
        // jinja2 reads every line end of a template as a line feed.
        let lines = source.replace("\r\n", "\n").replace('\r', "\n");
        let prepared = scan::prepare(&lines).map_err(|long| failed(long.line, long.message))?;
        let dictionary: fn(Value) -> Value = match prepared.reads_methods {
            true => Dictionary::wrap,
            false => std::convert::identity,
        };
        let environment = limits::on_deep_stack(|| {
            let mut environment = environment(now, dictionary)?;
            environment.add_template_owned(NAME, prepared.text)?;
            Ok(environment)
        });
        let environment =
            environment.map_err(|e: Error| failed(e.line().unwrap_or(0), message(&e)))?;
        Ok(Self {
            environment,
            name: name.to_owned(),
            source: source.to_owned(),
            marks_generation: prepared.marks_generation,
            dictionary,
        })
    }

    /// Compiles `text` if it is a template (contains `{{` or `{%`), otherwise the file it names.
    pub fn from_option(text: &str) -> Result<Self, DataError> {
        if text.contains("{{") || text.contains("{%") {
            return Self::compile(text);
        }
        let path = Path::new(text);
        match std::fs::read_to_string(path) {
            Ok(source) => Self::compile_from(&source, path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(DataError::Option {
                key: "chat_template",
                message: format!(
                    "there is no file {text}; give a template, or the path of a file that holds \
                     one (without the key the model's own is used)"
                ),
            }),
            Err(error) => Err(DataError::io(path)(error)),
        }
    }

    /// Name of the template in errors.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Text that it was compiled from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the template marks assistant text with `{% generation %}`.
    pub fn marks_generation(&self) -> bool {
        self.marks_generation
    }

    /// Whether the output may depend on the day.
    pub fn reads_clock(&self) -> bool {
        self.source.contains("strftime_now")
    }

    /// Renders a conversation. Messages and tools are plain JSON; without tools the template sees
    /// `tools = none`, as in Transformers, and it sees only keys of a message that are not null.
    /// `variables` override the defaults.
    pub fn render(
        &self,
        messages: &[serde_json::Value],
        tools: Option<&serde_json::Value>,
        add_generation_prompt: bool,
        variables: &Variables,
    ) -> Result<Rendered, RenderError> {
        // A panic of the engine (as with `loop.cycle()`) counts as an error of the template.
        let render = AssertUnwindSafe(|| {
            self.render_here(messages, tools, add_generation_prompt, variables)
        });
        let rendered = limits::on_deep_stack(|| std::panic::catch_unwind(render));
        rendered.unwrap_or_else(|_| Err(self.refused("the template engine failed".to_owned())))
    }

    fn render_here(
        &self,
        messages: &[serde_json::Value],
        tools: Option<&serde_json::Value>,
        add_generation_prompt: bool,
        variables: &Variables,
    ) -> Result<Rendered, RenderError> {
        let failed = |error: Error| {
            let mut text = message(&error);
            let formats = text.contains("use % operator on unsupported types string");
            if formats {
                text += "; text is not formatted with `%` here, but with `|format(…)`";
            }
            let unknown = matches!(
                error.kind(),
                ErrorKind::UnknownFilter
                    | ErrorKind::UnknownTest
                    | ErrorKind::UnknownFunction
                    | ErrorKind::UnknownMethod
            );
            RenderError {
                lacks: formats || unknown,
                ..self.refused(text)
            }
        };
        let written = Arc::new(AtomicUsize::new(0));
        let generation = Arc::new(Generation {
            written: written.clone(),
            blocks: Mutex::default(),
        });
        let inputs = messages.iter().chain(tools);
        let size = inputs.map(python::size_of).sum();
        let value_of = |json: &_| python::value_of(json, self.dictionary);
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| value_of(&as_transformers_has_it(message)))
            .collect();
        let mut context: Vec<(&str, Value)> = vec![
            ("messages", messages.into()),
            ("tools", value_of(tools.unwrap_or(&serde_json::Value::Null))),
            ("documents", Value::from(())),
            ("add_generation_prompt", add_generation_prompt.into()),
            (scan::GENERATION, Value::from_dyn_object(generation.clone())),
        ];
        for (name, value) in variables {
            context.push((name, value_of(value)));
        }
        let context = Value::from_pairs(context);
        let mut large;
        let environment = match limits::more_fuel(size) {
            None => &self.environment,
            Some(fuel) => {
                large = self.environment.clone();
                large.set_fuel(Some(fuel));
                &large
            }
        };
        let template = environment.get_template(NAME).map_err(failed)?;
        let mut text = Vec::new();
        let counting = Counting {
            text: &mut text,
            written,
        };
        template
            .render_captured_to(context, counting)
            .map(drop)
            .map_err(failed)?;
        let text = String::from_utf8(text).map_err(|e| self.refused(e.to_string()))?;
        let blocks = generation
            .blocks
            .lock()
            .map(|b| b.clone())
            .unwrap_or_default();
        let mut spans = Vec::with_capacity(blocks.len());
        for (start, body) in blocks {
            let span = start..start + body.len();
            // Inside a macro or a captured block, the place of the text is unknown.
            if text.get(span.clone()) != Some(&body) {
                return Err(self.refused(
                    "a {% generation %} block inside a macro or a captured block".to_owned(),
                ));
            }
            spans.push(span);
        }
        Ok(Rendered { text, spans })
    }

    fn refused(&self, message: String) -> RenderError {
        RenderError {
            template: self.name.clone(),
            message,
            lacks: false,
        }
    }
}

/// The engine as Transformers sets up jinja2, with limits.
fn environment(
    now: Option<NaiveDateTime>,
    dictionary: fn(Value) -> Value,
) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    let syntax = minijinja::syntax::SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()?;
    environment.set_syntax(syntax);
    environment.set_fuel(Some(limits::fuel()));
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(methods::call);
    python::install(&mut environment);
    // `debug` belongs to the engine and is unknown to jinja2; it would print everything, however
    // large.
    environment.remove_global("debug");
    environment.add_function("strftime_now", move |format: String| {
        python::strftime(
            now.unwrap_or_else(|| chrono::Local::now().naive_local()),
            &format,
        )
    });
    environment.add_function(scan::DICTIONARY, dictionary);
    environment.add_function("dict", move |value: Option<Value>, kwargs: Kwargs| {
        minijinja::functions::dict(value, kwargs).map(dictionary)
    });
    environment.add_function(scan::BOUNDED, limits::bounded);
    environment.add_function(scan::KEPT, limits::kept);
    environment.add_function(scan::MEASURED, limits::measured);
    environment.add_function(scan::TEXT, python::text);
    environment.add_filter(scan::KEPT, limits::kept);
    environment.add_filter(scan::GENERATION, noted);
    Ok(environment)
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("source", &self.source)
            .finish()
    }
}

/// Writes the text and tells the generation blocks its length so far.
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

/// Records each `{% generation %}` block, as the extension of Transformers does.
#[derive(Debug)]
struct Generation {
    written: Arc<AtomicUsize>,
    /// Start and text of each block.
    blocks: Mutex<Vec<(usize, String)>>,
}

impl Object for Generation {}

/// The filter around a block: it knows the text written before, because the block comes after it.
fn noted(state: &State<'_, '_>, body: String) -> String {
    let generation = state.lookup(scan::GENERATION);
    if let Some(generation) = generation
        .as_ref()
        .and_then(Value::downcast_object_ref::<Generation>)
        && let Ok(mut blocks) = generation.blocks.lock()
    {
        let start = generation.written.load(Ordering::Relaxed);
        blocks.push((start, body.clone()));
    }
    body
}

/// A message in the form that `apply_chat_template` passes to the template: without null keys, and
/// with its reasoning, which has several names, under the standard name (and an older one).
fn as_transformers_has_it(message: &serde_json::Value) -> Cow<'_, serde_json::Value> {
    let serde_json::Value::Object(fields) = message else {
        return Cow::Borrowed(message);
    };
    let reasoning = ["reasoning_content", "thinking", "reasoning"]
        .iter()
        .find_map(|key| fields.get(*key).filter(|v| !v.is_null()));
    if reasoning.is_none() && !fields.values().any(serde_json::Value::is_null) {
        return Cow::Borrowed(message);
    }
    let fields = fields.iter().filter(|(_, value)| !value.is_null());
    let fields = fields.map(|(key, value)| (key.clone(), value.clone()));
    let mut with = Map::new();
    if let Some(reasoning) = reasoning {
        with.insert("thinking".to_owned(), reasoning.clone());
    }
    with.extend(fields);
    if let Some(reasoning) = reasoning {
        with.insert("reasoning_content".to_owned(), reasoning.clone());
    }
    Cow::Owned(serde_json::Value::Object(with))
}

fn is_raised(error: &Error) -> bool {
    error.kind() == ErrorKind::InvalidOperation && error.detail().is_some_and(python::is_raised)
}

/// The words of `raise_exception` alone; other errors with their kind.
fn message(error: &Error) -> String {
    match (error.kind(), error.detail()) {
        (_, Some(detail)) if is_raised(error) => python::raised(detail).to_owned(),
        (ErrorKind::OutOfFuel, _) => {
            let line = error.line().unwrap_or(0);
            format!("line {line}: the template does not end, or makes too much text")
        }
        _ => error.to_string(),
    }
}
