//! Every key of the configuration file, in one table that provides the reader, the template, the
//! help and the check on resuming.

/// Kind of the value of a key.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Any text.
    Text,
    /// A folder, a `.gguf` file or a hub id.
    Model,
    /// A path, relative to the configuration file.
    Path,
    /// Paths, relative to the configuration file; a single path needs no brackets.
    Paths,
    /// A chat template, or the path of a file that holds it.
    Template,
    /// A whole number of at least this value.
    Integer(i64),
    /// A number for which the function holds, and the text of the rule.
    Number(fn(f64) -> bool, &'static str),
    /// `true` or `false`.
    Boolean,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `"all-linear"` or a list of module names.
    Modules,
}

/// Whether a run may be resumed with another value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnResume {
    /// Another value would change the result.
    Fixed,
    /// Another value changes where the run ends, what is kept or how fast it is, but not the result
    /// of a step.
    Free,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The section, empty at the top level.
    pub section: &'static str,
    /// Name inside the section.
    pub name: &'static str,
    /// Kind of the value.
    pub kind: Kind,
    /// Default value in TOML; `None` if the help explains an absent key.
    pub default: Option<&'static str>,
    /// Whether the value may change between a run and its continuation.
    pub on_resume: OnResume,
    /// Help text.
    pub help: &'static str,
}

impl Key {
    /// `section.name`, or the name alone at the top level.
    pub fn path(&self) -> String {
        match self.section {
            "" => self.name.to_owned(),
            section => format!("{section}.{}", self.name),
        }
    }

    /// The key with this path.
    pub fn find(path: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.path() == path)
    }
}

impl Kind {
    /// Expected values, for people.
    pub fn expected(&self) -> String {
        match self {
            Kind::Text => "text in quotes".into(),
            Kind::Model => "the path of a model folder or .gguf file, or a hub id".into(),
            Kind::Path => "a path in quotes".into(),
            Kind::Paths => "a list of paths".into(),
            Kind::Template => "a chat template, or the path of a file that holds one".into(),
            Kind::Integer(least) => format!("a whole number of at least {least}"),
            Kind::Number(_, rule) => format!("a number {rule}"),
            Kind::Boolean => "true or false".into(),
            Kind::Choice(words) => format!("one of {}", words.join(", ")),
            Kind::Modules => "\"all-linear\" or a list of module names".into(),
        }
    }
}

/// Sections in the order of the template, with a line about each.
pub const SECTIONS: &[(&str, &str)] = &[
    ("", "What is trained, and where it goes."),
    ("data", "What it is trained on."),
    ("packing", "How sequences share a row."),
    (
        "lora",
        "Low-rank adapters. Without this section every weight is trained.",
    ),
    ("batch", "How much goes into an optimizer step."),
    ("optimizer", "AdamW."),
    ("schedule", "The learning rate over the run."),
    ("run", "How long, and what is kept."),
];

const POSITIVE: Kind = Kind::Number(|x| x > 0.0 && x.is_finite(), "above 0");
const NOT_NEGATIVE: Kind = Kind::Number(|x| x >= 0.0 && x.is_finite(), "of at least 0");
const BELOW_ONE: Kind = Kind::Number(|x| (0.0..1.0).contains(&x), "in [0, 1)");
const SHARE: Kind = Kind::Number(|x| (0.0..=1.0).contains(&x), "in [0, 1]");

use Kind::{Boolean, Choice, Integer, Modules};
use OnResume::{Fixed, Free};

const fn key(
    section: &'static str,
    name: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    on_resume: OnResume,
    help: &'static str,
) -> Key {
    Key {
        section,
        name,
        kind,
        default,
        on_resume,
        help,
    }
}

