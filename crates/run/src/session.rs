//! Goes from a configuration to a device, a tokenizer, data and a model.

use crate::{
    RunError, choose,
    device::on_device,
    fingerprint,
    merge::other_base,
    new_tokens,
    plan::check_memory,
    source::{self, Hub, Origin, Source},
    tokenizer,
    tokens::TokenCache,
};
use tightrope_data::{ChatTemplate, ChatTemplates, DataError, Dataset, Format, Tokenizer};
use tightrope_model::{
    Architecture, Backend, HeadKind, LoadOptions, Model, ModelConfig, ModelError, NewToken,
    TrainableModel, Training,
};
use tightrope_report::numbers::{counted, grouped};
use tightrope_train::{
    Config, Observer, Output, Prepared, RunOptions, RunReport, StopFlag, Trainer,
    batches::{hold_out, share, share_eval},
    config::{ConfigError, DataSection, KEYS, Key, SetSection},
    load_options, training,
};

/// A model found on this machine, with its tokenizer if it has one.
pub struct Base {
    /// Place of its files.
    pub source: Source,
    /// Tokenizer; absent if the files have none, and then only data of the format `tokens` can be
    /// read.
    pub tokenizer: Option<Tokenizer>,
    /// Reason why there is no tokenizer.
    pub no_tokenizer: String,
    /// Tokens that the configuration adds to those of the model.
    pub(crate) new_tokens: Vec<NewToken>,
    /// Configuration of the model; absent if it cannot be read, which loading the model reports.
    model: Option<ModelConfig>,
    /// Whether the model has another chat template than the configuration.
    replaced_template: bool,
    /// The hub, for data sets.
    hub: Hub,
}

impl Base {
    /// Finds (or downloads) the model that a configuration names and reads its tokenizer.
    pub fn open(model: &str, observer: &dyn Observer) -> Result<Self, RunError> {
        Self::find(&StopFlag::default(), model, observer)
    }

    fn find(stop: &StopFlag, model: &str, observer: &dyn Observer) -> Result<Self, RunError> {
        let hub = Hub::from_env(stop);
        let source = source::resolve(model, &hub, observer)?;
        let model = ModelConfig::read(source.path()).ok();
        if model.as_ref().is_some_and(ModelConfig::is_text_part) {
            observer.notice(
                "the model also reads images: those parts are left out, and the text part is saved as \
                 a model of its own",
            );
        }
        let found = tokenizer::find(&source)?;
        for note in found.iter().flat_map(Tokenizer::notes) {
            observer.notice(note);
        }
        let no_tokenizer = found.as_ref().err().cloned().unwrap_or_default();
        Ok(Self {
            source,
            tokenizer: found.ok(),
            no_tokenizer,
            new_tokens: Vec::new(),
            model,
            replaced_template: false,
            hub,
        })
    }

    /// The model of a configuration with its chat template for training and answering:
    /// `data.chat_template`, else the template of the adapter, else that of the model.
    pub fn of(config: &Config, observer: &dyn Observer) -> Result<Self, RunError> {
        Self::until(&StopFlag::default(), config, observer)
    }

    /// The same; `stop` ends a download.
    pub(crate) fn until(
        stop: &StopFlag,
        config: &Config,
        observer: &dyn Observer,
    ) -> Result<Self, RunError> {
        if let Some(adapter) = config.adapter.as_deref().filter(|path| !path.is_dir()) {
            let path = adapter.to_owned();
            return Err(RunError::NoAdapter { path });
        }
        let mut base = Self::find(stop, &config.model, observer)?;
        if base.tokenizer.is_none() && config.tokens.all().next().is_some() {
            let why = base.no_tokenizer;
            return Err(RunError::NoTokenizer { why });
        }
        if let Some(tokenizer) = &mut base.tokenizer {
            base.new_tokens = new_tokens::add(tokenizer, config)?;
            if let Some(adapter) = &config.adapter {
                new_tokens::say_if_unnamed(tokenizer, adapter, observer);
            }
            let given = config.data.chat_template.as_deref();
            let given = given.map(ChatTemplate::from_option).transpose()?;
            let beside = || match &config.adapter {
                Some(adapter) => ChatTemplates::beside_adapter(adapter),
                None => Ok(None),
            };
            let templates = given.map_or_else(beside, |template| Ok(Some(template.into())))?;
            if let (Some(templates), Some(own)) = (&templates, tokenizer.chat_template()) {
                base.replaced_template = templates.choose(false).source() != own.source();
            }
            if let Some(templates) = templates {
                tokenizer.set_chat_template(templates);
            }
        }
        base.say_new_tokens(config, observer);
        Ok(base)
    }

