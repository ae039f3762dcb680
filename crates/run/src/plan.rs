//! What a run will need, before it starts.

use crate::{Base, Chosen, RunError, choose, session::placed};
use serde::Serialize;
use std::any::Any;
use sysinfo::{
    MemoryRefreshKind, Pid, Process, ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System,
};
use tightrope_data::Dataset;
use tightrope_device::Cpu;
use tightrope_model::{Backend, Plan, Purpose};
use tightrope_train::{
    Config, Observer, Prepared,
    config::PrecisionChoice,
    estimate::{Epoch, head_bytes, product_rates},
    state_bytes, training,
};

/// Memory by what it is for, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Program, tokenizer, data, and working memory of threads.
    pub program: u64,
    /// The model's own parameters.
    pub weights: u64,
    /// Parameters of the adapter.
    pub adapter: u64,
    /// Gradients of what is trained.
    pub gradients: u64,
    /// State of the optimizer.
    pub optimizer: u64,
    /// Activations that the backward pass needs.
    pub activations: u64,
    /// Inputs of a batch, temporary values, and a chunk of logits.
    pub workspace: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        [
            self.program,
            self.weights,
            self.adapter,
            self.gradients,
            self.optimizer,
            self.activations,
            self.workspace,
        ]
        .iter()
        .fold(0, |sum, &bytes| sum.saturating_add(bytes))
    }
}

/// Memory of the machine, or of the control group that the process is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Available {
    /// What this process could take now, in bytes.
    pub free: u64,
    /// What there is at all, in bytes.
    pub total: u64,
}

impl Available {
    /// Reads both, if the system tells them.
    pub fn now() -> Option<Self> {
        let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
        let mut system = System::new_with_specifics(memory).ok()?;
        let machine = Self {
            free: system.available_memory(),
            total: system.total_memory(),
        };
        let group = own(&mut system).and_then(Process::cgroup_limits);
        Some(match group {
            Some(group) => Self {
                free: machine.free.min(group.free_memory),
                total: machine.total.min(group.total_memory),
            },
            None => machine,
        })
    }
}

/// This process.
fn own(system: &mut System) -> Option<&Process> {
    let own = Pid::from_u32(std::process::id());
    let kind = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[own]), false, kind);
    system.process(own)
}

/// Memory that this process uses now, in bytes.
fn resident() -> u64 {
    let memory = |mut system| Some(own(&mut system)?.memory());
    System::new().ok().and_then(memory).unwrap_or(0)
}

/// How fast a run will be, by a product of the model's size that was measured just before.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Speed {
    /// Real tokens in a second.
    pub tokens_per_second: f64,
    /// Seconds for all steps, without evaluations.
    pub seconds: f64,
    /// Operations of products in a second, measured.
    pub flops: f64,
}

/// What a run will need.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Needs {
    /// Number of tokens in the largest batch.
    pub capacity: usize,
    /// Memory at the peak of a step.
    pub memory: Memory,
    /// Number of steps.
    pub steps: u64,
    /// Tokens of an epoch, without padding.
    pub tokens_per_epoch: u64,
    /// Known on the processor.
    pub speed: Option<Speed>,
}

/// A model and its data, for which the needs of several configurations are known at once.
pub struct Planner {
    base: Base,
    chosen: Chosen,
    train: Dataset,
    eval: Option<Dataset>,
    /// Memory of the program, and of its threads.
    program: u64,
    /// Rates of products in f32 and in bf16.
    flops: Option<[f64; 2]>,
}

impl Planner {
    /// Reads the data of a configuration and the description of its model, but no weights; measures
    /// the processor for half a second.
    pub fn new(config: &Config, threads: usize, observer: &dyn Observer) -> Result<Self, RunError> {
        let (chosen, config) = choose(config, threads, observer)?;
        let base = Base::of(&config, observer)?;
        base.plan(&config, 1)?;
        let (train, eval) = base.load_both(&config, observer)?;
        let (program, flops) = match &chosen {
            Chosen::Cpu(cpu) => {
                let rates = base.architecture().map(|model| product_rates(cpu, model));
                (program(cpu), rates.transpose()?)
            }
            #[cfg(feature = "cuda")]
            Chosen::Cuda(_) => (resident(), None),
        };
        Ok(Self {
            program,
            base,
            chosen,
            train,
            eval,
            flops,
        })
    }

    /// Whether the memory is that of the machine, and not that of a GPU.
    pub fn is_on_processor(&self) -> bool {
        matches!(self.chosen, Chosen::Cpu(_))
    }

