//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::cuda::{Kernel, Module, Output, Parameter};

/// The kernels and their PTX.
pub(super) static MODULE: Module = Module {
    name: module_path!(),
    ptx: include_str!("kernel.ptx"),
    kernels: &[
        "muon_momentum_u32",
        "muon_momentum_u64",
        "muon_add_to_diagonal",
    ],
};

/// Parameters of `muon_add_to_diagonal`. Variants: ``.
#[derive(Debug)]
pub(super) struct MuonAddToDiagonal<'a> {
    pub matrix: Output<'a>,
    pub number: f32,
    pub rows: u64,
}

impl Kernel<3> for MuonAddToDiagonal<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "muon_add_to_diagonal";

    fn parameters(self) -> [Parameter; 3] {
        [self.matrix.into(), self.number.into(), self.rows.into()]
    }
}

/// Parameters of `muon_momentum`. Variants: `u32`, `u64`.
#[derive(Debug)]
pub(super) struct MuonMomentum<'a> {
    pub weight: Output<'a>,
    pub gradient: Output<'a>,
    pub m: Output<'a>,
    pub gradient_scale: f32,
    pub keep: f32,
    pub blend: f32,
    pub ahead: f32,
    pub elements: u64,
}

impl Kernel<8> for MuonMomentum<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "muon_momentum";

    fn parameters(self) -> [Parameter; 8] {
        [
            self.weight.into(),
            self.gradient.into(),
            self.m.into(),
            self.gradient_scale.into(),
            self.keep.into(),
            self.blend.into(),
            self.ahead.into(),
            self.elements.into(),
        ]
    }
}
