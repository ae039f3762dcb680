//! Adafactor on NVIDIA GPUs: sums over rows and columns, the limit, then the update.

use super::{
    Adafactor, Factors, RUN, SecondMoment, Update,
    kernel::{
        AdafactorAddColumns, AdafactorColumns, AdafactorElements, AdafactorLimit, AdafactorMean,
        AdafactorRows, AdafactorSums, AdafactorUpdate,
    },
};
use crate::{Checked, KernelError};
use tightrope_device::{
    Cuda, DType, Device,
    cuda::{Input, Launch, Output},
};

const THREADS: u32 = 256;
const TOTAL_THREADS: u32 = 1024;

impl Adafactor for Cuda {
    fn adafactor_update(&self, args: Checked<Update<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let f = Factors::new(&args.hyperparameters);
        let (rows, columns) = (args.rows, args.columns);
        if rows == 0 || columns == 0 {
            return Ok(());
        }
        let each_column = Launch::linear(columns.div_ceil(THREADS as usize), THREADS)?;
        let each_row = Launch::linear(rows, THREADS)?;
        let total = Launch::linear(1, TOTAL_THREADS)?;
        let gradient = Input::of(args.gradient);
        let mut mean = self.scratch(DType::F32, &[1])?;
        let (row, v) = match args.v {
            SecondMoment::Whole(mut v) => {
                let kernel = AdafactorElements {
                    gradient,
                    v: Output::of(v.reborrow()),
                    gradient_scale: f.gradient,
                    beta2: f.beta2,
                    blend2: f.blend2,
                    eps: f.eps,
                    elements: columns as u64,
                };
                // SAFETY: the check of the arguments proved that both operands have one row.
                unsafe { self.launch(kernel, &[], each_column) }?;
                (Input::NONE, v)
            }
            SecondMoment::Factored {
                rows: mut row,
                columns: mut column,
            } => {
                let kernel = AdafactorRows {
                    gradient,
                    row: Output::of(row.reborrow()),
                    gradient_scale: f.gradient,
                    beta2: f.beta2,
                    blend2: f.blend2,
                    eps: f.eps,
                    columns: columns as u64,
                };
                // SAFETY: the check of the arguments proved the number of rows and columns.
                unsafe { self.launch(kernel, &[], each_row) }?;
                let runs = rows.div_ceil(RUN);
                let mut partial = self.scratch(DType::F32, &[runs, columns])?;
                let kernel = AdafactorColumns {
                    gradient,
                    partial: Output::of(partial.view_mut()),
                    gradient_scale: f.gradient,
                    rows: rows as u64,
                    columns: columns as u64,
                    run: RUN as u64,
                };
                let [y, ..] = Launch::linear(runs, THREADS)?.grid;
                let launch = Launch {
                    grid: [each_column.grid[0], y, 1],
                    ..each_column
                };
                // SAFETY: the check proved the gradient; the scratch memory has a row for each run.
                unsafe { self.launch(kernel, &[], launch) }?;
                let kernel = AdafactorAddColumns {
                    partial: Input::of(partial.view()),
                    column: Output::of(column.reborrow()),
                    beta2: f.beta2,
                    blend2: f.blend2,
                    eps: f.eps,
                    rows: rows as u64,
                    columns: columns as u64,
                    runs: runs as u64,
                };
                // SAFETY: as above; the check proved the number of columns.
                unsafe { self.launch(kernel, &[], each_column) }?;
                let row = row.into_view();
                let kernel = AdafactorMean {
                    row: Input::of(row),
                    mean: Output::of(mean.view_mut()),
                    rows: rows as u64,
                };
                // SAFETY: the check proved the number of rows; the scratch memory has one number.
                unsafe { self.launch(kernel, &[], total) }?;
                (Input::of(row), column)
            }
        };
        let mut sums = self.scratch(DType::F32, &[rows])?;
        let mut limit = self.scratch(DType::F32, &[1])?;
        let kernel = AdafactorSums {
            gradient,
            row,
            mean: Input::of(mean.view()),
            v: Input::of(v.as_view()),
            sums: Output::of(sums.view_mut()),
            gradient_scale: f.gradient,
            columns: columns as u64,
        };
        // SAFETY: the check proved the operands; the scratch memory has a sum for each row.
        unsafe { self.launch(kernel, &[], each_row) }?;
        let kernel = AdafactorLimit {
            sums: Input::of(sums.view()),
            limit: Output::of(limit.view_mut()),
            threshold: f.threshold,
            rows: rows as u64,
            elements: (rows * columns) as u64,
        };
        // SAFETY: the scratch memory has a sum for each row, and one number.
        unsafe { self.launch(kernel, &[], total) }?;
        let kernel = AdafactorUpdate {
            weight: Output::of(args.weight),
            gradient,
            row,
            mean: Input::of(mean.view()),
            v: Input::of(v.as_view()),
            limit: Input::of(limit.view()),
            m: args.m.map_or(Output::NONE, Output::of),
            gradient_scale: f.gradient,
            rate: f.rate,
            keep: f.keep,
            beta1: f.beta1,
            blend1: f.blend1,
            columns: columns as u64,
        };
        // SAFETY: the check proved the operands; the written ones are borrowed exclusively.
        Ok(unsafe { self.launch(kernel, &[], each_row) }?)
    }
}
