//! PEFT's rules for the modules that get an adapter, and for their rank and α.

use crate::{ConfigError, settings::Settings};
use fancy_regex::Regex;
use serde_json::{Map, Value};

/// The key of a layer's index, if `layers_pattern` names no list of layers.
const ANY_LIST: &str = r"\A.*?\.[^.]*\.(?P<idx>\d+)\.";

/// Names of modules, or an expression for them.
#[derive(Clone, Debug)]
enum Names {
    List(Vec<String>),
    Expression(Regex),
}

/// Whether a module gets an adapter, or the key that rules it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Chosen,
    /// Ruled out by the key.
    Not(&'static str),
}

/// The rules of a configuration.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    targets: Names,
    excluded: Option<Names>,
    /// Modules that are trained whole, as expressions for the names at or below them.
    saved: Vec<Regex>,
    layers: Vec<u64>,
    lists: Vec<Regex>,
    ranks: Vec<Pattern>,
    alphas: Vec<Pattern>,
}

/// A value for the modules that an expression matches.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    pub key: String,
    expression: Regex,
    value: f64,
}

/// Compiles an expression that `key` gives, with what surrounds it.
fn compile(key: &str, (before, text, after): (&str, &str, &str)) -> Result<Regex, ConfigError> {
    let wrong = |error| {
        let reason = format!("is no regular expression that is understood here: {error}");
        ConfigError::new(key, reason)
    };
    // Errors have positions, which are those of the text.
    Regex::new(text).map_err(wrong)?;
    Regex::new(&format!("{before}{text}{after}")).map_err(wrong)
}

fn is_match(key: &str, expression: &Regex, module: &str) -> Result<bool, ConfigError> {
    let found = expression.is_match(module);
    found.map_err(|error| ConfigError::new(key, format!("cannot be matched: {error}")))
}

