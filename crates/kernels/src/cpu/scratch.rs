//! Working memory that is used again: no allocation once the largest operation has run.

use crate::KernelError;
use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, PoisonError},
};
use tightrope_device::{Cpu, Device};

type Buffer = <Cpu as Device>::Buffer;

static IDLE: Mutex<Vec<Buffer>> = Mutex::new(Vec::new());

/// `len` f32 of unspecified content, given back when dropped.
pub(crate) struct Scratch {
    buffer: Option<Buffer>,
    len: usize,
}

impl Scratch {
    /// The smallest idle buffer that is large enough, or a new one in place of the largest.
    pub(crate) fn take(cpu: &Cpu, len: usize) -> Result<Self, KernelError> {
        let bytes = len * size_of::<f32>();
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = (0..idle.len())
            .filter(|&i| Cpu::bytes(&idle[i]) >= bytes)
            .min_by_key(|&i| Cpu::bytes(&idle[i]));
        let buffer = match fits {
            Some(index) => idle.swap_remove(index),
            None => {
                // The largest idle buffer is the one that should have been larger.
                let outgrown = (0..idle.len()).max_by_key(|&i| Cpu::bytes(&idle[i]));
                outgrown.map(|index| idle.swap_remove(index));
                drop(idle);
                cpu.allocate(bytes)?
            }
        };
        Ok(Self {
            buffer: Some(buffer),
            len,
        })
    }
}

impl Deref for Scratch {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        let bytes = self.buffer.as_ref().map_or(&[][..], Buffer::as_bytes);
        &bytemuck::cast_slice(&bytes[..bytes.len() / 4 * 4])[..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        let bytes = self
            .buffer
            .as_mut()
            .map_or(&mut [][..], Buffer::as_bytes_mut);
        let whole = bytes.len() / 4 * 4;
        &mut bytemuck::cast_slice_mut(&mut bytes[..whole])[..self.len]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        idle.extend(self.buffer.take());
    }
}