    /// Options for loading the model of the configuration, with its new tokens.
    pub(crate) fn load_options(&self, config: &Config, capacity: usize) -> LoadOptions {
        LoadOptions {
            new_tokens: self.new_tokens.clone(),
            ..load_options(config, capacity)
        }
    }

    /// Number of rows of the embedding, if the model can be read.
    fn rows(&self, config: &Config) -> Option<usize> {
        self.model
            .as_ref()?
            .rows(&self.load_options(config, 1))
            .ok()
    }

    fn say_new_tokens(&self, config: &Config, observer: &dyn Observer) {
        let (Some(first), Some(last)) = (self.new_tokens.first(), self.new_tokens.last()) else {
            return;
        };
        let own = self.architecture().map_or(0, |model| model.vocabulary);
        let rows = self.rows(config).unwrap_or(own);
        let ids = match first.id == last.id {
            true => format!("has the id {}", first.id),
            false => format!("have the ids {} to {}", first.id, last.id),
        };
        let grown = match rows > own {
            true => format!(
                "; the embedding grows from {} to {} rows",
                grouped(own as u64),
                grouped(rows as u64)
            ),
            false => "; the embedding has rows for all of them".to_owned(),
        };
        let count = counted(self.new_tokens.len() as u64, "new token");
        observer.notice(&format!("{count} {ids}{grown}"));
    }

    /// Reads sets of files for evaluation as configured, and takes their records as often as the sets say.
    pub fn load(
        &self,
        sets: &[SetSection],
        config: &Config,
        observer: &dyn Observer,
    ) -> Result<Dataset, RunError> {
        let data = self.read(sets, "test", config, observer)?;
        let data = data
            .taken(config.seed)
            .map_err(|error| located(config, error))?;
        self.announce(&data, sets, observer);
        Ok(data)
    }

    /// Every record of some sets, once; `split` is that of data sets of the hub.
    fn read(
        &self,
        sets: &[SetSection],
        split: &str,
        config: &Config,
        observer: &dyn Observer,
    ) -> Result<Dataset, RunError> {
        // Ids are compared with the model while the row is known. Data can be inspected without a
        // usable model; training reports what is wrong with the model.
        let embedding = self.rows(config);
        let tokenizer = self.tokenizer.as_ref();
        let mut files = Vec::with_capacity(sets.len());
        for set in sets {
            let mut own = set.with(config.data_options());
            let split = set.split.as_deref().unwrap_or(split);
            let subset = set.subset.as_deref();
            let found = own
                .paths
                .iter()
                .map(|path| source::data_files(path, subset, split, &self.hub, observer));
            own.paths = found.collect::<Result<Vec<_>, _>>()?.concat();
            files.push(own);
        }
        let data = match TokenCache::of(config) {
            Some(cache) => cache.load(&files, tokenizer, embedding, observer),
            None => tightrope_data::load_sets(&files, tokenizer, embedding, observer),
        };
        let data = data.map_err(|error| match error {
            DataError::NeedsTokenizer { path, format, .. } => DataError::NeedsTokenizer {
                path,
                format,
                why: self.no_tokenizer.clone(),
            }
            .into(),
            other => located(config, other),
        })?;
        let first = sets.iter().flat_map(|set| &set.path).next();
        let first = first.map(|path| path.display().to_string());
        let objective = &config.objective;
        objective.check_kind(&first.unwrap_or_default(), data.kind)?;
        Ok(data)
    }

    pub(crate) fn architecture(&self) -> Option<&Architecture> {
        self.model.as_ref().map(ModelConfig::architecture)
    }

    /// Reports what was read.
    fn announce(&self, data: &Dataset, sets: &[SetSection], observer: &dyn Observer) {
        observer.loaded(&DataSection::paths(sets), &data.report);
        if let Some(model) = self.architecture() {
            let limit = model.rope.max_position_embeddings;
            let lengths = (0..data.sequences.len()).map(|index| data.sequences.length(index));
            let longer = lengths.filter(|length| *length > limit).count();
            if longer > 0 {
                observer.notice(&format!(
                    "{} longer than the {} positions of the model (max_position_embeddings), beyond \
                     which it may predict badly; data.max_length cuts them",
                    counted(longer as u64, "sequence"),
                    grouped(limit as u64)
                ));
            }
        }
    }

