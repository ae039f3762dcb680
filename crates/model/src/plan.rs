//! The plan of memory: every buffer of a model and its place, known before anything is allocated.
//!
//! The layout of a model ([`weights`](crate::weights), [`activations`](crate::activations)) is
//! written once, generic over [`Allocate`]. With a [`Plan`] it records each buffer; with an
//! [`Allocator`] it takes the same buffers from arenas, at the planned places.

use crate::{ModelError, ParameterKind};
use std::{
    cmp::Reverse,
    collections::{HashMap, hash_map::Entry},
};
use tightrope_device::{Arena, DType, Device, Tensor, reserved};

/// Purpose of a buffer. The buffers of each purpose lie in an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The model's own parameters.
    Weights,
    /// The adapter's parameters.
    Adapter,
    /// Gradients of trained parameters.
    Gradients,
    /// Activations kept from the forward to the backward pass.
    Saved,
    /// Inputs of a batch, and temporary values of operations.
    Workspace,
    /// Keys and values of a text that is read.
    Cache,
}

/// One buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedBuffer {
    /// Name of the parameter, or of the contents: `layer 3: gate`.
    pub name: String,
    /// Purpose of the buffer.
    pub purpose: Purpose,
    /// Type of the elements.
    pub dtype: DType,
    /// Dimensions of the buffer.
    pub shape: Vec<usize>,
    /// Kind of the parameter, for trained parameters and their gradients. Parameters that an
    /// optimizer treats alike lie side by side.
    pub trained: Option<ParameterKind>,
}

impl PlannedBuffer {
    /// Size in bytes, at most `usize::MAX`.
    pub fn bytes(&self) -> usize {
        let elements = self.shape.iter().fold(1usize, |a, &b| a.saturating_mul(b));
        elements.saturating_mul(self.dtype.size())
    }
}

/// Every buffer of a model, in the order of the layout.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Plan {
    buffers: Vec<PlannedBuffer>,
}

impl Plan {
    /// The buffers.
    pub fn buffers(&self) -> &[PlannedBuffer] {
        &self.buffers
    }

    /// Start of each buffer in the arena of its purpose, in bytes.
    ///
    /// Trained parameters come first, group by group and the largest of a group first, and
    /// gradients have the same order: the parameters that an optimizer treats alike are one range.
    /// Other buffers keep their order.
    pub fn offsets(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.buffers.len()).collect();
        order.sort_by_key(|&index| {
            let buffer = &self.buffers[index];
            let group = buffer.trained.map(ParameterKind::group);
            let bytes = group.map(|_| Reverse(buffer.bytes()));
            (group.is_none(), group, bytes)
        });
        let mut offsets = vec![0; self.buffers.len()];
        let mut ends: HashMap<Purpose, usize> = HashMap::new();
        for index in order {
            let buffer = &self.buffers[index];
            let end = ends.entry(buffer.purpose).or_default();
            offsets[index] = *end;
            *end = end.saturating_add(reserved(buffer.bytes()));
        }
        offsets
    }

    /// Size of all arenas in bytes.
    pub fn bytes(&self) -> usize {
        let sizes = self.buffers.iter().map(|buffer| reserved(buffer.bytes()));
        sizes.fold(0, usize::saturating_add)
    }

    /// Size of the arena of one purpose in bytes.
    pub fn bytes_for(&self, purpose: Purpose) -> usize {
        let of_purpose = self.buffers.iter().filter(|b| b.purpose == purpose);
        of_purpose
            .map(|buffer| reserved(buffer.bytes()))
            .fold(0, usize::saturating_add)
    }
}

/// Source of buffers.
pub(crate) trait Allocate {
    /// Type that represents a buffer.
    type Buffer;
    /// Provides the buffer, zeroed.
    fn allocate(&mut self, buffer: PlannedBuffer) -> Result<Self::Buffer, ModelError>;
}

/// Records the buffers that would be allocated.
impl Allocate for Plan {
    type Buffer = ();
    fn allocate(&mut self, buffer: PlannedBuffer) -> Result<(), ModelError> {
        self.buffers.push(buffer);
        Ok(())
    }
}

/// Takes buffers from arenas, in the order of a plan.
pub(crate) struct Allocator<D: Device> {
    plan: Plan,
    offsets: Vec<usize>,
    arenas: HashMap<Purpose, Arena<D>>,
    taken: usize,
}

impl<D: Device> Allocator<D> {
    /// Allocates an arena for each purpose.
    pub(crate) fn new(device: &D, plan: Plan) -> Result<Self, ModelError> {
        let mut arenas = HashMap::new();
        for buffer in &plan.buffers {
            if let Entry::Vacant(arena) = arenas.entry(buffer.purpose) {
                arena.insert(Arena::new(device, plan.bytes_for(buffer.purpose))?);
            }
        }
        Ok(Self {
            offsets: plan.offsets(),
            plan,
            arenas,
            taken: 0,
        })
    }

    /// Returns the plan, if all of its buffers were taken.
    pub(crate) fn into_plan(self) -> Result<Plan, ModelError> {
        match self.taken == self.plan.buffers.len() {
            true => Ok(self.plan),
            false => Err(ModelError::NotAsPlanned),
        }
    }
}

