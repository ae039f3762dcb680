//! The plan of memory: every buffer of a model, known before the first is allocated.
//!
//! What lays a model out ([`weights`](crate::weights), [`activations`](crate::activations)) is
//! written once, over [`Allocate`]. Run with a [`Plan`] it only notes each buffer; run with an
//! [`Allocator`] it allocates the same buffers. The two cannot drift apart.

use crate::ModelError;
use tightrope_device::{DType, Device, Tensor};

/// What a buffer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The model's own parameters.
    Weights,
    /// The adapter's parameters.
    Adapter,
    /// Gradients of trained parameters.
    Gradients,
    /// Kept from the forward to the backward pass.
    Saved,
    /// Inputs of a batch, and what operations use in passing.
    Workspace,
}

/// One buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedBuffer {
    /// The parameter's name, or what it holds: `layer 3: gate`.
    pub name: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Type of its elements.
    pub dtype: DType,
    /// Its dimensions.
    pub shape: Vec<usize>,
}

impl PlannedBuffer {
    /// Its size, at most `usize::MAX`.
    pub fn bytes(&self) -> usize {
        let elements = self.shape.iter().fold(1usize, |a, &b| a.saturating_mul(b));
        elements.saturating_mul(self.dtype.size())
    }
}

/// Every buffer of a model, in the order of allocation.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Plan {
    buffers: Vec<PlannedBuffer>,
}

impl Plan {
    /// The buffers.
    pub fn buffers(&self) -> &[PlannedBuffer] {
        &self.buffers
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> usize {
        let sizes = self.buffers.iter().map(PlannedBuffer::bytes);
        sizes.fold(0, usize::saturating_add)
    }

    /// Bytes of the buffers with one purpose.
    pub fn bytes_for(&self, purpose: Purpose) -> usize {
        let of_purpose = self.buffers.iter().filter(|b| b.purpose == purpose);
        of_purpose
            .map(PlannedBuffer::bytes)
            .fold(0, usize::saturating_add)
    }
}

/// Where buffers come from.
pub(crate) trait Allocate {
    /// What stands for a buffer.
    type Buffer;
    /// The buffer, zeroed.
    fn allocate(&mut self, buffer: PlannedBuffer) -> Result<Self::Buffer, ModelError>;
}

/// Notes what would be allocated.
impl Allocate for Plan {
    type Buffer = ();
    fn allocate(&mut self, buffer: PlannedBuffer) -> Result<(), ModelError> {
        self.buffers.push(buffer);
        Ok(())
    }
}

/// Allocates on a device, and notes it.
pub(crate) struct Allocator<'a, D> {
    pub device: &'a D,
    pub plan: Plan,
}

impl<D: Device> Allocate for Allocator<'_, D> {
    type Buffer = Tensor<D>;
    fn allocate(&mut self, buffer: PlannedBuffer) -> Result<Tensor<D>, ModelError> {
        let tensor = Tensor::zeros(self.device, buffer.dtype, &buffer.shape)?;
        self.plan.allocate(buffer)?;
        Ok(tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BaseStorage, LoadOptions, LoraConfig, ModelConfig, Training, load};
    use std::{
        path::Path,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };
    use tightrope_device::{Cpu, DeviceError};

    /// The CPU, counting the bytes that are allocated on it.
    #[derive(Clone, Debug)]
    struct Counting(Cpu, Arc<AtomicUsize>);

    impl Device for Counting {
        type Buffer = <Cpu as Device>::Buffer;
        fn name(&self) -> String {
            self.0.name()
        }
        fn allocate(&self, bytes: usize) -> Result<Self::Buffer, DeviceError> {
            self.1.fetch_add(bytes, Ordering::Relaxed);
            self.0.allocate(bytes)
        }
        fn bytes(buffer: &Self::Buffer) -> usize {
            Cpu::bytes(buffer)
        }
        fn write(&self, to: &mut Self::Buffer, at: usize, from: &[u8]) -> Result<(), DeviceError> {
            self.0.write(to, at, from)
        }
        fn read(&self, from: &Self::Buffer, at: usize, to: &mut [u8]) -> Result<(), DeviceError> {
            self.0.read(from, at, to)
        }
        fn copy(
            &self,
            from: &Self::Buffer,
            from_at: usize,
            to: &mut Self::Buffer,
            to_at: usize,
            bytes: usize,
        ) -> Result<(), DeviceError> {
            self.0.copy(from, from_at, to, to_at, bytes)
        }
        fn zero(&self, to: &mut Self::Buffer, at: usize, bytes: usize) -> Result<(), DeviceError> {
            self.0.zero(to, at, bytes)
        }
        fn synchronize(&self) -> Result<(), DeviceError> {
            self.0.synchronize()
        }
    }

    fn config(case: &str) -> ModelConfig {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        ModelConfig::read(&root.join(case)).unwrap()
    }

    #[test]
    fn what_is_allocated_is_what_was_planned() {
        for case in ["llama_biases", "qwen3_window", "gemma2"] {
            let config = config(case);
            let lora = || Training::Lora(LoraConfig::default());
            for (training, base) in [
                (Training::None, BaseStorage::AsStored),
                (Training::None, BaseStorage::Nf4),
                (Training::Full, BaseStorage::AsStored),
                (lora(), BaseStorage::AsStored),
                (lora(), BaseStorage::Nf4),
            ] {
                for (recompute, capacity) in [(false, 0), (false, 7), (true, 33)] {
                    let options = LoadOptions {
                        base,
                        recompute,
                        ..LoadOptions::new(training.clone(), capacity)
                    };
                    let plan = Plan::new(&config, &options, DType::BF16).unwrap();
                    let count = Arc::new(AtomicUsize::new(0));
                    let device = Counting(Cpu::new(1).unwrap(), count.clone());
                    let mut allocator = Allocator {
                        device: &device,
                        plan: Plan::default(),
                    };
                    let stored = |name: &str| config.stored(name, DType::BF16);
                    let laid_out = load::lay_out(&mut allocator, &config, &options, "", &stored);
                    let (weights, _) = laid_out.unwrap();
                    load::lay_out_activations(&mut allocator, &config, &options, &weights).unwrap();
                    assert_eq!(allocator.plan, plan);
                    assert_eq!(count.load(Ordering::Relaxed), plan.bytes());
                }
            }
        }
    }

    #[test]
    fn recomputation_saves_what_grows_with_layers() {
        let config = config("gemma2");
        let plan = |recompute| {
            let options = LoadOptions {
                recompute,
                ..LoadOptions::new(Training::Lora(LoraConfig::default()), 64)
            };
            Plan::new(&config, &options, DType::F32).unwrap()
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