    /// Reads training data, mixed as its sets say, and evaluation data if the configuration has any.
    pub fn load_both(
        &self,
        config: &Config,
        observer: &dyn Observer,
    ) -> Result<(Dataset, Option<Dataset>), RunError> {
        let sets = &config.data.train;
        if sets.is_empty() {
            return Err(RunError::NoTrainingData);
        }
        let located = |error| located(config, error);
        let train = self.read(sets, "train", config, observer)?;
        let (train, held) = match config.data.eval_ratio > 0.0 {
            true => {
                let (train, held) = hold_out(train, config.data.eval_ratio, config.seed);
                (train, Some(held.taken(config.seed).map_err(located)?))
            }
            false => (train, None),
        };
        let mut train = train.mixed(config.seed).map_err(located)?;
        self.announce(&train, sets, observer);
        self.say_which_template_serves(config, &train, observer);
        let mut eval = match config.data.eval.is_empty() {
            true => held,
            false => Some(self.load(&config.data.eval, config, observer)?),
        };
        share(config, &mut train, self.longest_shared())?;
        if let Some(eval) = &mut eval {
            share_eval(config, eval, self.longest_shared())?;
        }
        Ok((train, eval))
    }

    /// Longest sequence that may share its beginning with others: beyond it, the rotary frequencies
    /// of the model depend on the length of the sequence.
    pub fn longest_shared(&self) -> u64 {
        self.architecture()
            .map_or(u64::MAX, Architecture::fixed_length)
    }

    /// Says where conversations are rendered otherwise than by the tokenizer of the model.
    fn say_which_template_serves(&self, config: &Config, data: &Dataset, observer: &dyn Observer) {
        let plain = |format| matches!(format, Format::Text | Format::Tokens);
        if data.report.files.iter().all(|file| plain(file.format)) {
            return;
        }
        let weights = match config.lora {
            Some(_) => "adapter",
            None => "model",
        };
        if self.replaced_template {
            observer.notice(&format!(
                "the model has another chat template than it is trained with; what serves it must \
                 use the one that the run saves in {weights}/"
            ));
        }
        let saved = self.tokenizer.as_ref().and_then(Tokenizer::chat_template);
        let saved = saved.map(ChatTemplate::source);
        let differs = |set: &&SetSection| {
            let own = set.chat_template.as_deref();
            let own = own.and_then(|text| ChatTemplate::from_option(text).ok());
            own.is_some_and(|own| Some(own.source()) != saved)
        };
        let others: Vec<&str> = config
            .data
            .train
            .iter()
            .filter(differs)
            .filter_map(|set| set.name.as_deref())
            .collect();
        if !others.is_empty() {
            observer.notice(&format!(
                "trained with a chat template of their own, which is not the one that the run saves \
                 in {weights}/: {}",
                others.join(", ")
            ));
        }
    }

    /// Says that the adapter of a configuration was trained on another model, if it was.
    pub(crate) fn say_if_other_base(
        &self,
        config: &Config,
        observer: &dyn Observer,
    ) -> Result<(), RunError> {
        let Some(adapter) = &config.adapter else {
            return Ok(());
        };
        let origin = Origin::new(&config.model, &self.source);
        if let Some(named) = other_base(adapter, &origin, &self.source)? {
            observer.notice(&format!(
                "the adapter {} was trained on {named}, and the model is {}: an adapter means \
                 something only together with the weights that it was trained on",
                adapter.display(),
                origin.name
            ));
        }
        Ok(())
    }

    /// Id that fills padded rows. Padding is known by its place, so any id is valid.
    pub fn padding_token(&self) -> u32 {
        self.tokenizer
            .as_ref()
            .and_then(Tokenizer::pad_id)
            .unwrap_or(0)
    }

    /// Names the token that fills rows to a model that scores sequences, as Transformers and TRL find
    /// their ends: the padding token of the tokenizer, else its end token.
    pub(crate) fn name_padding<D: Backend>(&self, model: &mut Model<D>) {
        let tokenizer = self.tokenizer.as_ref();
        let id = tokenizer.and_then(|own| own.pad_id().or(own.eos_id()));
        if let (Some(id), HeadKind::Score) = (id, model.config().architecture().head) {
            model.name_padding(id);
        }
    }

    /// Warns that a model without a tokenizer will be written without one.
    pub fn say_if_without_tokenizer(&self, observer: &dyn Observer) {
        if self.tokenizer.is_none() {
            let why = &self.no_tokenizer;
            observer.notice(&format!(
                "the model is written without a tokenizer, since it has none that can be read: {why}"
            ));
        }
    }
}

