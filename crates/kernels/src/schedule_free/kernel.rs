//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::cuda::{Input, Kernel, Module, Output, Parameter};

/// The kernels and their PTX.
pub(super) static MODULE: Module = Module {
    name: module_path!(),
    ptx: include_str!("kernel.ptx"),
    kernels: &[
        "schedule_free_update_u32",
        "schedule_free_average_u32",
        "schedule_free_update_u64",
        "schedule_free_average_u64",
    ],
};

/// Parameters of `schedule_free_average`. Variants: `u32`, `u64`.
#[derive(Debug)]
pub(super) struct ScheduleFreeAverage<'a> {
    pub y: Output<'a>,
    pub z: Input<'a>,
    pub weight: f32,
    pub elements: u64,
}

impl Kernel<4> for ScheduleFreeAverage<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "schedule_free_average";

    fn parameters(self) -> [Parameter; 4] {
        [
            self.y.into(),
            self.z.into(),
            self.weight.into(),
            self.elements.into(),
        ]
    }
}

/// Parameters of `schedule_free_update`. Variants: `u32`, `u64`.
#[derive(Debug)]
pub(super) struct ScheduleFreeUpdate<'a> {
    pub y: Output<'a>,
    pub gradient: Input<'a>,
    pub z: Output<'a>,
    pub v: Output<'a>,
    pub gradient_scale: f32,
    pub beta2: f32,
    pub blend2: f32,
    pub root: f32,
    pub eps: f32,
    pub decay: f32,
    pub average: f32,
    pub y_rate: f32,
    pub z_rate: f32,
    pub elements: u64,
}

impl Kernel<14> for ScheduleFreeUpdate<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "schedule_free_update";

    fn parameters(self) -> [Parameter; 14] {
        [
            self.y.into(),
            self.gradient.into(),
            self.z.into(),
            self.v.into(),
            self.gradient_scale.into(),
            self.beta2.into(),
            self.blend2.into(),
            self.root.into(),
            self.eps.into(),
            self.decay.into(),
            self.average.into(),
            self.y_rate.into(),
            self.z_rate.into(),
            self.elements.into(),
        ]
    }
}
