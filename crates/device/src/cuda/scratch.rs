//! Working memory that operations share, grown when first needed and kept.

use super::{Cuda, CudaBytes, Input, Output};
use crate::{Device, DeviceError, inside};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Each piece by its name.
#[derive(Default)]
pub(super) struct Arena {
    pieces: Mutex<HashMap<&'static str, Arc<Mutex<Option<CudaBytes>>>>>,
}

/// A piece of working memory, held until the operation has issued its last kernel; what is issued
/// later by others is ordered after it. Its contents are whatever was left there.
#[derive(Debug)]
pub struct Scratch(Arc<Mutex<Option<CudaBytes>>>);

/// The piece while it is used.
#[derive(Debug)]
pub struct Held<'a>(MutexGuard<'a, Option<CudaBytes>>);

impl Held<'_> {
    /// For a kernel to read.
    pub fn input(&self) -> Input<'_> {
        self.0.as_ref().map_or(Input::NONE, Input::bytes)
    }
    /// For a kernel to write.
    pub fn output(&mut self) -> Output<'_> {
        self.0.as_mut().map_or(Output::NONE, Output::bytes)
    }
    /// Writes bytes of the host over the first ones.
    pub fn write(&mut self, device: &Cuda, source: &[u8]) -> Result<(), DeviceError> {
        match self.0.as_mut() {
            Some(memory) => device.write(memory, 0, source),
            None => inside(0, source.len(), 0).map(drop),
        }
    }
    /// Copies the first bytes to the host, and waits for them.
    pub fn read(&self, device: &Cuda, destination: &mut [u8]) -> Result<(), DeviceError> {
        match self.0.as_ref() {
            Some(memory) => device.read(memory, 0, destination),
            None => inside(0, destination.len(), 0).map(drop),
        }
    }
    /// The memory; none if another thread could not grow it.
    pub(super) fn memory(&self) -> Option<&CudaBytes> {
        self.0.as_ref()
    }
    /// As `memory`, to write to.
    pub(super) fn memory_mut(&mut self) -> Option<&mut CudaBytes> {
        self.0.as_mut()
    }
}

impl Cuda {
    /// The piece called `name`, with at least `bytes` bytes. Two operations that use one piece at the
    /// same time must give it different names.
    pub fn scratch(&self, name: &'static str, bytes: usize) -> Result<Scratch, DeviceError> {
        let mut pieces = self
            .shared
            .scratch
            .pieces
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let piece = pieces.entry(name).or_default().clone();
        drop(pieces);
        let mut memory = piece.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.as_ref().is_none_or(|memory| memory.len() < bytes) {
            // The old piece goes first, so that both are never there at once.
            *memory = None;
            *memory = Some(self.allocate(bytes)?);
        }
        drop(memory);
        Ok(Scratch(piece))
    }

    /// Bytes of all pieces.
    pub fn scratch_bytes(&self) -> usize {
        let pieces = &self.shared.scratch.pieces;
        let pieces = pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let size = |piece: &Arc<Mutex<Option<CudaBytes>>>| {
            let piece = piece.lock().unwrap_or_else(PoisonError::into_inner);
            piece.as_ref().map_or(0, CudaBytes::len)
        };
        pieces.values().map(size).sum()
    }
}

impl Scratch {
    /// Takes the piece; others wait.
    pub fn hold(&self) -> Held<'_> {
        Held(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