impl<D: Device> Allocate for Allocator<D> {
    type Buffer = Tensor<D>;
    fn allocate(&mut self, buffer: PlannedBuffer) -> Result<Tensor<D>, ModelError> {
        let index = self.taken;
        let arena = self.arenas.get_mut(&buffer.purpose);
        match (self.plan.buffers.get(index), arena) {
            (Some(planned), Some(arena)) if *planned == buffer => {
                self.taken += 1;
                Ok(arena.tensor(self.offsets[index], buffer.dtype, &buffer.shape)?)
            }
            _ => Err(ModelError::NotAsPlanned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BaseStorage, KvCache, LoadOptions, LoraConfig, ModelConfig, Training, load};
    use std::{collections::HashSet, path::Path};
    use tightrope_device::Cpu;

    fn config(case: &str) -> ModelConfig {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        ModelConfig::read(&root.join(case)).unwrap()
    }

    #[test]
    fn what_is_allocated_is_what_was_planned() {
        for case in ["llama_biases", "qwen3_window", "gemma2"] {
            let config = config(case);
            let lora = || Some(Training::Lora(LoraConfig::default()));
            let whole = LoraConfig {
                dora: true,
                modules_to_save: vec!["embed_tokens".into(), "norm".into()],
                ..LoraConfig::default()
            };
            for (training, base) in [
                (None, BaseStorage::AsStored),
                (None, BaseStorage::Nf4),
                (Some(Training::Full), BaseStorage::AsStored),
                (lora(), BaseStorage::AsStored),
                (lora(), BaseStorage::Nf4),
                (Some(Training::Lora(whole.clone())), BaseStorage::AsStored),
                (Some(Training::Lora(whole)), BaseStorage::Nf4),
            ] {
                for (recompute, capacity) in [(false, 0), (false, 7), (true, 33)] {
                    let options = LoadOptions {
                        base,
                        recompute,
                        ..LoadOptions::new(capacity)
                    };
                    let training = training.as_ref();
                    let plan = Plan::new(&config, training, &options, DType::BF16).unwrap();
                    let device = Cpu::new(1).unwrap();
                    let mut allocator = Allocator::new(&device, plan.clone()).unwrap();
                    let stored = |name: &str| config.stored(name, DType::BF16);
                    load::lay_out_all(&mut allocator, &config, training, &options, "", &stored)
                        .unwrap();
                    let arenas = allocator.arenas.values().map(Arena::bytes);
                    assert_eq!(arenas.sum::<usize>(), plan.bytes());
                    assert_eq!(allocator.into_plan().unwrap(), plan);
                }
            }
        }
    }

    #[test]
    fn a_cache_is_one_arena_of_what_was_planned() {
        let config = config("qwen3_window");
        let architecture = config.architecture();
        let plan = Plan::of_cache(architecture, 100, DType::F32).unwrap();
        assert_eq!(plan.buffers().len(), 2 * architecture.layers() + 1);
        let rows = 4 * 100 * architecture.kv_features();
        let elements = 2 * architecture.layers() * rows + 4 * architecture.vocabulary;
        let bytes = plan.buffers().iter().map(PlannedBuffer::bytes);
        assert_eq!(bytes.sum::<usize>(), elements);
        assert_eq!(plan.bytes_for(Purpose::Cache), plan.bytes());
        let cache = KvCache::new(&Cpu::new(1).unwrap(), architecture, 100, DType::F32);
        assert_eq!(cache.unwrap().capacity(), 100);
    }

    #[test]
    fn parameters_that_are_treated_alike_lie_side_by_side_like_their_gradients() {
        let config = config("qwen3_window");
        for training in [Training::Full, Training::Lora(LoraConfig::default())] {
            let options = LoadOptions::new(3);
            let plan = Plan::new(&config, Some(&training), &options, DType::F32).unwrap();
            let placed = |gradients: bool| {
                let buffers = plan.buffers().iter().zip(plan.offsets());
                let trained = buffers.filter_map(|(buffer, offset)| {
                    let of_gradients = buffer.purpose == Purpose::Gradients;
                    let kind = buffer.trained.filter(|_| of_gradients == gradients)?;
                    Some((offset, kind.group(), buffer.shape.clone()))
                });
                let mut trained: Vec<_> = trained.collect();
                trained.sort();
                trained
            };
            let weights = placed(false);
            assert_eq!(weights, placed(true));
            let mut groups: Vec<_> = weights.iter().map(|(_, group, _)| group).collect();
            groups.dedup();
            let distinct: HashSet<_> = groups.iter().collect();
            let kinds = match training {
                Training::Full if config.architecture().tied_head => 3,
                Training::Full => 4,
                Training::Lora(_) => 2,
            };
            assert!(
                groups.len() == kinds && distinct.len() == kinds,
                "{groups:?}"
            );
        }
    }

    #[test]
    fn recomputation_saves_what_grows_with_layers() {
        let config = config("gemma2");
        let plan = |recompute| {
            let options = LoadOptions {
                recompute,
                ..LoadOptions::new(64)
            };
            let lora = Training::Lora(LoraConfig::default());
            Plan::new(&config, Some(&lora), &options, DType::F32).unwrap()
        };
        let (kept, again) = (plan(false), plan(true));
        assert!(again.bytes_for(Purpose::Saved) < kept.bytes_for(Purpose::Saved) / 2);
        for purpose in [
            Purpose::Weights,
            Purpose::Adapter,
            Purpose::Gradients,
            Purpose::Workspace,
        ] {
            assert_eq!(again.bytes_for(purpose), kept.bytes_for(purpose));
        }
    }
}