/// PEFT's rule for names in lists: the whole name, or the part after a dot.
pub(super) fn ends_with(module: &str, target: &str) -> bool {
    module
        .strip_suffix(target)
        .is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

impl Names {
    fn read(settings: &Settings<'_>, key: &str) -> Result<Option<Self>, ConfigError> {
        match settings.value(key) {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => {
                let whole = compile(key, (r"\A(?:", text, r")\z"))?;
                Ok(Some(Self::Expression(whole)))
            }
            Some(_) => Ok(match settings.texts(key)? {
                names if names.is_empty() => None,
                names => Some(Self::List(names)),
            }),
        }
    }

    fn matches(&self, key: &str, module: &str) -> Result<bool, ConfigError> {
        match self {
            Names::List(names) => Ok(names.iter().any(|name| ends_with(module, name))),
            Names::Expression(expression) => is_match(key, expression, module),
        }
    }
}

impl Rules {
    pub(super) fn read(settings: &Map<String, Value>) -> Result<Self, ConfigError> {
        let reader = Settings(settings);
        let targets = Names::read(&reader, "target_modules")?;
        let targets = targets.ok_or_else(|| {
            let reason = "is empty: name linear layers, or leave the key out for all of them";
            ConfigError::new("target_modules", reason)
        })?;
        let layers = reader.counts("layers_to_transform")?;
        let lists = match reader.value("layers_pattern") {
            Some(Value::String(text)) => vec![text.clone()],
            _ => reader.texts("layers_pattern")?,
        };
        if matches!(targets, Names::Expression(_)) && !layers.is_empty() {
            let reason =
                "works with a list of target modules; write the layers into the expression";
            return Err(ConfigError::new("layers_to_transform", reason));
        }
        if !lists.is_empty() && layers.is_empty() {
            let reason = "means nothing without layers_to_transform";
            return Err(ConfigError::new("layers_pattern", reason));
        }
        let lists = lists.iter().filter(|list| !list.is_empty()).map(|list| {
            let around = (r"\A(?:^|.*?\.)", r"\.(?P<idx>\d+)\.");
            compile("layers_pattern", (around.0, list, around.1))
        });
        let saved = reader.texts("modules_to_save")?;
        let saved = saved.iter().map(|name| {
            let around = (r"\A(?:^|.*\.)", r"(?:$|\..*)");
            compile("modules_to_save", (around.0, name, around.1))
        });
        Ok(Self {
            targets,
            excluded: Names::read(&reader, "exclude_modules")?,
            saved: saved.collect::<Result<_, _>>()?,
            layers,
            lists: match lists.collect::<Result<Vec<_>, _>>()? {
                lists if lists.is_empty() => vec![compile("layers_pattern", ("", ANY_LIST, ""))?],
                lists => lists,
            },
            ranks: patterns(settings, "rank_pattern")?,
            alphas: patterns(settings, "alpha_pattern")?,
        })
    }

    /// Whether a module gets an adapter.
    pub(super) fn choice(&self, module: &str) -> Result<Choice, ConfigError> {
        if self.excludes(module)? {
            return Ok(Choice::Not("exclude_modules"));
        }
        for saved in &self.saved {
            if is_match("modules_to_save", saved, module)? {
                return Ok(Choice::Not("modules_to_save"));
            }
        }
        if !self.targets.matches("target_modules", module)? {
            return Ok(Choice::Not("target_modules"));
        }
        // A module whose whole name is given is chosen whatever its layer.
        let named = |names: &[String]| names.iter().any(|name| name == module);
        match &self.targets {
            Names::List(names) if !self.layers.is_empty() && !named(names) => {}
            _ => return Ok(Choice::Chosen),
        }
        let mut layer = None;
        for list in &self.lists {
            let found = list.captures(module);
            let found = found.map_err(|error| {
                ConfigError::new("layers_pattern", format!("cannot be matched: {error}"))
            })?;
            if let Some(found) = found {
                layer = found.name("idx").and_then(|idx| idx.as_str().parse().ok());
                break;
            }
        }
        Ok(
            match layer.is_some_and(|layer| self.layers.contains(&layer)) {
                true => Choice::Chosen,
                false => Choice::Not("layers_to_transform"),
            },
        )
    }

    /// Whether `exclude_modules` names the module.
    pub(super) fn excludes(&self, module: &str) -> Result<bool, ConfigError> {
        match &self.excluded {
            Some(names) => names.matches("exclude_modules", module),
            None => Ok(false),
        }
    }

    /// Names that select modules, each by itself; empty for an expression.
    pub(super) fn target_names(&self) -> &[String] {
        match &self.targets {
            Names::List(names) => names,
            Names::Expression(_) => &[],
        }
    }

    /// Names that exclude modules, each by itself; empty for an expression.
    pub(super) fn excluded_names(&self) -> &[String] {
        match &self.excluded {
            Some(Names::List(names)) => names,
            Some(Names::Expression(_)) | None => &[],
        }
    }

    pub(super) fn has_excluded(&self) -> bool {
        self.excluded.is_some()
    }

    pub(super) fn layers(&self) -> &[u64] {
        &self.layers
    }

    /// The rank of a module, if a pattern gives one.
    pub(super) fn rank(&self, module: &str) -> Result<Option<usize>, ConfigError> {
        Ok(first("rank_pattern", &self.ranks, module)?.map(|rank| rank as usize))
    }

    /// The α of a module, if a pattern gives one.
    pub(super) fn alpha(&self, module: &str) -> Result<Option<f64>, ConfigError> {
        first("alpha_pattern", &self.alphas, module)
    }

    /// Every pattern with the key that holds it.
    pub(super) fn patterns(&self) -> impl Iterator<Item = (&'static str, &Pattern)> {
        let ranks = self.ranks.iter().map(|pattern| ("rank_pattern", pattern));
        let alphas = self.alphas.iter().map(|pattern| ("alpha_pattern", pattern));
        ranks.chain(alphas)
    }
}

impl Rules {
    /// Whether a pattern is the first of its key that matches the module.
    pub(super) fn is_first(
        &self,
        key: &'static str,
        pattern: &Pattern,
        module: &str,
    ) -> Result<bool, ConfigError> {
        for (other, earlier) in self.patterns().filter(|(other, _)| *other == key) {
            if earlier.matches(other, module)? {
                return Ok(std::ptr::eq(earlier, pattern));
            }
        }
        Ok(false)
    }
}

impl Pattern {
    /// Whether the expression matches the end of the module's name, from its start or from a dot.
    pub(super) fn matches(&self, key: &str, module: &str) -> Result<bool, ConfigError> {
        is_match(&format!("{key}.{}", self.key), &self.expression, module)
    }
}

/// The value of the first pattern that matches.
fn first(key: &str, patterns: &[Pattern], module: &str) -> Result<Option<f64>, ConfigError> {
    for pattern in patterns {
        if pattern.matches(key, module)? {
            return Ok(Some(pattern.value));
        }
    }
    Ok(None)
}

fn patterns(settings: &Map<String, Value>, key: &str) -> Result<Vec<Pattern>, ConfigError> {
    let map = match settings.get(key) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(map)) => map,
        Some(value) => {
            let reason = format!("expected an object, got {value}");
            return Err(ConfigError::new(key, reason));
        }
    };
    let pattern = |(pattern, value): (&String, &Value)| {
        let path = format!("{key}.{pattern}");
        let expression = compile(&path, (r"\A(?:.*\.)?(", pattern, ")$"))?;
        let whole = key == "alpha_pattern" || value.as_u64().is_some_and(|r| r <= 1 << 20);
        match value.as_f64() {
            Some(number) if number > 0.0 && whole => Ok(Pattern {
                key: pattern.clone(),
                expression,
                value: number,
            }),
            _ => {
                let what = if key == "rank_pattern" {
                    "a rank"
                } else {
                    "a positive number"
                };
                Err(ConfigError::new(
                    path,
                    format!("expected {what}, got {value}"),
                ))
            }
        }
    };
    map.iter().map(pattern).collect()
}
