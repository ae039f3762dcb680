//! Every key of the configuration file, in one table that provides the reader, the template, the
//! help and the check on resuming.

use super::{ObjectiveKind, optimizer, schedule};

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
    /// Paths as above, or tables of them with keys of their own ([`SET_KEYS`]).
    Sets,
    /// A table of keys of records and the columns that they are read from.
    Columns,
    /// `"auto"`, `"off"`, or a folder, relative to the configuration file.
    Cache,
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
    /// `"all-linear"`, a list of module names or a regular expression.
    Targets,
    /// A list of module names, or a regular expression.
    Modules,
    /// A list of module names.
    Names,
    /// A list of texts.
    Texts,
    /// A table with a text for each name.
    Descriptions,
    /// A list of whole numbers.
    Integers,
    /// A list of whole numbers, or a table of such lists.
    TokenIndices,
    /// A table with a whole number of at least 1 for each regular expression, in order.
    Ranks,
    /// A table with a number above 0 for each regular expression, in order.
    Scales,
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
            Kind::Sets => "a list of paths, or tables with a `path` each".into(),
            Kind::Columns => {
                "a table such as { prompt = \"question\", completion = \"answer\" }".into()
            }
            Kind::Cache => "\"auto\", \"off\", or the path of a folder".into(),
            Kind::Template => "a chat template, or the path of a file that holds one".into(),
            Kind::Integer(least) => format!("a whole number of at least {least}"),
            Kind::Number(_, rule) => format!("a number {rule}"),
            Kind::Boolean => "true or false".into(),
            Kind::Choice(words) => format!("one of {}", words.join(", ")),
            Kind::Targets => {
                "\"all-linear\", a list of module names such as [\"q_proj\", \"v_proj\"], or a \
                 regular expression for whole names"
                    .into()
            }
            Kind::Modules => {
                "a list of module names, or a regular expression for whole names".into()
            }
            Kind::Names => "a list of module names such as [\"embed_tokens\", \"lm_head\"]".into(),
            Kind::Texts => "a list of texts such as [\"<tool>\"]".into(),
            Kind::Descriptions => {
                "a table of texts such as { \"<tool>\" = \"calls a tool\" }".into()
            }
            Kind::TokenIndices => {
                "a list of token ids, or a table of such lists by module, such as \
                 { embed_tokens = [5], lm_head = [5] }"
                    .into()
            }
            Kind::Integers => "a list of whole numbers such as [0, 1]".into(),
            Kind::Ranks => "a table of whole numbers of at least 1 by regular expression, such as \
                 { \"q_proj\" = 8 }"
                .into(),
            Kind::Scales => {
                "a table of numbers above 0 by regular expression, such as { \"q_proj\" = 16 }"
                    .into()
            }
        }
    }
}

/// Sections in the order of the template, with a line about each.
pub const SECTIONS: &[(&str, &str)] = &[
    ("", "The model to train, and the output."),
    ("tokens", "New tokens of the model."),
    ("data", "Data for training and evaluation."),
    (
        "objective",
        "What is trained: the next token, or to prefer one answer to another.",
    ),
    ("packing", "Packing of sequences into rows."),
    (
        "lora",
        "Low-rank adapters. Without this section every weight is trained.",
    ),
    ("batch", "Size of an optimizer step."),
    ("optimizer", "How weights follow their gradients."),
    ("schedule", "Learning rate over the run."),
    ("run", "Length of the run, evaluations and checkpoints."),
];

const POSITIVE: Kind = Kind::Number(|x| x > 0.0 && x.is_finite(), "above 0");
const NOT_NEGATIVE: Kind = Kind::Number(|x| x >= 0.0 && x.is_finite(), "of at least 0");
const BELOW_ONE: Kind = Kind::Number(|x| (0.0..1.0).contains(&x), "in [0, 1)");
const SHARE: Kind = Kind::Number(|x| (0.0..=1.0).contains(&x), "in [0, 1]");