/// Says which settings of the configuration an adapter that goes on replaces by its own.
fn say_unused_settings(config: &Config, observer: &dyn Observer) {
    const USED: [&str; 3] = ["dropout", "quantize", "lora_plus_ratio"];
    if config.adapter.is_none() {
        return;
    }
    let of_adapter = KEYS
        .iter()
        .filter(|key| key.section == "lora" && !USED.contains(&key.name));
    let written = of_adapter
        .map(Key::path)
        .filter(|path| config.places.of(path).is_some());
    let unused: Vec<String> = written.collect();
    if !unused.is_empty() {
        observer.notice(&format!(
            "the adapter goes on with its own settings, and these of the configuration are not used: \
             {}",
            unused.join(", ")
        ));
    }
}

/// Adds the place of the wrong key, if the configuration has it.
pub(crate) fn placed(config: &Config, error: ModelError) -> RunError {
    let ModelError::Lora(wrong) = &error else {
        return error.into();
    };
    match config.places.of(&format!("lora.{}", wrong.key)) {
        None => error.into(),
        Some(place) => ConfigError::Conflict {
            place: place.clone(),
            message: error.to_string(),
        }
        .into(),
    }
}

/// Adds the place of the key of the configuration that an error of data is about.
fn located(config: &Config, error: DataError) -> RunError {
    let sections = [
        ("data.train", &config.data.train),
        ("data.eval", &config.data.eval),
    ];
    let of_set = |is: &dyn Fn(&SetSection) -> bool, keys: &[&str]| {
        sections.iter().find_map(|(section, sets)| {
            let index = sets.iter().position(is)?;
            let place = |key| config.places.of(&format!("{section}[{index}].{key}"));
            keys.iter()
                .find_map(place)
                .or_else(|| config.places.of(section))
        })
    };
    let place = match &error {
        DataError::NoColumn { path, .. } => {
            let own = |set: &SetSection| set.columns.is_some() && set.path.contains(path);
            of_set(&own, &["columns"]).or_else(|| config.places.of("data.columns"))
        }
        DataError::EmptySet { set, .. } => {
            let named = |other: &SetSection| other.name.as_ref() == Some(set);
            of_set(&named, &["weight", "samples", "path"])
        }
        DataError::Option { key, .. } => config.places.of(&format!("data.{key}")),
        _ => None,
    };
    match place {
        None => error.into(),
        Some(place) => ConfigError::Conflict {
            place: place.clone(),
            message: error.to_string(),
        }
        .into(),
    }
}

/// Executes a configuration, from files to a report.
pub fn train(
    config: &Config,
    options: &RunOptions,
    stop: &StopFlag,
    observer: &dyn Observer,
) -> Result<RunReport, RunError> {
    let (chosen, config) = choose(config, options.threads, observer)?;
    on_device!(chosen, |device| train_on(
        &device, &config, options, stop, observer
    ))
}

fn train_on<D: Backend>(
    device: &D,
    config: &Config,
    options: &RunOptions,
    stop: &StopFlag,
    observer: &dyn Observer,
) -> Result<RunReport, RunError> {
    Output::check_inputs(config)?;
    let output = Output::open(config, options, observer)?;
    let base = Base::until(stop, config, observer)?;
    output.keep_apart("the model", base.source.path())?;
    // What is wrong with the model or the adapter is said before the data is read.
    base.plan(config, 1)?;
    base.say_if_other_base(config, observer)?;
    say_unused_settings(config, observer);
    let (train, eval) = base.load_both(config, observer)?;
    let prepared = Prepared::new(config, &train, eval.as_ref(), base.padding_token())?;
    let prepared = prepared.for_base(fingerprint::facts(config, &base.source)?);
    check_memory(device, &base, config, prepared.capacity())?;
    let training = training(config);
    let load = LoadOptions {
        started: output.resumed_weights(config),
        ..base.load_options(config, prepared.capacity())
    };
    let model = TrainableModel::load(device, base.source.path(), &training, &load);
    let mut model = model.map_err(|error| placed(config, error))?;
    if training == Training::Full {
        base.say_if_without_tokenizer(observer);
    }
    base.name_padding(&mut model);
    if model.has_new_head() && !options.resume {
        observer.notice("the model has no head that scores: a new one is drawn from `seed`");
    }
    let origin = Origin::new(&config.model, &base.source);
    model.name_base(&origin.name, origin.revision.as_deref());
    let tokenizer = base.tokenizer.as_ref();
    let mut trainer = Trainer::new(
        config, options, output, prepared, tokenizer, model, observer,
    )?;
    Ok(trainer.run(stop, observer)?)
}
