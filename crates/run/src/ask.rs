//! Uses a model without training it: measures its predictions, generates answers, and verifies that
//! packing changes nothing.

use crate::{
    Base, Chosen, Generation, Prompt, RunError, Sampling, Verification, choose, device::on_device,
    generate, session::placed, verify,
};
use std::ops::ControlFlow;
use tightrope_data::{Examples, Tokenizer};
use tightrope_device::Cpu;
#[cfg(feature = "cuda")]
use tightrope_device::Cuda;
use tightrope_model::{Backend, LoadOptions, Model, TrainableModel, Training};
use tightrope_packing::Layout;
use tightrope_train::{
    Config, Evaluation, Observer, Prepared, TrainError, batches::share_eval, evaluate_sets,
    training,
};

/// Number of tokens that generation reads at a time.
const PREFILL: usize = 512;

/// Loads the model of a configuration with its adapter added, without gradients.
fn load<D: Backend>(
    device: &D,
    config: &Config,
    base: &Base,
    capacity: usize,
) -> Result<Model<D>, RunError> {
    let options = LoadOptions {
        recompute: false,
        ..base.load_options(config, capacity)
    };
    let mut model = Model::load(device, base.source.path(), &options)?;
    base.name_padding(&mut model);
    match model.has_new_head() {
        true => Err(RunError::NoScores),
        false => Ok(model),
    }
}

/// Evaluates the configuration's model and adapter on the first `limit` examples of its evaluation
/// data.
pub fn evaluate_config(
    config: &Config,
    threads: usize,
    limit: usize,
    observer: &dyn Observer,
) -> Result<Evaluation, RunError> {
    let (chosen, config) = &choose(config, threads, observer)?;
    if config.objective.kind.has_reference() && config.adapter.is_none() {
        return Err(RunError::NoReference {
            kind: config.objective.kind.name(),
        });
    }
    if config.objective.kind.has_reference() {
        observer.notice("rewards compare with the base model, without any adapter");
    }
    let base = Base::of(config, observer)?;
    base.say_if_other_base(config, observer)?;
    let data = match config.data.eval.is_empty() {
        false => {
            let mut data = base.load(&config.data.eval, config, observer)?;
            share_eval(config, &mut data, base.longest_shared())?;
            Some(data)
        }
        true => base.load_both(config, observer)?.1,
    };
    let data = data.ok_or(TrainError::NothingToEvaluate)?;
    let examples = Examples::from(&data).first(limit);
    let longest = examples.packed_lengths().into_iter().max().unwrap_or(1);
    let capacity = (longest.max(1) as usize)
        .max(usize::try_from(config.packing.capacity).unwrap_or(usize::MAX));
    on_device!(chosen, |device| {
        let mut model = load(device, config, &base, capacity)?;
        Ok(evaluate_sets(
            config,
            &mut model,
            Some(&data),
            examples,
            capacity,
        )?)
    })
}

/// Verifies the first `packs` packs of the configuration's model and training data.
pub fn verify_config(
    config: &Config,
    threads: usize,
    packs: usize,
    observer: &dyn Observer,
) -> Result<Verification, RunError> {
    let (chosen, config) = &choose(config, threads, observer)?;
    let base = Base::of(config, observer)?;
    base.say_if_other_base(config, observer)?;
    let (data, _) = base.load_both(config, observer)?;
    let prepared = Prepared::new(config, &data, None, base.padding_token())?;
    let options = base.load_options(config, prepared.capacity());
    let said = [
        (
            config.packing.mode.layout() == Layout::Padded,
            format!(
                "`packing.mode` = \"{}\" packs nothing: its rows are compared with single sequences",
                config.packing.mode
            ),
        ),
        (
            config.run.neftune_noise_alpha > 0.0,
            "verified without the noise of `run.neftune_noise_alpha`".to_owned(),
        ),
    ];
    said.iter()
        .filter(|(applies, _)| *applies)
        .for_each(|(_, text)| observer.notice(text));
    on_device!(chosen, |device| {
        let mut training = training(config);
        if let Training::Lora(lora) = &mut training
            && prepared.batches().examples().are_whole()
        {
            // A shared beginning has one mask, and copies of it have several.
            if lora.dropout > 0.0 {
                observer.notice(
                    "verified without `lora.dropout`: a shared beginning is dropped once, and copies \
                     of it each for itself",
                );
            }
            lora.dropout = 0.0;
        }
        let model = TrainableModel::load(device, base.source.path(), &training, &options);
        let mut model = model.map_err(|error| placed(config, error))?;
        base.name_padding(&mut model);
        config.objective.check_model(model.config())?;
        verify(&mut model, &config.objective, prepared.batches(), packs)
    })
}

/// A model on the chosen device.
enum Loaded {
    Cpu(Box<Model<Cpu>>),
    #[cfg(feature = "cuda")]
    Cuda(Box<Model<Cuda>>),
}

/// A model that answers.
pub struct Answerer {
    model: Loaded,
    tokenizer: Tokenizer,
}

impl Answerer {
    /// Opens the configuration's model and adapter.
    pub fn open(
        config: &Config,
        threads: usize,
        observer: &dyn Observer,
    ) -> Result<Self, RunError> {
        let (chosen, config) = choose(config, threads, observer)?;
        let mut base = Base::of(&config, observer)?;
        base.say_if_other_base(&config, observer)?;
        let why = base.no_tokenizer.clone();
        let Some(tokenizer) = base.tokenizer.take() else {
            return Err(RunError::NoTokenizer { why });
        };
        let model = match &chosen {
            Chosen::Cpu(cpu) => Loaded::Cpu(load(cpu, &config, &base, PREFILL)?.into()),
            #[cfg(feature = "cuda")]
            Chosen::Cuda(cuda) => Loaded::Cuda(load(cuda, &config, &base, PREFILL)?.into()),
        };
        Ok(Self { model, tokenizer })
    }

    /// Answers with at most `max_tokens` tokens; `on_text` gets the text as it is generated, and
    /// may stop.
    pub fn answer(
        &mut self,
        prompt: &Prompt,
        max_tokens: usize,
        sampling: &Sampling,
        mut on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generation, RunError> {
        let tokens = prompt.encode(&self.tokenizer)?;
        let end_ids = self.tokenizer.end_ids();
        let mut stream = self.tokenizer.decode_stream();
        let on_token = |token| {
            Ok(match stream.step(token)? {
                Some(text) => on_text(&text),
                None => ControlFlow::Continue(()),
            })
        };
        match &mut self.model {
            Loaded::Cpu(model) => generate(model, &tokens, max_tokens, sampling, end_ids, on_token),
            #[cfg(feature = "cuda")]
            Loaded::Cuda(model) => {
                generate(model, &tokens, max_tokens, sampling, end_ids, on_token)
            }
        }
    }
}