const FORMATS: Kind = Choice(&[
    "auto",
    "alpaca",
    "chat",
    "completion",
    "preference",
    "labelled",
    "text",
    "tokens",
]);
const TRAIN_ON: Kind = Choice(&["completion", "assistant", "all"]);

use Kind::{Boolean, Choice, Integer};
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

/// Every key of a table `[[data.train]]` or `[[data.eval]]`.
#[rustfmt::skip]
pub const SET_KEYS: &[Key] = &[
    key(SET, "path", Kind::Paths, None, Free,
        "File or files of the set, or data sets of the hub: hub:owner/name. Required."),
    key(SET, "subset", Kind::Text, None, Free,
        "Subset (configuration) of a data set of the hub; absent: `default`, or the only one."),
    key(SET, "split", Kind::Text, None, Free,
        "Split of a data set of the hub; absent: train in `data.train`, test in `data.eval`."),
    key(SET, "name", Kind::Text, None, Free,
        "Name in reports and metrics; absent: that of the first file, without its ending."),
    key(SET, "weight", POSITIVE, None, Free,
        "How often an epoch takes each record: 0.5 takes half of them, 2.5 all twice and half of them \
         once more; absent: 1."),
    key(SET, "samples", Integer(1), None, Free,
        "Number of records that an epoch takes, instead of a weight."),
    key(SET, "format", FORMATS, None, Free,
        "Instead of `data.format`."),
    key(SET, "columns", Kind::Columns, None, Free,
        "Instead of `data.columns`."),
    key(SET, "train_on", TRAIN_ON, None, Free,
        "Instead of `data.train_on`."),
    key(SET, "chat_template", Kind::Template, None, Free,
        "Instead of `data.chat_template`."),
];

/// Section of the keys of a set.
const SET: &str = "data.train[]";