    /// The needs of a configuration that differs from that of [`Planner::new`] in nothing that
    /// changes the data or the device.
    pub fn needs(&self, config: &Config) -> Result<Needs, RunError> {
        let padding = self.base.padding_token();
        let prepared = Prepared::new(config, &self.train, self.eval.as_ref(), padding)?;
        let capacity = prepared.capacity();
        let memory = self.memory(config, capacity)?;
        let batches = prepared.batches();
        let steps = batches.total_steps(config);
        let tokens_per_epoch = batches.packing().tokens();
        let share = steps as f64 / batches.steps_per_epoch().max(1) as f64;
        let epoch = Epoch {
            tokens: tokens_per_epoch as f64,
            packs: batches.packing().len() as f64,
            steps: batches.steps_per_epoch() as f64,
            update_bytes: (2 * memory.gradients + memory.optimizer) as f64,
        };
        let speed = self.base.architecture().zip(self.flops);
        let speed = speed.map(|(model, [f32s, bf16s])| {
            let flops = match config.precision {
                PrecisionChoice::Bf16 => bf16s,
                PrecisionChoice::F32 | PrecisionChoice::Auto => f32s,
            };
            let seconds = epoch.seconds(model, config, flops);
            Speed {
                tokens_per_second: epoch.tokens / seconds,
                seconds: seconds * share,
                flops,
            }
        });
        Ok(Needs {
            capacity,
            memory,
            steps,
            tokens_per_epoch,
            speed,
        })
    }

    /// Memory for batches of so many tokens.
    fn memory(&self, config: &Config, capacity: usize) -> Result<Memory, RunError> {
        self.base.memory(config, capacity, self.program)
    }

    /// The largest number of tokens in a batch that fits this much memory, of at most `most`; `None`
    /// if not even one does.
    pub fn longest(
        &self,
        config: &Config,
        bytes: u64,
        most: usize,
    ) -> Result<Option<usize>, RunError> {
        let fits = |tokens: usize| Ok::<_, RunError>(self.memory(config, tokens)?.total() <= bytes);
        if !fits(1)? {
            return Ok(None);
        }
        let (mut fitting, mut above) = (1, most.saturating_add(1));
        while above - fitting > 1 {
            let middle = fitting + (above - fitting) / 2;
            match fits(middle)? {
                true => fitting = middle,
                false => above = middle,
            }
        }
        Ok(Some(fitting))
    }
}

impl Base {
    /// The buffers of a run; finds what is wrong with the model's files or the adapter.
    pub(crate) fn plan(&self, config: &Config, capacity: usize) -> Result<Plan, RunError> {
        let training = training(config);
        let options = self.load_options(config, capacity);
        let plan = Plan::of_files(self.source.path(), Some(&training), &options);
        plan.map_err(|error| placed(config, error))
    }

    /// Memory of a run at the peak of a step, beside that of the program.
    pub(crate) fn memory(
        &self,
        config: &Config,
        capacity: usize,
        program: u64,
    ) -> Result<Memory, RunError> {
        let plan = self.plan(config, capacity)?;
        let of = |purpose| plan.bytes_for(purpose) as u64;
        let architecture = self.architecture();
        let logits = architecture.map_or(0, |model| head_bytes(model, capacity));
        Ok(Memory {
            program,
            weights: of(Purpose::Weights),
            adapter: of(Purpose::Adapter),
            gradients: of(Purpose::Gradients),
            optimizer: state_bytes(&config.optimizer, &plan),
            activations: of(Purpose::Saved),
            workspace: of(Purpose::Workspace) + logits,
        })
    }
}

/// Working memory of a thread's products and attention on the processor, in bytes.
const THREAD_BYTES: u64 = 16 << 20;

/// Memory that a run on the processor takes beside its buffers.
fn program(cpu: &Cpu) -> u64 {
    resident() + cpu.threads() as u64 * THREAD_BYTES
}

/// Refuses a run on the processor that the machine has no memory for.
pub(crate) fn check_memory<D: Backend>(
    device: &D,
    base: &Base,
    config: &Config,
    capacity: usize,
) -> Result<(), RunError> {
    let device: &dyn Any = device;
    let Some(cpu) = device.downcast_ref::<Cpu>() else {
        return Ok(());
    };
    let needed = base.memory(config, capacity, program(cpu))?.total();
    match Available::now() {
        Some(Available { total, .. }) if needed > total => Err(RunError::Memory { needed, total }),
        _ => Ok(()),
    }
}