/// Every key.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    // Model and adapter are compared by their contents, so that they may be moved.
    key("", "model", Kind::Model, None, Free,
        "Model to start from: a Hugging Face folder, a .gguf file or a hub id. Required."),
    key("", "adapter", Kind::Path, None, Free,
        "PEFT adapter to go on from, with its own rank, alpha, modules and rsLoRA; absent: start fresh."),
    key("", "output", Kind::Path, None, Free,
        "Folder for checkpoints and metrics; absent: runs/<name of the configuration file>."),
    key("", "device", Choice(&["auto", "cpu", "cuda"]), Some("\"auto\""), Fixed,
        "Where to compute; auto: on an NVIDIA GPU if there is one, else on the processor."),
    key("", "precision", Choice(&["auto", "f32", "bf16"]), Some("\"auto\""), Fixed,
        "Type of activations; auto: bf16 on a GPU, f32 on the processor, which has nothing else."),
    key("", "seed", Integer(0), Some("42"), Fixed,
        "Decides everything random: order of the data, fresh adapters, dropout."),

    // The resulting sequences are compared by their contents, so that files may be moved.
    key("data", "train", Kind::Paths, Some("[]"), Free,
        "Files to train on: JSON, JSONL (plain, gzip, zstd), Parquet, CSV."),
    key("data", "eval", Kind::Paths, Some("[]"), Free,
        "Files to evaluate on."),
    key("data", "eval_ratio", BELOW_ONE, Some("0.0"), Free,
        "Share of the training records, chosen by the seed, to hold out for evaluation instead."),
    key("data", "format", Choice(&["auto", "alpaca", "chat", "completion", "text", "tokens"]), Some("\"auto\""), Free,
        "How a record is laid out; auto decides for each file by the keys of its first rows."),
    key("data", "max_length", Integer(1), None, Free,
        "Most tokens of a sequence; absent: packing.capacity."),
    key("data", "overlong", Choice(&["truncate", "split", "drop", "error"]), Some("\"truncate\""), Free,
        "What happens to longer sequences."),
    key("data", "train_on", Choice(&["completion", "assistant", "all"]), Some("\"completion\""), Free,
        "Which tokens are trained: the last answer, every assistant turn, or everything."),
    key("data", "add_end_token", Choice(&["auto", "always", "never"]), Some("\"auto\""), Free,
        "Whether texts, and completions without chat template, that do not end in an end token are given the \
         tokenizer's; auto: but no texts where the chat template ends turns with it."),
    key("data", "on_bad_row", Choice(&["error", "skip"]), Some("\"error\""), Free,
        "What happens to a row that cannot be read."),
    key("data", "max_row_bytes", Integer(1), Some("16777216"), Free,
        "Most bytes of a row of a file, so that no file exhausts the memory; a token id in Parquet counts as 8."),
    key("data", "chat_template", Kind::Template, None, Free,
        "Chat template, or a file that holds it; absent: the adapter's, if it brings one, else the model's own."),

    key("packing", "mode", Choice(&[
            "best-fit", "first-fit", "spfhp", "lpfhp", "nnlshp", "streaming", "wrapped",
            "padding-free", "padded", "bucketed",
        ]), Some("\"best-fit\""), Fixed,
        "How sequences share a row. padding-free concatenates each batch without looking further; \
         padded and bucketed are the baselines that compute padding."),
    key("packing", "capacity", Integer(1), None, Fixed,
        "Tokens in a pack; absent: 2048, or data.max_length where that is more."),
    key("packing", "max_sequences", Integer(1), None, Fixed,
        "Most sequences in a pack; absent: unlimited (nnlshp: 3)."),
    key("packing", "window", Integer(1), Some("1024"), Fixed,
        "Packs that streaming keeps open."),
    // The resulting packs are compared, so that the file may be moved.
    key("packing", "file", Kind::Path, None, Free,
        "Packing to use instead of packing anew, stored by `tightrope pack CONFIGURATION --write FILE` \
         for the same data, capacity and kind of mode; anything else is an error. Absent: pack anew."),

    key("lora", "r", Integer(1), Some("16"), Fixed,
        "Rank."),
    key("lora", "alpha", POSITIVE, Some("32.0"), Fixed,
        "Scale: the adapter's output is multiplied by alpha / r."),
    key("lora", "dropout", BELOW_ONE, Some("0.0"), Fixed,
        "Probability of dropping an input of the adapter while training."),
    key("lora", "target_modules", Modules, Some("\"all-linear\""), Fixed,
        "Which linear layers get an adapter, such as [\"q_proj\", \"v_proj\"]."),
    key("lora", "rslora", Boolean, Some("false"), Fixed,
        "Scale by alpha / sqrt(r) instead."),
    key("lora", "quantize", Choice(&["none", "nf4"]), Some("\"none\""), Fixed,
        "How the frozen weights of linear layers are kept: as the model's files have them, or in 4 bits \
         (QLoRA). Merging adds the adapter to the weights of the files all the same."),
    key("lora", "lora_plus_ratio", POSITIVE, Some("1.0"), Fixed,
        "Learning rate of the B matrices over that of the A matrices (LoRA+)."),

    key("batch", "packs_per_step", Integer(1), None, Fixed,
        "Packs in one forward and backward pass; absent: 1."),
    key("batch", "sequences_per_step", Integer(1), None, Fixed,
        "The same for the modes padding-free, padded and bucketed, in sequences; absent: 8."),
    key("batch", "accumulation", Integer(1), Some("1"), Fixed,
        "Passes whose gradients are added up for one optimizer step."),

    key("optimizer", "learning_rate", POSITIVE, None, Fixed,
        "Highest learning rate; absent: 2e-4 with [lora], 2e-5 without."),
    key("optimizer", "beta1", BELOW_ONE, Some("0.9"), Fixed,
        "Decay of the mean of the gradients."),
    key("optimizer", "beta2", BELOW_ONE, Some("0.999"), Fixed,
        "Decay of the mean of their squares."),
    key("optimizer", "eps", POSITIVE, Some("1e-8"), Fixed,
        "Added to the root of the second moment."),
    key("optimizer", "weight_decay", NOT_NEGATIVE, Some("0.01"), Fixed,
        "Decoupled decay of matrices and embeddings; norms and biases never decay."),
    key("optimizer", "state", Choice(&["f32", "8bit"]), Some("\"f32\""), Fixed,
        "How both moments are kept: 8 bytes a parameter in f32, 2 in 8bit, which costs some precision; \
         tensors of fewer than 4,096 elements are kept in f32 all the same."),
    key("optimizer", "max_grad_norm", NOT_NEGATIVE, Some("1.0"), Fixed,
        "Gradients are scaled down to this global norm; 0: never."),

    key("schedule", "kind", Choice(&["cosine", "linear", "constant"]), Some("\"cosine\""), Fixed,
        "How the learning rate goes down after the warm-up."),
    key("schedule", "warmup_steps", Integer(0), None, Fixed,
        "Steps over which the learning rate rises."),
    key("schedule", "warmup_ratio", SHARE, None, Fixed,
        "The same as a share of all steps; absent, and no warmup_steps: 0.03."),
    key("schedule", "min_ratio", SHARE, Some("0.0"), Fixed,
        "The learning rate falls to this share of the highest."),

    key("run", "max_steps", Integer(1), None, Free,
        "Optimizer steps; the data repeats, newly shuffled, as often as needed."),
    key("run", "epochs", POSITIVE, None, Free,
        "Passes over the data instead; absent, and no max_steps: 1."),
    key("run", "eval_every", Integer(1), None, Free,
        "Steps between evaluations; absent: only at the end."),
    key("run", "save_every", Integer(1), Some("100"), Free,
        "Steps between checkpoints; the last step is always saved."),
    key("run", "keep", Integer(1), Some("2"), Free,
        "How many of the newest checkpoints stay; the best by evaluation loss stays besides."),
    key("run", "patience", Integer(1), None, Free,
        "Stop after this many evaluations in a row without a better loss; absent: never."),
    key("run", "result", Choice(&["best", "last"]), None, Free,
        "Which weights the run leaves in adapter/ or model/: those with the lowest evaluation loss, or \
         those of the last step; absent: best with run.patience, else last."),
    key("run", "recompute", Boolean, Some("false"), Free,
        "Keep only the inputs of each layer and compute the rest again going backward: less memory, \
         more time, the same result."),
];