/// Every key.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    // Model and adapter are compared by their contents, so that they may be moved.
    key("", "model", Kind::Model, None, Free,
        "Model to start from: a Hugging Face folder, a .gguf file or a hub id. Required."),
    key("", "adapter", Kind::Path, None, Free,
        "PEFT adapter to continue, with its own rank, alpha, modules and rsLoRA; absent: start fresh."),
    key("", "output", Kind::Path, None, Free,
        "Folder for checkpoints and metrics; absent: runs/<name of the configuration file>."),
    key("", "device", Choice(&["auto", "cpu", "cuda"]), Some("\"auto\""), Fixed,
        "Device that computes; auto: an NVIDIA GPU if there is one, else the processor."),
    key("", "precision", Choice(&["auto", "f32", "bf16"]), Some("\"auto\""), Fixed,
        "Type of activations; auto: bf16 on a GPU, f32 on the processor. With AMX, bf16 is faster there \
         too, and it halves the memory of activations."),
    key("", "seed", Integer(0), Some("42"), Fixed,
        "Seed of everything random: order of the data, new adapters, dropout."),

    key("tokens", "add", Kind::Texts, None, Fixed,
        "Ordinary tokens to add to the tokenizer; the embedding and the head get the rows that they \
         lack (docs/adapters.md says what trains them)."),
    key("tokens", "add_special", Kind::Texts, None, Fixed,
        "Special tokens to add, which are left out of decoded text."),
    key("tokens", "init", Choice(&["mean", "pieces"]), None, Fixed,
        "Initial rows of new tokens: the mean of all rows of the model, or of the tokens that the \
         text of the token was encoded to before; absent: mean."),
    key("tokens", "descriptions", Kind::Descriptions, None, Fixed,
        "Text for a new token, whose row then starts with the mean of the tokens of the text."),

    // The resulting sequences are compared by their contents, so that files may be moved.
    key("data", "train", Kind::Sets, Some("[]"), Free,
        "Files to train on: JSON, JSONL (plain, gzip, zstd), Parquet, CSV; hub:owner/name for a data \
         set of the hub; or tables [[data.train]] for sets that are mixed, with the keys below."),
    key("data", "eval", Kind::Sets, Some("[]"), Free,
        "Files to evaluate on; or tables [[data.eval]], which are also evaluated one by one."),
    key("data", "eval_ratio", BELOW_ONE, Some("0.0"), Free,
        "Share of the training records, chosen by the seed, to hold out for evaluation instead."),
    key("data", "format", FORMATS, Some("\"auto\""), Free,
        "Layout of records; auto decides for each file by the keys of its first rows."),
    key("data", "columns", Kind::Columns, Some("{}"), Free,
        "Columns of keys that have another name in the files, on the left the key as docs/data.md has \
         it."),
    key("data", "max_length", Integer(1), None, Free,
        "Largest number of tokens in a sequence; absent: packing.capacity, or half of it for pairs of \
         answers."),
    key("data", "overlong", Choice(&["truncate", "split", "drop", "error"]), Some("\"truncate\""), Free,
        "Treatment of longer sequences."),
    key("data", "train_on", TRAIN_ON, Some("\"completion\""), Free,
        "Tokens that are trained: the last answer, every assistant turn, or everything."),
    key("data", "add_end_token", Choice(&["auto", "always", "never"]), Some("\"auto\""), Free,
        "Whether texts, and completions without chat template, get the tokenizer's end token if they \
         do not end in one; auto: texts get none if the chat template ends turns with it."),
    key("data", "on_bad_row", Choice(&["error", "skip"]), Some("\"error\""), Free,
        "Treatment of rows that cannot be read."),
    key("data", "max_row_bytes", Integer(1), Some("16777216"), Free,
        "Largest size of a row in bytes, so that no file exhausts the memory; a token id in Parquet \
         counts as 8 bytes."),
    key("data", "cache", Kind::Cache, Some("\"auto\""), Free,
        "Folder in which tokens are kept, so that the next run on the same data starts with them; \
         auto: tightrope/tokens in the user's cache, for data of 16 MiB and more."),
    key("data", "chat_template", Kind::Template, None, Free,
        "Chat template, or a file that holds it; absent: that of the adapter if it has one, else that \
         of the model."),

    key("objective", "kind", Choice(ObjectiveKind::NAMES), Some("\"cross-entropy\""), Fixed,
        "cross-entropy predicts the next token; dft weighs each token by its probability; dpo, ipo, \
         simpo, cpo and orpo train on pairs of a better and a worse answer, kto on answers that are \
         good or bad, and reward trains a head that scores answers, on pairs (docs/preference.md)."),
    key("objective", "beta", POSITIVE, None, Fixed,
        "Strength of the preference, or how far the model may leave the reference; absent: 2.0 for \
         simpo, else 0.1."),
    key("objective", "reference", Choice(&["start", "base"]), None, Fixed,
        "Reference model of dpo, ipo and kto: the model as the run starts, or the base model without any \
         adapter; absent: start."),
    key("objective", "convention", Choice(&["trl", "paper"]), None, Fixed,
        "Whose formula of dpo, ipo, cpo and orpo counts where TRL and the paper differ \
         (docs/preference.md); absent: trl."),
    key("objective", "gamma", NOT_NEGATIVE, None, Fixed,
        "Margin of simpo between the rewards of both answers; absent: 0.5."),
    key("objective", "desirable_weight", NOT_NEGATIVE, None, Fixed,
        "Weight of the losses of good answers (kto); absent: 1."),
    key("objective", "undesirable_weight", NOT_NEGATIVE, None, Fixed,
        "Weight of the losses of bad answers (kto); absent: 1."),
    key("objective", "label_smoothing", Kind::Number(|x| (0.0..0.5).contains(&x), "in [0, 0.5)"), None, Fixed,
        "Share of pairs that are taken to be the wrong way round (dpo, simpo, cpo); absent: 0."),
    key("objective", "center_rewards_coefficient", NOT_NEGATIVE, None, Fixed,
        "Weight of the squared sum of both scores of a pair, which keeps scores around 0 (reward); \
         absent: 0."),
    key("objective", "cross_entropy", NOT_NEGATIVE, None, Fixed,
        "Weight of the cross-entropy of the better answer, which is added; absent: 1.0 for cpo and \
         orpo (there with the prompt), else 0."),

    key("packing", "mode", Choice(&[
            "best-fit", "first-fit", "spfhp", "lpfhp", "nnlshp", "streaming", "wrapped",
            "padding-free", "padded", "bucketed",
        ]), Some("\"best-fit\""), Fixed,
        "How sequences share a row. padding-free concatenates each batch in the order of the data; \
         padded and bucketed are the baselines that compute padding."),
    key("packing", "capacity", Integer(1), None, Fixed,
        "Number of tokens in a pack; absent: 2048, or data.max_length if that is larger."),
    key("packing", "max_sequences", Integer(1), None, Fixed,
        "Largest number of sequences, or of pairs, in a pack; absent: unlimited (nnlshp: 3)."),
    key("packing", "window", Integer(1), Some("1024"), Fixed,
        "Number of packs that streaming keeps open."),
    key("packing", "share_prefix", Boolean, None, Fixed,
        "Whether sequences that begin alike share the beginning, which is computed once: the prompt of \
         a pair of answers, or any untrained beginning (docs/packing.md); absent: true for pairs that \
         are packed, else false."),
    // The resulting packs are compared, so that the file may be moved.
    key("packing", "file", Kind::Path, None, Free,
        "Stored packing to use, written by `tightrope pack CONFIGURATION --write FILE` for the same \
         data, capacity and kind of mode; another packing is an error. Absent: the data is packed."),

    key("lora", "r", Integer(1), Some("16"), Fixed,
        "Rank."),
    key("lora", "alpha", POSITIVE, Some("32.0"), Fixed,
        "Scale: the adapter's output is multiplied by alpha / r."),
    key("lora", "dropout", BELOW_ONE, Some("0.0"), Fixed,
        "Probability of dropping an input of the adapter while training."),
    key("lora", "target_modules", Kind::Targets, Some("\"all-linear\""), Fixed,
        "Linear layers that get an adapter (docs/adapters.md says how names are matched)."),
    key("lora", "exclude_modules", Kind::Modules, None, Fixed,
        "Layers among these that get none."),
    key("lora", "layers", Kind::Integers, None, Fixed,
        "Decoder layers, from 0, that get an adapter; absent: all."),
    key("lora", "rank_pattern", Kind::Ranks, None, Fixed,
        "Other ranks: the first expression that matches the end of a layer's name counts."),
    key("lora", "alpha_pattern", Kind::Scales, None, Fixed,
        "Other values of alpha, by the same rule."),
    key("lora", "bias", Choice(&["none", "all", "lora_only"]), Some("\"none\""), Fixed,
        "Biases that are trained too: none, all, or those of layers with an adapter."),
    key("lora", "modules_to_save", Kind::Names, Some("[]"), Fixed,
        "Modules that are trained whole and kept in the adapter, by the ends of their names: \
         embed_tokens, lm_head, norms."),
    key("lora", "trainable_token_indices", Kind::TokenIndices, None, Fixed,
        "Tokens whose rows are trained, while the others of the embedding stay frozen: those of the \
         embedding and of a head that is the embedding, or by module; absent: new tokens."),
    key("lora", "ensure_weight_tying", Boolean, Some("false"), Fixed,
        "Keep a head that is the embedding the embedding if modules_to_save has one of them; else \
         each is trained for itself."),
    key("lora", "rslora", Boolean, Some("false"), Fixed,
        "Scale by alpha / sqrt(r) instead."),
    key("lora", "dora", Boolean, Some("false"), Fixed,
        "Train the magnitude of each row of a weight beside its direction (DoRA)."),
    key("lora", "init", Choice(&["random", "pissa", "olora", "loftq"]),
        Some("\"random\""), Fixed,
        "Initial factors: A random and B zero; a part of the weight, which is taken out of it; or \
         (loftq) what NF4 loses of it (docs/adapters.md)."),
    key("lora", "quantize", Choice(&["none", "nf4"]), Some("\"none\""), Fixed,
        "Storage of the frozen weights of linear layers: as in the model's files, or in 4 bits \
         (QLoRA). Merging adds the adapter to the weights of the files, unless loftq started it."),
    key("lora", "lora_plus_ratio", POSITIVE, Some("1.0"), Fixed,
        "Learning rate of the B matrices over that of the A matrices (LoRA+)."),

    key("batch", "packs_per_step", Integer(1), None, Fixed,
        "Number of packs in one forward and backward pass; absent: 1, unless sequences_per_step is set."),
    key("batch", "sequences_per_step", Integer(1), None, Fixed,
        "Number of sequences, or of pairs, in a step, which is packed by itself: the steps are those of \
         training without packing. Absent: steps take packs; padding-free, padded and bucketed take 8."),
    key("batch", "accumulation", Integer(1), Some("1"), Fixed,
        "Number of passes whose gradients are added for one optimizer step. Not with sequences_per_step \
         in packs, where a step has as many passes as its packs need."),

    key("optimizer", "kind", Choice(&optimizer::NAMES), Some("\"adamw\""), Fixed,
        "Optimizer; docs/optimizers.md says when to take which, and how they differ."),
    key("optimizer", "learning_rate", POSITIVE, None, Fixed,
        "Highest learning rate; absent: 2e-4 with [lora], 2e-5 without."),
    key("optimizer", "embedding_learning_rate", POSITIVE, None, Fixed,
        "Highest learning rate of the embedding, and of a head that is tied to it, if they are \
         trained; absent: as other parameters (muon: as adamw_learning_rate)."),
    key("optimizer", "head_learning_rate", POSITIVE, None, Fixed,
        "Highest learning rate of a head that is not tied to the embedding, if it is trained; \
         absent: as other parameters (muon: as adamw_learning_rate)."),
    key("optimizer", "beta1", BELOW_ONE, None, Fixed,
        "Decay of the mean of the gradients; absent: 0.9 (adafactor: no mean is kept). lion: weight \
         of the momentum in a step; schedule-free: place of the gradient between iterate and average."),
    key("optimizer", "beta2", BELOW_ONE, None, Fixed,
        "Decay of the mean of the squared gradients, of lion's momentum; absent: 0.999 (lion: 0.99)."),
    key("optimizer", "eps", POSITIVE, None, Fixed,
        "Added to the root of the second moment, by adafactor to the squared gradient; absent: 1e-8 \
         (adafactor: 1e-30)."),
    key("optimizer", "weight_decay", NOT_NEGATIVE, None, Fixed,
        "Decoupled decay of matrices and embeddings; norms and biases never decay; absent: 0.01 for \
         adamw, 0.1 for muon, else 0."),
    key("optimizer", "momentum", BELOW_ONE, None, Fixed,
        "Decay of muon's momentum; absent: 0.95."),
    key("optimizer", "nesterov", Boolean, None, Fixed,
        "Whether muon looks one step ahead (Nesterov); absent: true."),
    key("optimizer", "ns_steps", Integer(1), None, Fixed,
        "Number of muon's Newton-Schulz steps; absent: 5."),
    key("optimizer", "adjust_lr", Choice(&["original", "match-rms-adamw"]), None, Fixed,
        "How muon adjusts the learning rate to a matrix: by the root of rows / columns if that is \
         above 1, or so that updates are as large as those of adamw; absent: match-rms-adamw."),
    key("optimizer", "adamw_learning_rate", POSITIVE, None, Fixed,
        "Highest learning rate of what muon leaves to adamw: embedding, head, norms, biases; absent: \
         learning_rate."),
    key("optimizer", "decay_rate", Kind::Number(|x| x < 0.0 && x.is_finite(), "below 0"), None, Fixed,
        "Exponent of adafactor's second moment: its decay in step t is 1 - t^decay_rate; absent: -0.8."),
    key("optimizer", "clip_threshold", POSITIVE, None, Fixed,
        "Largest root mean square of an update of adafactor before the learning rate; absent: 1.0."),
    key("optimizer", "scale_parameter", Boolean, None, Fixed,
        "Whether adafactor multiplies the learning rate by the root mean square of the parameter, at \
         least 0.001; absent: false."),
    key("optimizer", "r", NOT_NEGATIVE, None, Fixed,
        "Power of the step in the weights of schedule-free's average; absent: 0."),
    key("optimizer", "weight_lr_power", NOT_NEGATIVE, None, Fixed,
        "Power of the learning rate in the weights of schedule-free's average; absent: 2."),
    key("optimizer", "state", Choice(&["f32", "bf16", "8bit"]), Some("\"f32\""), Fixed,
        "Storage of moments: 4 bytes each in f32, 2 in bf16 (adamw, lion), 1 in 8bit (adamw). Fewer \
         bytes cost some precision; in 8bit, tensors of fewer than 4,096 elements keep f32."),
    key("optimizer", "max_grad_norm", NOT_NEGATIVE, Some("1.0"), Fixed,
        "Gradients are scaled down to this global norm; 0: never."),

    key("schedule", "kind", Choice(&schedule::NAMES), Some("\"cosine\""), Fixed,
        "Shape of the learning rate after the warm-up; schedule-free takes constant."),
    key("schedule", "warmup_steps", Integer(0), None, Fixed,
        "Number of steps over which the learning rate rises."),
    key("schedule", "warmup_ratio", SHARE, None, Fixed,
        "The warm-up as a share of all steps; 0.03 if neither key is set."),
    key("schedule", "min_ratio", SHARE, None, Fixed,
        "The learning rate falls to this share of the highest (not constant, inverse-sqrt); absent: 0."),
    key("schedule", "decay_steps", Integer(1), None, Fixed,
        "Number of steps at the end over which wsd falls."),
    key("schedule", "decay_ratio", SHARE, None, Fixed,
        "The decay of wsd as a share of all steps; 0.1 if neither key is set."),
    key("schedule", "decay_shape", Choice(&["linear", "cosine", "1-sqrt"]), None, Fixed,
        "Shape of wsd's decay; absent: cosine."),
    key("schedule", "timescale", Integer(1), None, Fixed,
        "Steps after which inverse-sqrt begins to fall like the inverse root; absent: the warm-up, or \
         10,000 without one."),
    key("schedule", "cycles", Integer(1), None, Fixed,
        "Number of cosines of cosine-restarts; absent: 1."),
    key("schedule", "power", POSITIVE, None, Fixed,
        "Power of polynomial; absent: 1."),

    key("run", "max_steps", Integer(1), None, Free,
        "Number of optimizer steps; the data repeats, newly shuffled, as often as needed."),
    key("run", "epochs", POSITIVE, None, Free,
        "Number of epochs instead of max_steps; 1 if neither key is set."),
    key("run", "eval_every", Integer(1), None, Free,
        "Steps between evaluations; absent: only at the end."),
    key("run", "save_every", Integer(1), Some("100"), Free,
        "Steps between checkpoints; the last step is always saved."),
    key("run", "keep", Integer(1), Some("2"), Free,
        "Number of newest checkpoints that are kept; the one with the lowest evaluation loss is kept \
         as well."),
    key("run", "patience", Integer(1), None, Free,
        "Stop after this many evaluations in a row without a better loss; absent: never."),
    key("run", "result", Choice(&["best", "last"]), None, Free,
        "Weights that the run leaves in adapter/ or model/: those with the lowest evaluation loss, or \
         those of the last step; absent: best with run.patience, else last."),
    key("run", "recompute", Boolean, Some("false"), Free,
        "Keep only the input of each layer and compute the rest again in the backward pass: less \
         memory, more time, the same result."),
    key("run", "neftune_noise_alpha", NOT_NEGATIVE, Some("0.0"), Fixed,
        "Noise on the embeddings of training passes (NEFTune): uniform in ±alpha / sqrt(L d) for a \
         sequence of L tokens with d features; 0: none, usual: 5."),
];
